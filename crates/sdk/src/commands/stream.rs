//! The events of one execution as they come, taken up again where a connection broke.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use api_types::{
    ErrorCode,
    execd::{EventType, StreamEvent},
};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use reqwest::{Method, header};
use tokio::time::Instant;

use super::{Event, Execution};
use crate::{
    ApiError, Error, Result,
    client::segment,
    execd::Execd,
    parser::{EventParser, ParseError},
    transport::{Answer, Retry},
};

/// How long the end of a finished stream is awaited, in the background, to keep its connection.
const DRAIN: Duration = Duration::from_secs(3);
/// Longest pause between two attempts to take a stream up again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The events of one execution. Ends after the terminal event.
///
/// A connection that breaks is made anew and the stream goes on at the exact byte, without loss or repeat, as long as
/// the daemon tells cursors and answers again within [`stream_idle_timeout`]; otherwise the last item is
/// [`Error::StreamInterrupted`].
///
/// Dropping it does not stop the command.
///
/// [`stream_idle_timeout`]: crate::ConnectionConfig::stream_idle_timeout
pub struct EventStream {
    execd: Execd,
    source: Source,
    operation: &'static str,
    request_id: String,
    parser: EventParser<StreamEvent>,
    /// Events that were read, each with the place after it.
    ready: VecDeque<(Event, Option<String>)>,
    id: Option<String>,
    /// Place after what was read; the beginning until output came.
    read: Option<String>,
    /// Place after what was given.
    given: Option<String>,
    /// Since when nothing came, while the connection is being made anew.
    outage: Option<Instant>,
    attempts: u32,
    finished: bool,
    failed: Option<Error>,
    exact: bool,
    background: bool,
}

enum Source {
    Body(BoxStream<'static, Result<Bytes>>),
    Opening(BoxFuture<'static, Result<Answer>>),
    None,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("id", &self.id).field("finished", &self.finished).finish_non_exhaustive()
    }
}

/// Opens the stream of an execution at a place.
pub(super) async fn open(execd: &Execd, id: &str, place: &str, exact: bool) -> Result<Answer> {
    let call = execd.streaming("read command output", Retry::Idempotent);
    let path = format!("/command/{}/output", segment(id));
    let encoding = if exact { "base64" } else { "text" };
    let query = [("offset", place), ("encoding", encoding)];
    execd.send(call, Method::GET, &path, |r| r.query(&query).header(header::ACCEPT, "text/event-stream")).await
}

impl EventStream {
    pub(crate) fn new(execd: Execd, answer: Answer, exact: bool, background: bool) -> Self {
        let idle = execd.stream_idle_timeout();
        Self {
            execd,
            operation: answer.operation,
            request_id: answer.request_id.clone(),
            source: Source::Body(answer.chunks(idle)),
            parser: EventParser::default(),
            ready: VecDeque::new(),
            id: None,
            read: Some("0".to_owned()),
            given: None,
            outage: None,
            attempts: 0,
            finished: false,
            failed: None,
            exact,
            background,
        }
    }

    /// One that goes on at a place of an execution.
    pub(super) fn at(execd: Execd, answer: Answer, place: &str, exact: bool) -> Self {
        let mut stream = Self::new(execd, answer, exact, false);
        stream.read = Some(place.to_owned());
        stream.given = Some(place.to_owned());
        stream
    }

    /// Id of the execution, once its first event has been given.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The place after the last event that was given, for [`Commands::follow`](crate::Commands::follow), also from
    /// another process; none before the first output, or when the daemon tells no places.
    pub fn cursor(&self) -> Option<&str> {
        self.given.as_deref()
    }

    /// Reads to the end and keeps what came, of output at most `limit` bytes.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// let events = sandbox.commands().stream("make").await?;
    /// let execution = events.collect_execution(1 << 20).await?;
    /// # let _ = execution; Ok(()) }
    /// ```
    pub async fn collect_execution(mut self, limit: usize) -> Result<Execution> {
        let mut execution = Execution::default();
        let mut room = limit;
        while let Some(event) = self.next().await {
            execution.add(event?, &mut room, self.background);
        }
        Ok(execution)
    }

