//! The embedded cluster against the real thing: the same requests to both, and every difference either mended or listed.

pub mod api;
pub mod node;
