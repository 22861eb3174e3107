//! Files and directories, without HTTP: what is there, and how it is changed.

pub mod atomic;
pub mod change;
pub mod glob;
pub mod info;
pub mod range;
pub mod window;
