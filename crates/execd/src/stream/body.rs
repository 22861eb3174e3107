//! The body of a command's answer: init, output as it comes, pings while idle, one terminal event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::event::{EventError, Output};
use super::lines::Piece;
use super::{Cursor, Event, Framing, Lines, encode};
use crate::exec::{End, Execution, Outcome};
use crate::journal::{Read, ReaderId, Source};

/// Time without output after which a ping is sent.
const PING: Duration = Duration::from_secs(3);
/// Time without output after which a line that has not ended is shown as far as it is: long enough that a
/// program that is merely slow, on a busy machine, still gets its lines in one piece.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of output that are encoded at once.
const BATCH: usize = 64 << 10;

/// How output is put into text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Lines of text; what is no UTF-8 becomes U+FFFD.
    #[default]
    Text,
    /// The bytes as they are.
    Base64,
}

/// The form of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// Of the output.
    pub encoding: Encoding,
    /// Of the events.
    pub framing: Framing,
}

/// A live reader of an execution's journal; gone when dropped.
pub struct Reader {
    /// What it reads.
    pub execution: Arc<Execution>,
    id: ReaderId,
}

impl Reader {
    /// Joins at an offset.
    pub fn join(execution: Arc<Execution>, offset: u64) -> Self {
        let id = execution.journal.join(offset);
        execution.reader_joined();
        Self { execution, id }
    }

    /// Says how far it is.
    pub fn reached(&self, offset: u64) {
        self.execution.journal.reached(self.id, offset);
    }

    /// Counts what it missed.
    pub fn lost(&self, bytes: u64) {
        self.execution.journal.count_lost(bytes);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.execution.journal.leave(self.id);
        self.execution.reader_left();
    }
}

/// An execution's stream from a cursor on, until it has ended. Dropping it does not stop the
/// execution, unless that was asked for.
pub fn live(execution: Arc<Execution>, from: Cursor, form: Form) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let lines = |source| match from.of(source).checked_sub(1).and_then(|last| execution.journal.byte(last)) {
        Some((of, byte)) if of == source => Lines::after(byte),
        _ => Lines::default(),
    };
    let state = Live {
        stdout: lines(Source::Stdout),
        stderr: lines(Source::Stderr),
        reader: Reader::join(execution, from.first()),
        from,
        at: from.first(),
        form,
        lost: Vec::new(),
        step: Step::Init,
    };
    futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok(Bytes::from(chunk)), state))
    })
}

/// A background execution's stream: that it was started, or why not.
pub fn fixed(execution: &Execution, framing: Framing) -> Bytes {
    let mut out = Vec::new();
    encode(&init(execution), framing, &mut out);
    match execution.outcome().filter(|o| matches!(o.end, End::NotStarted { .. })) {
        Some(outcome) => encode(&terminal(&outcome, &[]), framing, &mut out),
        None => encode(&Event { execution_time: Some(0), ..event("execution_complete") }, framing, &mut out),
    }
    out.into()
}

enum Step {
    Init,
    Output,
    Done,
}

struct Live {
    reader: Reader,
    /// What comes before is not given again.
    from: Cursor,
    at: u64,
    stdout: Lines,
    stderr: Lines,
    form: Form,
    lost: Vec<(u64, u64)>,
    step: Step,
}

