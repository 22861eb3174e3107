//! The embedded cluster's node half: runs Pods as real containers, one shim process per pod.

pub mod cgroup;
pub mod env;
pub mod images;
pub mod network;
pub mod pod;
pub mod shim;
mod sys;
pub mod volumes;
