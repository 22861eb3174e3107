//! Connections to sandboxes, with a deadline for each step.
//!
//! A connection at rest may be closed by its other end at the very moment it is used again. What can be asked twice goes
//! over pooled connections and is asked again then; anything else, such as a command, gets a connection of its own.

use std::time::Duration;

use api_types::ErrorCode;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use telemetry::chain;

use crate::config::Limits;
use crate::error::ApiError;

/// A connection at rest is kept this long: pod addresses are given to others.
const KEEP: Duration = Duration::from_secs(20);
/// Connections at rest, per port of a sandbox.
const AT_REST: usize = 8;

/// The client that all proxied requests share.
pub struct Backend {
    pooled: Client<HttpConnector, Body>,
    fresh: Client<HttpConnector, Body>,
    head: Duration,
}

impl Backend {
    /// A client with these bounds.
    pub fn new(limits: &Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits.proxy_connect));
        connector.set_nodelay(true);
        // A peer that vanished is noticed even when nobody writes.
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let client = |at_rest| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(KEEP)
                .pool_max_idle_per_host(at_rest)
                .build(connector.clone())
        };
        Self { pooled: client(AT_REST), fresh: client(0), head: limits.proxy_head }
    }

    /// Asks over a pooled connection where that can be asked twice, else over a new one.
    async fn request(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
            return self.fresh.request(request).await;
        }
        let (parts, _) = request.into_parts();
        match self.pooled.request(Request::from_parts(parts.clone(), Body::empty())).await {
            Err(error) if !error.is_connect() => self.fresh.request(Request::from_parts(parts, Body::empty())).await,
            done => done,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, ApiError> {
        let port = request.uri().port_u16().unwrap_or_default();
        match tokio::time::timeout(self.head, self.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(ApiError::new(
                ErrorCode::BackendConnectionFailed,
                format!("port {port} of the sandbox can't be connected to: {}", chain(&error)),
            )),
            Ok(Err(error)) => Err(ApiError::new(
                ErrorCode::BackendResponseFailed,
                format!("port {port} of the sandbox broke off: {}", chain(&error)),
            )),
            Err(_) => Err(ApiError::new(
                ErrorCode::BackendTimeout,
                format!("port {port} of the sandbox did not answer within {} s", self.head.as_secs_f64()),
            )),
        }
    }
}
