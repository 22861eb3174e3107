//! The body of a command's answer: init, output as it comes, pings while idle, one terminal event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api_types::execd::{EventError, EventType, StreamEvent};
use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{Lines, encode};
use crate::exec::{End, Execution, Outcome};
use crate::journal::{Read, Source};

/// Time without output after which a ping is sent.
const PING: Duration = Duration::from_secs(3);
/// Bytes of output that are encoded at once.
const BATCH: usize = 64 << 10;

/// A foreground execution's stream. Dropping it does not stop the execution.
pub fn live(execution: Arc<Execution>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let state = Live {
        pacer: Pacer(execution),
        at: 0,
        stdout: Lines::default(),
        stderr: Lines::default(),
        lost: Vec::new(),
        step: Step::Init,
    };
    futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok(Bytes::from(chunk)), state))
    })
}

/// A background execution's stream: that it was started, or why not.
pub fn fixed(execution: &Execution) -> Bytes {
    let mut out = Vec::new();
    encode(&event(EventType::Init, Some(execution.id.as_str().to_owned())), &mut out);
    match execution.outcome().filter(|o| matches!(o.end, End::NotStarted { .. })) {
        Some(outcome) => encode(&terminal(&outcome, &[]), &mut out),
        None => encode(&StreamEvent { execution_time: Some(0), ..event(EventType::ExecutionComplete, None) }, &mut out),
    }
    out.into()
}

enum Step {
    Init,
    Output,
    Done,
}

/// Ends the pacing when the stream is dropped, however that happens.
struct Pacer(Arc<Execution>);

impl Drop for Pacer {
    fn drop(&mut self) {
        self.0.journal.pace(None);
    }
}

struct Live {
    pacer: Pacer,
    at: u64,
    stdout: Lines,
    stderr: Lines,
    lost: Vec<(u64, u64)>,
    step: Step,
}

impl Live {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.step {
            Step::Done => return None,
            Step::Init => {
                let id = self.pacer.0.id.as_str().to_owned();
                encode(&event(EventType::Init, Some(id)), &mut out);
                self.pacer.0.journal.pace(Some(0));
                self.step = Step::Output;
            }
            Step::Output => self.output(&mut out).await,
        }
        Some(out)
    }

    /// Fills `out` with at least one event.
    async fn output(&mut self, out: &mut Vec<u8>) {
        let execution = self.pacer.0.clone();
        let mut ping_at = Instant::now() + PING;
        while out.is_empty() {
            let outcome = execution.outcome();
            let limit = outcome.as_ref().map_or(u64::MAX, |o| o.output_end);
            let before = self.at;
            self.take(limit, out);
            if self.at != before {
                execution.journal.pace(Some(self.at));
                continue;
            }
            if let Some(outcome) = outcome {
                self.stdout.finish(|text| encode(&event(EventType::Stdout, Some(text)), out));
                self.stderr.finish(|text| encode(&event(EventType::Stderr, Some(text)), out));
                encode(&terminal(&outcome, &self.lost), out);
                self.step = Step::Done;
                return;
            }
            tokio::select! {
                () = execution.journal.grown(self.at) => {}
                _ = execution.ended() => {}
                () = sleep_until(ping_at) => {
                    encode(&event(EventType::Ping, Some("pong".to_owned())), out);
                    ping_at = Instant::now() + PING;
                }
            }
        }
    }

    fn take(&mut self, limit: u64, out: &mut Vec<u8>) {
        let mut left = BATCH;
        while left > 0 {
            match self.pacer.0.journal.read(self.at, limit, left) {
                Read::Bytes(source, bytes) => {
                    self.at += bytes.len() as u64;
                    left = left.saturating_sub(bytes.len().max(1));
                    let (lines, kind) = match source {
                        Source::Stdout => (&mut self.stdout, EventType::Stdout),
                        Source::Stderr => (&mut self.stderr, EventType::Stderr),
                    };
                    lines.push(&bytes, |text| encode(&event(kind, Some(text)), out));
                }
                Read::Lost(to) => {
                    self.lost.push((self.at, to));
                    self.at = to;
                }
                Read::Nothing => break,
            }
        }
    }
}

/// The one terminal event. Lost output makes it an error even where the command succeeded: its
/// `evalue` still is the exit code, and each gap is named.
fn terminal(outcome: &Outcome, lost: &[(u64, u64)]) -> StreamEvent {
    if outcome.success() && lost.is_empty() {
        let elapsed = i64::try_from(outcome.elapsed.as_millis()).unwrap_or(i64::MAX);
        return StreamEvent { execution_time: Some(elapsed), ..event(EventType::ExecutionComplete, None) };
    }
    let ename = if outcome.success() { "OutputLost" } else { "CommandExecError" };
    let mut traceback = outcome.details();
    traceback.extend(lost.iter().map(|(from, to)| {
        format!("{} bytes of output were lost, from byte {from} on: they were not read in time", to - from)
    }));
    let error = EventError { ename: ename.to_owned(), evalue: outcome.wire_code().to_string(), traceback };
    StreamEvent { error: Some(error), ..event(EventType::Error, None) }
}

fn event(kind: EventType, text: Option<String>) -> StreamEvent {
    StreamEvent {
        event: kind,
        timestamp: Timestamp::now().as_millisecond(),
        text,
        execution_time: None,
        execution_count: None,
        results: None,
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ExitStatus;

    fn outcome(code: i32) -> Outcome {
        Outcome {
            end: End::Ended(ExitStatus::Code(code)),
            timed_out: None,
            stopped: false,
            finished_at: Timestamp::UNIX_EPOCH,
            elapsed: Duration::from_millis(7),
            output_end: 0,
        }
    }

    #[test]
    fn success_completes_and_failure_is_an_error() {
        let done = terminal(&outcome(0), &[]);
        assert_eq!((done.event, done.execution_time, done.error), (EventType::ExecutionComplete, Some(7), None));
        let failed = terminal(&outcome(3), &[]).error.unwrap();
        assert_eq!((failed.ename.as_str(), failed.evalue.as_str()), ("CommandExecError", "3"));
        assert_eq!(failed.traceback, ["exit status 3"]);
    }

    #[test]
    fn a_gap_is_told_with_its_size() {
        let error = terminal(&outcome(0), &[(10, 30)]).error.unwrap();
        assert_eq!((error.ename.as_str(), error.evalue.as_str()), ("OutputLost", "0"));
        assert!(error.traceback.iter().any(|line| line.starts_with("20 bytes")));
    }
}
