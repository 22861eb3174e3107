//! The chart as Helm renders it, without a cluster: what comes out of good values, and what is said of bad ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test ends by a panic; the helpers here are no test functions, which is all that the lints know to spare"
)]

mod helm;
mod hooks;
mod monitoring;
mod network;
mod pools;
mod refusals;
mod rights;
mod security;
mod server;
mod values;
