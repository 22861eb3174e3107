//! What the tests that cross crates share: the suite's grounds, and a platform of their own, ended by RAII.

pub mod audit;
pub mod evidence;
pub mod execd;
pub mod ground;
pub mod platform;
pub mod watch;