    /// Queues parsed events, then the error that came after them.
    fn accept(&mut self, events: Vec<StreamEvent>, outcome: Result<(), ParseError>) {
        for wire in events {
            let output = matches!(wire.event, EventType::Stdout | EventType::Stderr | EventType::Gap);
            if output {
                self.read.clone_from(&wire.cursor);
            }
            if wire.event != EventType::Init {
                self.outage = None;
                self.attempts = 0;
            }
            // A stream that was taken up again begins with its id once more.
            let again = wire.event == EventType::Init && self.id.is_some();
            let cursor = wire.cursor.clone();
            let Some(event) = Event::from_wire(wire).filter(|_| !again) else { continue };
            if let Event::Started { id, .. } = &event {
                self.id = Some(id.clone());
            }
            self.finished |= event.is_terminal();
            self.ready.push_back((event, cursor));
        }
        if let Err(error) = outcome {
            let error = self.parse_error(error);
            self.fail(error);
        }
    }

    fn parse_error(&self, error: ParseError) -> Error {
        match error {
            ParseError::Refused(body) => Error::Api(Box::new(ApiError {
                operation: self.operation,
                status: ErrorCode::from_code(&body.code).map_or(500, ErrorCode::status),
                code: body.code,
                message: body.message,
                request_id: self.request_id.clone(),
                retry_after: None,
            })),
            ParseError::TooLarge => Error::protocol(self.operation, error.to_string()),
        }
    }

    /// Nothing is read any more; the error follows what was already received.
    fn fail(&mut self, error: Error) {
        self.source = Source::None;
        self.failed = Some(error);
    }

    /// The connection broke, or could not be made: goes on where it was, if that can be.
    fn broke(&mut self, cause: Option<Error>) {
        let since = *self.outage.get_or_insert_with(Instant::now);
        let transient = cause.as_ref().is_none_or(Error::is_retryable);
        let in_time = since.elapsed() < self.execd.stream_idle_timeout();
        let known = self.id.clone().zip(self.read.clone());
        let Some((id, place)) = known.filter(|_| !self.background && transient && in_time) else {
            let (operation, execution_id) = (self.operation, self.id.clone());
            return self.fail(Error::StreamInterrupted { operation, execution_id, source: cause.map(Box::new) });
        };
        // The first attempt at once: mostly one connection broke and the next holds.
        let pause = match self.attempts {
            0 => Duration::ZERO,
            n => Duration::from_millis(50).saturating_mul(1 << n.min(10)).min(LONGEST_PAUSE),
        };
        self.attempts += 1;
        tracing::debug!(execution = %id, %place, ?pause, "the stream broke and is taken up again");
        let (execd, exact) = (self.execd.clone(), self.exact);
        self.parser = EventParser::default();
        self.source = Source::Opening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            open(&execd, &id, &place, exact).await
        }));
    }
}

impl Stream for EventStream {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some((event, cursor)) = this.ready.pop_front() {
                if cursor.is_some() {
                    this.given = cursor;
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if this.finished {
                // The end of the body is not waited for: it carries nothing more.
                return Poll::Ready(None);
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let mut events = Vec::new();
            match &mut this.source {
                Source::None => return Poll::Ready(None),
                Source::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(answer) => {
                        let idle = this.execd.stream_idle_timeout();
                        this.source = Source::Body(answer.chunks(idle));
                    }
                    Err(error) => this.broke(Some(error)),
                },
                Source::Body(body) => match ready!(body.as_mut().poll_next(cx)) {
                    Some(Ok(bytes)) => {
                        let outcome = this.parser.push(&bytes, &mut events);
                        this.accept(events, outcome);
                    }
                    Some(Err(error)) => this.broke(Some(error)),
                    None => {
                        let outcome = this.parser.finish(&mut events);
                        this.accept(events, outcome);
                        if !this.finished && this.failed.is_none() {
                            this.broke(None);
                        }
                    }
                },
            }
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let source = std::mem::replace(&mut self.source, Source::None);
        let (Source::Body(mut body), true) = (source, self.finished) else { return };
        // Outside a runtime a body cannot be read: the connection ends with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // A connection whose answer was read to its end is used again.
        let mut drained = Box::pin(async move { while let Some(Ok(_)) = body.next().await {} });
        if drained.as_mut().now_or_never().is_none() {
            drop(runtime.spawn(tokio::time::timeout(DRAIN, drained)));
        }
    }
}
