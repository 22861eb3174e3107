//! The chart as Helm renders it, without a cluster: what comes out of good values, and what is said of bad ones.

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
