//! The daemon in one sandbox: where it is and how it is called.

use std::{sync::Arc, time::Duration};

use api_types::{ErrorCode, lifecycle::Endpoint, names::EXECD_PORT};
use backon::{BackoffBuilder, ExponentialBuilder};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use tokio::time::Instant;

use crate::{
    Client, Error, Result,
    transport::{Answer, Call, Retry, header_map},
};

/// The daemon of one sandbox. Its address is looked up when it is first needed, then kept until
/// the daemon refuses the token or is not reached any more.
#[derive(Debug, Clone)]
pub(crate) struct Execd {
    client: Client,
    sandbox: Arc<str>,
    address: Arc<Mutex<Option<Arc<Address>>>>,
}

#[derive(Debug)]
struct Address {
    url: String,
    headers: HeaderMap,
}

/// Why waiting for a daemon ended without it.
pub(crate) enum NotReady {
    /// It will not answer.
    Never(Error),
    /// It had not answered at the deadline; the last failure.
    InTime(Option<Error>),
}

impl Execd {
    pub(crate) fn new(client: Client, sandbox: Arc<str>, endpoint: Option<&Endpoint>) -> Self {
        let known = endpoint.and_then(|endpoint| resolve(&client, endpoint).ok()).map(Arc::new);
        Self { client, sandbox, address: Arc::new(Mutex::new(known)) }
    }

    pub(crate) fn call(&self, operation: &'static str, retry: Retry) -> Call {
        self.client.call(operation, retry)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A call whose answer is read for as long as it comes.
    pub(crate) fn streaming(&self, operation: &'static str, retry: Retry) -> Call {
        Call { streaming: true, ..self.call(operation, retry) }
    }

    pub(crate) fn stream_idle_timeout(&self) -> Duration {
        self.client.config().stream_idle_timeout
    }

    /// Calls the daemon. An address that turns out stale is looked up anew once, for calls that
    /// may be repeated or cannot have arrived.
    pub(crate) async fn send(
        &self,
        call: Call,
        method: Method,
        path: &str,
        request: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer> {
        let (address, fresh) = self.address().await?;
        let first = self.send_to(&address, call, method.clone(), path, &request).await;
        let Err(error) = &first else { return first };
        if !is_stale(error) {
            return first;
        }
        self.forget(&address);
        let repeatable = call.retry == Retry::Idempotent || (call.retry == Retry::Unsent && was_not_done(error));
        if fresh || !repeatable {
            return first;
        }
        // The look-up says better than the dead address what became of the sandbox.
        let (address, _) = self.address().await?;
        self.send_to(&address, call, method, path, &request).await
    }

    async fn send_to(
        &self,
        address: &Address,
        call: Call,
        method: Method,
        path: &str,
        request: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer> {
        let url = format!("{}{path}", address.url);
        self.client.transport().send(call, method, &url, &address.headers, request).await
    }

    /// The address, and whether it was looked up just now.
    async fn address(&self) -> Result<(Arc<Address>, bool)> {
        if let Some(address) = self.address.lock().clone() {
            return Ok((address, false));
        }
        let endpoint = self.client.endpoint(&self.sandbox, EXECD_PORT).await?;
        let address = Arc::new(resolve(&self.client, &endpoint)?);
        *self.address.lock() = Some(Arc::clone(&address));
        Ok((address, true))
    }

    fn forget(&self, stale: &Arc<Address>) {
        let mut address = self.address.lock();
        if address.as_ref().is_some_and(|known| Arc::ptr_eq(known, stale)) {
            *address = None;
        }
    }

    /// Asks once whether the daemon answers.
    pub(crate) async fn ping(&self, timeout: Duration) -> Result<()> {
        let call = Call { timeout, ..self.call("ping sandbox", Retry::Idempotent) };
        self.send(call, Method::GET, "/ping", |r| r).await.map(drop)
    }

    /// Waits until the daemon answers.
    ///
    /// Servers that answer a create only when the daemon is there need one round; others are asked
    /// in growing intervals, for they have nothing to wait on.
    pub(crate) async fn wait_ready(&self, deadline: Instant) -> Result<(), NotReady> {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(10))
            .with_max_delay(Duration::from_millis(200))
            .without_max_times()
            .build();
        let mut last = None;
        loop {
            match tokio::time::timeout_at(deadline, self.ping_once()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !may_become_ready(&error) => return Err(NotReady::Never(error)),
                Ok(Err(error)) => last = Some(error),
                Err(_) => return Err(NotReady::InTime(last)),
            }
            let pause = pauses.next().unwrap_or(Duration::from_millis(200));
            if tokio::time::timeout_at(deadline, tokio::time::sleep(pause)).await.is_err() {
                return Err(NotReady::InTime(last));
            }
        }
    }

    async fn ping_once(&self) -> Result<()> {
        let call = self.call("ping sandbox", Retry::Never);
        self.send(call, Method::GET, "/ping", |r| r).await.map(drop)
    }
}

fn resolve(client: &Client, endpoint: &Endpoint) -> Result<Address> {
    const OPERATION: &str = "look up endpoint";
    let config = client.config();
    let endpoint_text = endpoint.endpoint.trim_end_matches('/');
    if endpoint_text.is_empty() || endpoint_text.contains("://") {
        return Err(Error::protocol(OPERATION, format!("endpoint {:?} is no host:port[/path]", endpoint.endpoint)));
    }
    let pairs = endpoint.headers.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    let mut headers = header_map(OPERATION, pairs)?;
    // The server's own proxy wants the server's key; a sandbox must never see it.
    if config.use_server_proxy || config.is_own(endpoint_text) {
        headers.extend(client.headers().clone());
    }
    Ok(Address { url: format!("{}://{endpoint_text}", config.protocol), headers })
}

/// Whether the error says that the address is not this sandbox's any more.
fn is_stale(error: &Error) -> bool {
    match error {
        Error::Connection { .. } => true,
        Error::Api(e) => {
            matches!(e.status, 401 | 403 | 410)
                || matches!(
                    error.code(),
                    Some(ErrorCode::SandboxGone | ErrorCode::BackendConnectionFailed | ErrorCode::SandboxNotFound)
                )
        }
        _ => false,
    }
}

/// Whether the call certainly had no effect.
fn was_not_done(error: &Error) -> bool {
    match error {
        Error::Connection { before_send, .. } => *before_send,
        Error::Api(e) => matches!(e.status, 401 | 403 | 410),
        _ => false,
    }
}

fn may_become_ready(error: &Error) -> bool {
    match error {
        Error::Api(e) if e.operation == "ping sandbox" => !matches!(e.status, 401 | 403 | 410),
        Error::Api(e) => e.code == ErrorCode::PodIpNotAvailable.as_str() || matches!(e.status, 429 | 502 | 503),
        Error::Connection { .. } | Error::Timeout { .. } => true,
        _ => false,
    }
}
