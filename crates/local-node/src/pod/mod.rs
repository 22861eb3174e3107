//! One pod from its object to its processes and back to its status.

pub mod context;
pub mod decide;
pub mod events;
pub mod exec;
pub mod files;
pub mod memory;
pub mod probe;
pub mod quantity;
pub mod spec;
pub mod start;
pub mod status;
pub mod stop;
pub mod worker;
