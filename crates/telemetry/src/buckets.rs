//! Bounds of the histograms, so that the same thing is measured alike everywhere.

/// Seconds of a request, a write or a reconcile: half a millisecond to half a minute.
pub const REQUEST_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds somebody waits for a sandbox: from a warm pod (milliseconds) to an image that has to be pulled (minutes).
pub const WAIT_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
