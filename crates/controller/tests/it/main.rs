//! The controller on the embedded API, with a node and daemons that the tests hold.

mod batches;
mod fake;
mod platform;
mod pools;
mod sandboxes;
