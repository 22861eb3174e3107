//! Logs on standard error, as text or as JSON lines, with a level that cannot make a library print secrets.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Libraries whose debug output holds whole requests, headers and bodies: they stay at `info` unless the level
/// names them.
const TALKATIVE: [&str; 7] = ["h2", "hyper", "hyper_util", "kube_client", "reqwest", "rustls", "tungstenite"];

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for Format {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" | "console" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogsError::Format(other.to_owned())),
        }
    }
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// Not a format we write.
    #[error("log format {0:?} is unknown: text or json")]
    Format(String),
    /// Neither a level nor a list of directives.
    #[error("log level {0:?} is unknown: error, warn, info, debug, trace or directives such as info,controller=debug")]
    Level(String),
}

/// Begins to log. `level` is a level (`info`) or a list of directives (`info,controller=debug`). A second call in a
/// process changes nothing.
pub fn init(level: &str, format: Format) -> Result<(), LogsError> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second call fails, and then the first one stands.
    let _ = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The filter of a level, with the talkative libraries held at `info`.
fn filter(level: &str) -> Result<EnvFilter, LogsError> {
    let mut directives = String::new();
    for name in TALKATIVE {
        if !level.contains(name) {
            directives.push_str(name);
            directives.push_str("=info,");
        }
    }
    // The parser reads a mere word as a target, so that a misspelt level would be silence.
    if level.split(',').any(|part| !part.contains('=') && !is_level(part.trim())) {
        return Err(LogsError::Level(level.to_owned()));
    }
    directives.push_str(level);
    EnvFilter::try_new(directives).map_err(|_| LogsError::Level(level.to_owned()))
}

fn is_level(word: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_directives() {
        for level in ["info", "DEBUG", "warn,controller=debug", "off"] {
            filter(level).unwrap();
        }
        for level in ["loud", "info,", "info,controller=loud"] {
            assert!(filter(level).is_err(), "{level}");
        }
    }

    #[test]
    fn libraries_that_print_requests_stay_quiet_unless_named() {
        assert!(filter("trace").unwrap().to_string().contains("hyper=info"));
        assert!(!filter("info,hyper=trace").unwrap().to_string().contains("hyper=info"));
    }
}
