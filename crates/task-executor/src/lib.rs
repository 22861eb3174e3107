//! task-executor: the sidecar that starts processes in the sandbox container of its pod.
//!
//! `http` takes what is wanted, `manager` keeps it true, `target` finds the sandbox container,
//! `execd` hands a task to the daemon there, and where there is none `supervise` runs it by one of
//! the ways of `inject`. `claim` remembers whose the pod is.

pub mod claim;
pub mod config;
pub mod error;
pub mod execd;
pub mod http;
pub mod init;
pub mod inject;
pub mod manager;
pub mod proc;
pub mod store;
pub mod supervise;
mod sys;
pub mod target;
