//! Logs: JSON lines on standard error, few by default, for they stand among the workload's own output.
//! Commands, environments, tokens and addresses of requests are never logged.

use tracing::level_filters::LevelFilter;

/// Begins to log at a level of `--log-level`.
pub fn init(level: u8) {
    let subscriber =
        tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_max_level(filter(level)).finish();
    // Only a second call fails, and then the first one stands.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn filter(level: u8) -> LevelFilter {
    match level {
        0..=3 => LevelFilter::ERROR,
        4 => LevelFilter::WARN,
        5 | 6 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    }
}
