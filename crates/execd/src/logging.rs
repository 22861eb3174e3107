//! Logs: JSON lines, few by default, for they may stand among the workload's own output. Commands,
//! environments, tokens and addresses of requests are never logged.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

/// File for the logs, instead of standard error.
pub const FILE_ENV: &str = "EXECD_LOG_FILE";
/// Places for the logs, with commas between: paths, `stdout`, `stderr`.
pub const OUTPUT_ENV: &str = "OPENSANDBOX_LOG_OUTPUT";
/// Bytes after which a log file makes room for a new one; one old one is kept.
const FILE_CAP: u64 = 64 << 20;

/// Begins to log at a level of `--log-level`.
pub fn init(level: u8) {
    let given = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let places = given(FILE_ENV).or_else(|| given(OUTPUT_ENV)).unwrap_or_else(|| "stderr".to_owned());
    let places: Vec<Place> = places.split(',').map(str::trim).filter(|p| !p.is_empty()).map(Place::of).collect();
    let writer = std::sync::Mutex::new(Places(places));
    let subscriber = tracing_subscriber::fmt().json().with_writer(writer).with_max_level(filter(level)).finish();
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

enum Place {
    Stdout,
    Stderr,
    File { path: PathBuf, file: Option<File>, written: u64 },
}

struct Places(Vec<Place>);

impl Place {
    fn of(text: &str) -> Self {
        match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => Self::File { path: path.into(), file: None, written: 0 },
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (path, file, written) = match self {
            Self::Stdout => return io::stdout().write_all(line),
            Self::Stderr => return io::stderr().write_all(line),
            Self::File { path, file, written } => (path, file, written),
        };
        if *written > FILE_CAP {
            let mut old = path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&path, old)?;
            *file = None;
        }
        if file.is_none() {
            let opened = OpenOptions::new().append(true).create(true).open(&path)?;
            *written = opened.metadata()?.len();
            *file = Some(opened);
        }
        *written += line.len() as u64;
        file.as_mut().map_or(Ok(()), |file| file.write_all(line))
    }
}

impl Write for Places {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for place in &mut self.0 {
            // A log that can't be written must not stop the daemon, nor the other places.
            let _ = place.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut place = Place::of(path.to_str().unwrap());
        place.write(b"first\n").unwrap();
        if let Place::File { written, .. } = &mut place {
            *written = FILE_CAP + 1;
        }
        place.write(b"second\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second\n");
        assert_eq!(std::fs::read(dir.path().join("log.1")).unwrap(), b"first\n");
        assert!(Place::of("/no/such/place").write(b"x").is_err());
    }
}
