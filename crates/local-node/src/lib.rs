//! The embedded cluster's node half: runs Pods as real containers, one shim process per pod.
//!
//! The hosting program calls [`shim::main_if_asked`] first thing in `main`; everything else begins with
//! [`Node::start`]. How it is built is told in `docs/design/0003-local-node.md`.

mod cgroup;
pub mod env;
pub mod images;
mod logs;
pub mod network;
mod node;
pub mod pod;
mod registration;
mod requirements;
mod schedule;
pub mod shim;
mod streams;
mod sys;
pub mod volumes;

pub use node::{Node, NodeConfig, NodeError};
pub use requirements::Missing;
