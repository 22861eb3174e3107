//! The events of one execution, as they come.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use api_types::{ErrorCode, execd::StreamEvent};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};

use super::{
    Event, Execution,
    parser::{EventParser, ParseError},
};
use crate::{ApiError, Error, Result, transport::Answer};

/// How long the end of a finished stream is awaited, in the background, to keep its connection.
const DRAIN: Duration = Duration::from_secs(3);

/// The events of one execution. Ends after the terminal event; a stream that breaks before it gives
/// [`Error::StreamInterrupted`].
///
/// Dropping it does not stop the command.
pub struct EventStream {
    operation: &'static str,
    request_id: String,
    body: Option<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>,
    parser: EventParser,
    ready: VecDeque<Event>,
    id: Option<String>,
    finished: bool,
    failed: Option<Error>,
    background: bool,
    /// Runs out when the daemon has not even sent a sign of life.
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("id", &self.id).field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl EventStream {
    pub(crate) fn new(answer: Answer, idle_timeout: Duration, background: bool) -> Self {
        Self {
            operation: answer.operation,
            request_id: answer.request_id,
            body: Some(Box::pin(answer.response.bytes_stream())),
            parser: EventParser::default(),
            ready: VecDeque::new(),
            id: None,
            finished: false,
            failed: None,
            background,
            idle: Box::pin(tokio::time::sleep(idle_timeout)),
            idle_timeout,
        }
    }

    /// Id of the execution, once its first event has been given.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
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
        for event in events.into_iter().filter_map(Event::from_wire) {
            if let Event::Started { id, .. } = &event {
                self.id = Some(id.clone());
            }
            self.finished |= event.is_terminal();
            self.ready.push_back(event);
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

    fn interrupted(&self, source: Option<reqwest::Error>) -> Error {
        Error::StreamInterrupted {
            operation: self.operation,
            execution_id: self.id.clone(),
            source: source.map(reqwest::Error::without_url),
        }
    }

    /// Nothing is read any more; the error follows what was already received.
    fn fail(&mut self, error: Error) {
        self.body = None;
        self.failed = Some(error);
    }
}

impl Stream for EventStream {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.finished {
                // The end of the body is not waited for: it carries nothing more.
                return Poll::Ready(None);
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            let mut events = Vec::new();
            match body.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    this.idle.as_mut().reset(Instant::now() + this.idle_timeout);
                    let outcome = this.parser.push(&bytes, &mut events);
                    this.accept(events, outcome);
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = this.interrupted(Some(error));
                    this.fail(error);
                }
                Poll::Ready(None) => {
                    let error = this.interrupted(None);
                    this.fail(error);
                    let outcome = this.parser.finish(&mut events);
                    this.accept(events, outcome);
                }
                Poll::Pending => {
                    ready!(this.idle.as_mut().poll(cx));
                    let error = this.interrupted(None);
                    this.fail(error);
                }
            }
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|_| self.finished) else { return };
        // A connection whose answer was read to its end is used again.
        let mut drained = Box::pin(async move { while let Some(Ok(_)) = body.next().await {} });
        if drained.as_mut().now_or_never().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(tokio::time::timeout(DRAIN, drained)));
        }
    }
}
