//! What the tests that cross crates share: a platform of their own, started and ended by RAII.

pub mod platform;
