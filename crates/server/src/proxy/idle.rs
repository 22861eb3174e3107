//! A body without a bound in time or size, but with one on silence.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, Sleep};

use crate::streams::Place;

/// What is counted of a body.
pub struct Passed {
    /// Its bytes.
    pub bytes: Counter,
    /// That it is open.
    pub open: Option<Place>,
}

/// Ends a body with an error when nothing came for `idle`.
pub fn bounded(body: Body, idle: Duration, passed: Passed) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Bounded { body, idle, passed, silence: Box::pin(tokio::time::sleep(idle)) })
}

struct Bounded {
    body: Body,
    idle: Duration,
    passed: Passed,
    silence: Pin<Box<Sleep>>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.silence.as_mut().reset(Instant::now() + this.idle);
            match &frame {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    this.passed.bytes.inc_by(bytes);
                }
                // The end, in good order or not.
                Some(Err(_)) | None => this.passed.open = None,
            }
            return Poll::Ready(frame);
        }
        ready!(this.silence.as_mut().poll(cx));
        let message = format!("nothing came for {} s", this.idle.as_secs_f64());
        Poll::Ready(Some(Err(axum::Error::new(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_body_and_pings_keep_it() {
        let pings = futures::stream::iter(0..3)
            .then(|_| async {
                tokio::time::sleep(Duration::from_secs(50)).await;
                Ok::<_, std::io::Error>("ping")
            })
            .chain(futures::stream::pending());
        let passed = Passed { bytes: Counter::default(), open: None };
        let bytes = passed.bytes.clone();
        let mut body = bounded(Body::from_stream(pings), Duration::from_secs(60), passed);
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(bytes.get(), 12);
    }
}
