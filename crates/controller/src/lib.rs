//! The controller: keeps Pools warm and gives their pods to BatchSandboxes.
//!
//! Four rooms. [`world`] is a plain struct fed by watch events and by the answers to our own
//! writes. [`planner`] decides: pure functions over a snapshot of the world and a time. [`act`]
//! carries a plan out and feeds the answers back. [`daemons`] speaks with execd and task-executor.
//! [`run`] ties them to watches and a work queue.
//!
//! Time, names and daemons come from outside ([`Clock`], [`Ids`], [`daemons::Daemons`]), so that
//! a test can hold all of them.

pub mod act;
mod clock;
mod config;
pub mod daemons;
mod error;
mod events;
pub mod guard;
mod health;
mod ids;
pub mod lease;
mod metrics;
pub mod permissions;
pub mod planner;
mod queue;
mod run;
mod takeover;
mod watch;
pub mod world;

pub use clock::{Clock, SystemClock};
pub use config::{Config, LeaderElection};
pub use error::ControllerError;
pub use ids::{Ids, RandomIds};
pub use metrics::Metrics;
pub use run::{Controller, run};
