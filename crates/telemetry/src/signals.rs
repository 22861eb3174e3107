//! The signals that end a program.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a program that was told twice to stop: that of a shell for SIGINT.
const HURRIED: i32 = 130;

/// A token that is cancelled at the first SIGTERM or SIGINT. A second one ends the process at once with code 130,
/// for those who do not want to wait for the graceful end. Fails when the handlers cannot be installed.
pub fn terminate() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if again {
                tracing::warn!(signal = name, "told again to stop: ending at once");
                std::process::exit(HURRIED);
            }
            tracing::info!(signal = name, "stopping");
            stop.cancel();
        }
    });
    Ok(token)
}
