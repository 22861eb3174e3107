//! One pod from its object to its processes and back to its status.

pub mod quantity;
pub mod spec;
