//! Every operation of the OpenAPI document, walked: what it refuses and how, what it answers, what calls it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod document;
mod methods;
mod walk;
