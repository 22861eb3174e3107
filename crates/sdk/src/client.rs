//! The connection to the platform: every sandbox by its id.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api_types::{
    explain::Explanation,
    lifecycle::{CreateSandboxRequest, CreateSandboxResponse, Endpoint, RenewExpiration, Sandbox as SandboxInfo},
    names::headers,
};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde::de::DeserializeOwned;

use crate::{
    ConnectionConfig, Error, Pools, Result, Sandbox, SandboxBuilder, body,
    transport::{Answer, Call, Retry, Transport, header_map},
};

/// A connection to the platform. Cheap to clone; clones share one connection pool.
///
/// ```no_run
/// # async fn f() -> opensandbox::Result<()> {
/// use opensandbox::{Client, ConnectionConfig};
///
/// let client = Client::new(ConnectionConfig::new("127.0.0.1:8088"))?;
/// let sandbox = client.sandbox("nginx:latest").pool("agent-pool").create().await?;
/// client.kill(sandbox.id()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    headers: HeaderMap,
    base_url: String,
    /// What is done in the background is done here, whoever drops what.
    runtime: tokio::runtime::Handle,
}

impl Client {
    /// For one configuration. Opens no connection yet; must be called inside a Tokio runtime.
    pub fn new(config: ConnectionConfig) -> Result<Self> {
        let key = config.api_key.as_ref().map(|key| (headers::API_KEY, key.reveal()));
        let headers = header_map("connect", key)?;
        let base_url = config.base_url();
        let transport = Transport::new(config)?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Self { inner: Arc::new(Inner { transport, headers, base_url, runtime }) })
    }

    /// For the environment, see [`ConnectionConfig::from_env`].
    pub fn from_env() -> Result<Self> {
        Self::new(ConnectionConfig::from_env()?)
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ConnectionConfig {
        &self.inner.transport.config
    }

    /// Starts the description of a sandbox made from an image, or, with
    /// [`SandboxBuilder::pool`], taken from a pool.
    pub fn sandbox(&self, image: impl Into<String>) -> SandboxBuilder {
        Sandbox::builder(image).client(self)
    }

    /// A handle on a sandbox that exists, without asking whether it does: the first command or
    /// file operation looks its address up.
    ///
    /// ```no_run
    /// # async fn f(client: opensandbox::Client) -> opensandbox::Result<()> {
    /// client.attach("b1f3").commands().run("uptime").await?;
    /// # Ok(()) }
    /// ```
    pub fn attach(&self, id: impl Into<String>) -> Sandbox {
        Sandbox::new(self.clone(), id.into(), None, false)
    }

    /// A handle on a sandbox that exists and whose daemon answers.
    pub async fn connect(&self, id: impl Into<String>) -> Result<Sandbox> {
        let sandbox = self.attach(id);
        sandbox.execd().ping(self.config().request_timeout).await?;
        Ok(sandbox)
    }

    /// What is known of a sandbox.
    pub async fn get(&self, id: &str) -> Result<SandboxInfo> {
        let call = self.call("get sandbox", Retry::Idempotent);
        self.json(call, Method::GET, &format!("/sandboxes/{}", segment(id)), |r| r).await
    }

    /// Ends a sandbox. Its pod goes back to its pool or is deleted.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let call = self.call("kill sandbox", Retry::Idempotent);
        let url = format!("{}/sandboxes/{}", self.inner.base_url, segment(id));
        match self.inner.transport.send_counted(call, Method::DELETE, &url, &self.inner.headers, |r| r).await {
            (Ok(_), _) => Ok(()),
            // An attempt whose answer was lost had already ended it.
            (Err(error), 1..) if error.is_not_found() => Ok(()),
            (Err(error), _) => Err(error),
        }
    }

    /// Freezes a sandbox. Refused by a platform that cannot.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let call = self.call("pause sandbox", Retry::Idempotent);
        self.send(call, Method::POST, &format!("/sandboxes/{}/pause", segment(id)), |r| r).await.map(drop)
    }

    /// Lets a sandbox that was paused go on. Refused by a platform that cannot.
    pub async fn resume(&self, id: &str) -> Result<()> {
        let call = self.call("resume sandbox", Retry::Idempotent);
        self.send(call, Method::POST, &format!("/sandboxes/{}/resume", segment(id)), |r| r).await.map(drop)
    }

    /// Lets a sandbox live for `timeout` from now. Gives its new end.
    pub async fn renew(&self, id: &str, timeout: Duration) -> Result<Timestamp> {
        let expires_at = Timestamp::now()
            .checked_add(timeout)
            .map_err(|_| Error::invalid(format!("renew sandbox: {timeout:?} from now is beyond the calendar")))?;
        let call = self.call("renew sandbox", Retry::Idempotent);
        let body = RenewExpiration { expires_at };
        let path = format!("/sandboxes/{}/renew-expiration", segment(id));
        self.json::<RenewExpiration>(call, Method::POST, &path, |r| r.json(&body)).await.map(|answer| answer.expires_at)
    }

    /// Sets metadata of a sandbox; a value of `None` removes its key.
    pub async fn patch_metadata(&self, id: &str, patch: &BTreeMap<String, Option<String>>) -> Result<SandboxInfo> {
        let call = self.call("patch metadata", Retry::Idempotent);
        self.json(call, Method::PATCH, &format!("/sandboxes/{}/metadata", segment(id)), |r| r.json(patch)).await
    }

    /// Where a port of a sandbox is reached, and the headers to send there.
    pub async fn endpoint(&self, id: &str, port: u16) -> Result<Endpoint> {
        let call = self.call("look up endpoint", Retry::Idempotent);
        let proxy = self.config().use_server_proxy;
        let path = format!("/sandboxes/{}/endpoints/{port}?use_server_proxy={proxy}", segment(id));
        self.json(call, Method::GET, &path, |r| r).await
    }

    /// Where a sandbox's time went, what it waits for, and how it ended; also for a while after its end.
    pub async fn explain(&self, id: &str) -> Result<Explanation> {
        let call = self.call("explain sandbox", Retry::Idempotent);
        self.json(call, Method::GET, &format!("/sandboxes/{}/explain", segment(id)), |r| r).await
    }

    /// The pools of the platform.
    pub fn pools(&self) -> Pools {
        Pools::new(self.clone())
    }

    pub(crate) async fn create(
        &self,
        body: &CreateSandboxRequest,
        key: Option<String>,
        timeout: Duration,
    ) -> Result<CreateSandboxResponse> {
        let call = Call { timeout, ..self.call("create sandbox", Retry::Unsent) };
        let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        self.json(call, Method::POST, "/sandboxes", |r| r.header(headers::IDEMPOTENCY_KEY, &key).json(body)).await
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.runtime
    }

    /// Headers that authorise at the server.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.inner.headers
    }

    pub(crate) fn call(&self, operation: &'static str, retry: Retry) -> Call {
        self.inner.transport.call(operation, retry)
    }

    pub(crate) async fn send(
        &self,
        call: Call,
        method: Method,
        path: &str,
        request: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer> {
        let url = format!("{}{path}", self.inner.base_url);
        self.inner.transport.send(call, method, &url, &self.inner.headers, request).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        call: Call,
        method: Method,
        path: &str,
        request: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<T> {
        body::json(self.send(call, method, path, request).await?).await
    }
}

/// An id as one segment of a path, whatever it contains.
pub(crate) fn segment(id: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    // A dot segment would be removed from the path by URL parsers.
    if matches!(id, "." | "..") { id.replace('.', "%2E") } else { utf8_percent_encode(id, KEPT).to_string() }
}
