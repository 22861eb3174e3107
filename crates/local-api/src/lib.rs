//! The embedded cluster's API half: a Kubernetes API as a `tower::Service`, in memory or durable.

pub mod streams;
