//! Files as the sandbox has them: what is known of them, how they change, and how they come and go.

pub mod archive;
pub mod atomic;
pub mod change;
pub mod glob;
pub mod identity;
pub mod info;
pub mod range;
pub mod sparse;
pub mod window;