impl Live {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.step {
            Step::Done => return None,
            Step::Init => {
                encode(&init(&self.reader.execution), self.form.framing, &mut out);
                self.step = Step::Output;
            }
            Step::Output => self.output(&mut out).await,
        }
        Some(out)
    }

    /// Fills `out` with at least one event.
    async fn output(&mut self, out: &mut Vec<u8>) {
        let execution = self.reader.execution.clone();
        let (mut ping_at, mut flush_at) = (Instant::now() + PING, Instant::now() + IDLE);
        while out.is_empty() {
            let outcome = execution.outcome();
            let limit = outcome.as_ref().map_or(u64::MAX, |o| o.output_end);
            let before = self.at;
            self.take(limit, out);
            if self.at != before {
                self.reader.reached(self.at);
                (ping_at, flush_at) = (Instant::now() + PING, Instant::now() + IDLE);
                continue;
            }
            if let Some(outcome) = outcome {
                self.end(&outcome, out);
                return;
            }
            let kept = self.stdout.kept().is_some() || self.stderr.kept().is_some();
            tokio::select! {
                () = execution.journal.grown(self.at) => {}
                _ = execution.ended() => {}
                () = sleep_until(flush_at), if kept && Instant::now() < flush_at => self.flush(out),
                () = sleep_until(ping_at) => {
                    encode(&Event { text: Some("pong"), ..event("ping") }, self.form.framing, out);
                }
            }
        }
    }

    fn take(&mut self, limit: u64, out: &mut Vec<u8>) {
        let mut left = BATCH;
        let timestamp = Timestamp::now().as_millisecond();
        while left > 0 {
            match self.reader.execution.journal.read(self.at, limit, left) {
                Read::Bytes(source, bytes) => {
                    let start = self.at;
                    self.at += bytes.len() as u64;
                    left = left.saturating_sub(bytes.len().max(1));
                    let skip = usize::try_from(self.from.of(source).saturating_sub(start)).unwrap_or(usize::MAX);
                    let Some(fresh) = bytes.get(skip..).filter(|fresh| !fresh.is_empty()) else { continue };
                    self.give(source, start + skip as u64, fresh, timestamp, out);
                }
                Read::Lost(to) => {
                    let from = self.at;
                    self.at = to;
                    self.gap(from, to, out);
                }
                Read::Nothing => break,
            }
        }
    }

    fn give(&mut self, source: Source, start: u64, bytes: &[u8], timestamp: i64, out: &mut Vec<u8>) {
        let framing = self.form.framing;
        if self.form.encoding == Encoding::Base64 {
            let (kind, cursor) = (kind(source), Cursor::at(start + bytes.len() as u64).not_before(self.from));
            Output { kind, bytes, base64: true, partial: false, cursor, timestamp }.encode(framing, out);
            return;
        }
        let writer = self.writer(source, timestamp);
        let lines = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        lines.push(start, bytes, |piece| writer.write(&piece, out));
    }

    fn writer(&self, source: Source, timestamp: i64) -> Writer {
        let other = match source {
            Source::Stdout => self.stderr.kept(),
            Source::Stderr => self.stdout.kept(),
        };
        Writer { source, other, from: self.from, timestamp, framing: self.form.framing }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        let timestamp = Timestamp::now().as_millisecond();
        let writer = self.writer(Source::Stdout, timestamp);
        self.stdout.flush(|piece| writer.write(&piece, out));
        let writer = self.writer(Source::Stderr, timestamp);
        self.stderr.flush(|piece| writer.write(&piece, out));
    }

    /// An explicit gap: how many bytes are missing, and from where.
    fn gap(&mut self, from: u64, to: u64, out: &mut Vec<u8>) {
        // What was begun before the gap does not go on after it.
        self.finish(from, out);
        let cursor = Some(Cursor::at(to).to_string());
        let gap = Event { bytes: Some(to - from), offset: Some(from), cursor, ..event("gap") };
        encode(&gap, self.form.framing, out);
        self.reader.lost(to - from);
        self.lost.push((from, to));
        // However often it happens, the list stays small.
        if self.lost.len() > 16 {
            self.lost.truncate(16);
        }
    }

    fn end(&mut self, outcome: &Outcome, out: &mut Vec<u8>) {
        self.finish(self.at, out);
        encode(&terminal(outcome, &self.lost), self.form.framing, out);
        self.step = Step::Done;
    }

    /// Gives the lines that had no end.
    fn finish(&mut self, next: u64, out: &mut Vec<u8>) {
        let timestamp = Timestamp::now().as_millisecond();
        let writer = self.writer(Source::Stdout, timestamp);
        self.stdout.finish(next, |piece| writer.write(&piece, out));
        let writer = self.writer(Source::Stderr, timestamp);
        self.stderr.finish(next, |piece| writer.write(&piece, out));
    }
}

fn kind(source: Source) -> &'static str {
    match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
    }
}

/// Writes the pieces of one source.
#[derive(Clone, Copy)]
struct Writer {
    source: Source,
    /// Where the other source's unfinished line begins.
    other: Option<u64>,
    from: Cursor,
    timestamp: i64,
    framing: Framing,
}

impl Writer {
    fn write(self, piece: &Piece<'_>, out: &mut Vec<u8>) {
        let other = self.other.unwrap_or(piece.next);
        let cursor = match self.source {
            Source::Stdout => Cursor { stdout: piece.next, stderr: other },
            Source::Stderr => Cursor { stdout: other, stderr: piece.next },
        };
        let (kind, cursor) = (kind(self.source), cursor.not_before(self.from));
        let output = Output {
            kind,
            bytes: piece.text,
            base64: false,
            partial: piece.partial,
            cursor,
            timestamp: self.timestamp,
        };
        output.encode(self.framing, out);
    }
}

fn init(execution: &Execution) -> Event<'_> {
    Event { text: Some(execution.id.as_str()), session_id: execution.session.as_deref(), ..event("init") }
}

fn event(kind: &str) -> Event<'_> {
    Event { kind, timestamp: Timestamp::now().as_millisecond(), ..Event::default() }
}

/// The one terminal event. Lost output makes it an error even where the command succeeded: its
/// `evalue` still is the exit code, and each gap is named.
fn terminal(outcome: &Outcome, lost: &[(u64, u64)]) -> Event<'static> {
    if outcome.success() && lost.is_empty() {
        let elapsed = u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX);
        return Event { execution_time: Some(elapsed), ..event("execution_complete") };
    }
    let ename = if outcome.success() { "OutputLost" } else { "CommandExecError" };
    let mut traceback = outcome.details();
    traceback.extend(lost.iter().map(|(from, to)| {
        format!("{} bytes of output were lost, from byte {from} on: they were not read in time", to - from)
    }));
    Event { error: Some(EventError { ename, evalue: outcome.wire_code().to_string(), traceback }), ..event("error") }
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
            out_of_memory: false,
            finished_at: Timestamp::UNIX_EPOCH,
            elapsed: Duration::from_millis(7),
            output_end: 0,
        }
    }

    #[test]
    fn success_completes_and_failure_is_an_error() {
        let done = terminal(&outcome(0), &[]);
        assert_eq!((done.kind, done.execution_time, done.error.is_none()), ("execution_complete", Some(7), true));
        let failed = terminal(&outcome(3), &[]).error.unwrap();
        assert_eq!((failed.ename, failed.evalue.as_str()), ("CommandExecError", "3"));
        assert_eq!(failed.traceback, ["exit status 3"]);
    }

    #[test]
    fn a_gap_is_told_with_its_size() {
        let error = terminal(&outcome(0), &[(10, 30)]).error.unwrap();
        assert_eq!((error.ename, error.evalue.as_str()), ("OutputLost", "0"));
        assert!(error.traceback.iter().any(|line| line.starts_with("20 bytes")));
    }
}
