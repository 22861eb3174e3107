//! One pod from its object to its processes and back to its status.

pub mod context;
pub mod decide;
pub mod events;
pub mod exec;
pub mod files;
pub mod memory;
pub mod policy;
pub mod probe;
pub mod quantity;
pub mod references;
pub mod resources;
pub mod spec;
pub mod start;
pub mod status;
pub mod stop;
pub mod worker;
