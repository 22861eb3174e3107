//! A whole execution, collected.

use std::{collections::BTreeMap, time::Duration};

use super::{Event, ExecutionError, OutputMessage};

/// A command that has ended, or has been started in the background.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// Its id.
    pub id: String,
    /// Its exit code: -1 when a signal ended it; none when it could not be started, or runs in the
    /// background.
    pub exit_code: Option<i32>,
    /// Lines of standard output.
    pub stdout: Vec<OutputMessage>,
    /// Lines of standard error.
    pub stderr: Vec<OutputMessage>,
    /// Values of code execution, by MIME type.
    pub results: Vec<BTreeMap<String, String>>,
    /// Why it failed.
    pub error: Option<ExecutionError>,
    /// How long it took, measured in the sandbox; none when it failed.
    pub duration: Option<Duration>,
    /// Bytes of output that the daemon could not keep and that are lost.
    pub lost_bytes: u64,
    /// Bytes of output that were not kept, see [`RunCommand::keep_output`](crate::RunCommand::keep_output).
    pub dropped_bytes: u64,
}

impl Execution {
    /// Standard output, lines joined by line feeds, without one at the end.
    pub fn stdout_text(&self) -> String {
        join(&self.stdout)
    }

    /// Standard error, lines joined by line feeds, without one at the end.
    pub fn stderr_text(&self) -> String {
        join(&self.stderr)
    }

    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.error.is_none() && self.exit_code == Some(0)
    }

    /// Adds an event; of output no more than `room` bytes are kept.
    pub(crate) fn add(&mut self, event: Event, room: &mut usize, background: bool) {
        match event {
            Event::Started { id, .. } => self.id = id,
            Event::Stdout(line) => keep(&mut self.stdout, line, room, &mut self.dropped_bytes),
            Event::Stderr(line) => keep(&mut self.stderr, line, room, &mut self.dropped_bytes),
            Event::Result(result) => self.results.push(result),
            Event::Failed(error) => {
                self.exit_code = error.exit_code();
                self.error = Some(error);
            }
            Event::Completed { duration, .. } => {
                self.duration = Some(duration);
                if self.error.is_none() && !background {
                    self.exit_code = Some(0);
                }
            }
            Event::Gap { bytes, .. } => self.lost_bytes += bytes,
            Event::ExecutionCount(_) => {}
        }
    }
}

fn keep(lines: &mut Vec<OutputMessage>, line: OutputMessage, room: &mut usize, dropped: &mut u64) {
    // Many short lines cost more than their text.
    let cost = line.text().len() + size_of::<OutputMessage>();
    match room.checked_sub(cost) {
        Some(left) => {
            *room = left;
            lines.push(line);
        }
        None => {
            // Later short lines must not fill the gap that a long one left.
            *room = 0;
            *dropped += line.text().len() as u64;
        }
    }
}

fn join(lines: &[OutputMessage]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        text.push_str(line.text());
        if !line.is_partial() && at + 1 < lines.len() {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Event {
        part(text, false)
    }

    fn part(text: &str, partial: bool) -> Event {
        let event = serde_json::json!({"type": "stdout", "timestamp": 1, "text": text, "partial": partial});
        Event::from_wire(serde_json::from_value(event).unwrap()).unwrap()
    }

    #[test]
    fn parts_of_a_line_are_one_line() {
        let mut execution = Execution::default();
        let mut room = 1 << 20;
        for event in [part("a", true), part("b", true), part("c", false), part("d", false)] {
            execution.add(event, &mut room, false);
        }
        assert_eq!(execution.stdout_text(), "abc\nd");
    }

    #[test]
    fn empty_lines_are_lines() {
        let mut execution = Execution::default();
        let mut room = 1 << 20;
        for text in ["a", "\n", "b"] {
            execution.add(line(text), &mut room, false);
        }
        assert_eq!(execution.stdout_text(), "a\n\nb");
    }

    #[test]
    fn output_beyond_the_limit_is_counted() {
        let mut execution = Execution::default();
        let mut room = 2 * size_of::<OutputMessage>() + 3;
        for text in ["abc", "defg", "h"] {
            execution.add(line(text), &mut room, false);
        }
        assert_eq!((execution.stdout_text().as_str(), execution.dropped_bytes), ("abc", 5));
    }
}
