//! The shim's journal: what became of each container, on disk before anybody is told.
//!
//! One JSON object a line. A node that finds no living shim reads here what ended and when; what has a start
//! and no end died with the shim.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::proto::{JOURNAL_FILE, Outcome, PodState, Run};

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Entry {
    Started { container: String, run: Run },
    Ended { container: String, attempt: u32, outcome: Outcome },
}

/// The open journal.
pub struct Journal(File);

impl Journal {
    /// Opens the journal of a pod's directory for appending.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_CLOEXEC)
            .open(dir.join(JOURNAL_FILE))?;
        Ok(Self(file))
    }

    /// Records a start. It need not be on disk at once: a machine that goes down takes the container with it.
    pub fn started(&mut self, container: &str, run: &Run) -> io::Result<()> {
        self.append(&Entry::Started { container: container.to_owned(), run: run.clone() })
    }

    /// Records an end.
    pub fn ended(&mut self, container: &str, attempt: u32, outcome: &Outcome) -> io::Result<()> {
        self.append(&Entry::Ended { container: container.to_owned(), attempt, outcome: outcome.clone() })
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// Rebuilds the pod's state from its journal. A last line that was cut short is ignored.
pub fn replay(dir: &Path) -> io::Result<PodState> {
    let text = match std::fs::read_to_string(dir.join(JOURNAL_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PodState::default()),
        Err(error) => return Err(error),
    };
    let mut state = PodState::default();
    for entry in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match entry {
            Entry::Started { container, run } => remember(&mut state, &container, run),
            Entry::Ended { container, attempt, outcome } => {
                let runs = state.containers.entry(container).or_default();
                if let Some(run) = runs.iter_mut().find(|run| run.attempt == attempt) {
                    run.outcome = Some(outcome);
                }
            }
        }
    }
    Ok(state)
}

/// Adds a run and forgets all but the last two.
pub fn remember(state: &mut PodState, container: &str, run: Run) {
    let runs = state.containers.entry(container.to_owned()).or_default();
    runs.push(run);
    if runs.len() > 2 {
        runs.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn run(attempt: u32) -> Run {
        Run {
            attempt,
            id: format!("id{attempt}"),
            pid: 7,
            started_at: Timestamp::UNIX_EPOCH,
            image: String::new(),
            user: None,
            outcome: None,
        }
    }

    #[test]
    fn a_torn_last_line_loses_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.started("c", &run(0)).unwrap();
        let outcome = Outcome { exit_code: 3, message: "bye".into(), ..Outcome::at(Timestamp::UNIX_EPOCH) };
        journal.ended("c", 0, &outcome).unwrap();
        journal.started("c", &run(1)).unwrap();
        journal.0.write_all(b"{\"event\":\"ended\",\"contai").unwrap();
        let state = replay(dir.path()).unwrap();
        assert_eq!(state.containers["c"][0].outcome, Some(outcome));
        assert!(state.current("c").unwrap().running());
    }
}
