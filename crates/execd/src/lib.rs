//! execd: the daemon inside a sandbox. It runs commands, moves files, and belongs to one owner at a time.
//!
//! The rooms: [`http`] is the face; [`exec`] runs processes and [`journal`] keeps what they write;
//! [`stream`] is that as the SDKs read it; [`session`] and [`pty`] are shells that stay; [`claim`] knows
//! the owner and [`tasks`] what task-executor hands over; [`hooks`] run before and beside the program;
//! [`files`], [`metrics`], [`envs`], [`paths`] and [`users`] know the container; [`sys`] holds the system
//! calls.

pub mod alive;
pub mod claim;
pub mod compat;
pub mod config;
pub mod envs;
pub mod exec;
pub mod files;
pub mod hooks;
pub mod http;
pub mod journal;
pub mod kept;
pub mod logging;
pub mod main_process;
pub mod metrics;
pub mod paths;
pub mod pty;
pub mod serve;
pub mod session;
pub mod stream;
pub mod sys;
pub mod tasks;
pub mod users;
