//! The daemons over HTTP, with kept-alive connections and signed calls.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorBody;
use api_types::auth::{Signer, Verb};
use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointStatus};
use api_types::names::headers;
use api_types::tasks::Task;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use telemetry::chain;

use super::{DaemonAddress, DaemonError, Daemons, TaskList};
use crate::Clock;

/// A pod on the same network accepts within this time or has something else to do.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How long a call may take, waiting that it was asked for apart.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: beyond the time a create and its claim take.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Largest answer that is read. A list of tasks echoes their environment.
const MAX_ANSWER: usize = 4 << 20;
/// How long a signature holds, in seconds: the call's deadline, and clocks that differ.
const SIGNATURE_SECONDS: u64 = 60;

/// Daemons that are reached by HTTP.
pub struct HttpDaemons {
    client: Client<HttpConnector, Full<Bytes>>,
    signer: Signer,
    clock: Arc<dyn Clock>,
}

impl HttpDaemons {
    /// Makes the client.
    pub fn new(signer: Signer, clock: Arc<dyn Clock>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_ALIVE)
            .pool_max_idle_per_host(2)
            .build(connector);
        Self { client, signer, clock }
    }

    async fn call<T: DeserializeOwned>(&self, at: &DaemonAddress, call: Call<'_>) -> Result<Answer<T>, DaemonError> {
        let now = u64::try_from(self.clock.now().as_second()).unwrap_or(0);
        let signature = self.signer.sign(&at.pod, call.verb, &call.body, now, SIGNATURE_SECONDS);
        let host = if at.ip.contains(':') { format!("[{}]", at.ip) } else { at.ip.clone() };
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("http://{host}:{}{}", at.port, call.path))
            .header(headers::SIGNATURE, signature)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(seen) = call.seen {
            request = request.header(header::IF_NONE_MATCH, seen);
        }
        let request = request
            .body(Full::new(Bytes::from(call.body)))
            .map_err(|e| DaemonError::Unreachable(format!("no address: {e}")))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| DaemonError::Unreachable(chain(&e)))?;
            let status = answer.status();
            let tag = answer.headers().get(header::ETAG).and_then(|t| t.to_str().ok()).map(str::to_owned);
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| DaemonError::Unreachable(format!("the answer broke off: {e}")))?.to_bytes();
            Ok((status, tag, body))
        };
        let (status, tag, body) = tokio::time::timeout(CALL_DEADLINE + call.wait, exchange)
            .await
            .map_err(|_| DaemonError::Unreachable("no answer in time".to_owned()))??;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let value = serde_json::from_slice(&body)
            .map_err(|e| DaemonError::Unreachable(format!("the answer cannot be read: {e}")))?;
        Ok(Answer { value, tag })
    }
}

/// One call.
struct Call<'a> {
    verb: Verb,
    method: Method,
    path: String,
    body: Vec<u8>,
    seen: Option<&'a str>,
    wait: Duration,
}

impl Call<'_> {
    fn post(verb: Verb, path: &str, body: Vec<u8>) -> Self {
        Self { verb, method: Method::POST, path: path.to_owned(), body, seen: None, wait: Duration::ZERO }
    }

    fn get(verb: Verb, path: String, wait: Duration) -> Self {
        Self { verb, method: Method::GET, path, body: Vec::new(), seen: None, wait }
    }
}

/// What was answered, and the tag that stands for it.
struct Answer<T> {
    value: T,
    tag: Option<String>,
}

fn refusal(status: StatusCode, body: &[u8]) -> DaemonError {
    let (code, message) = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(said) => (said.code, said.message),
        Err(_) => (status.as_u16().to_string(), status.to_string()),
    };
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => DaemonError::Unknown,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            DaemonError::Rejected { code, message }
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            DaemonError::Unreachable(format!("{code}: {message}"))
        }
        _ => DaemonError::Refused { code, message },
    }
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, DaemonError> {
    serde_json::to_vec(value)
        .map_err(|e| DaemonError::Rejected { code: "INVALID_REQUEST_BODY".into(), message: e.to_string() })
}

#[async_trait]
impl Daemons for HttpDaemons {
    async fn claim(&self, at: &DaemonAddress, request: &ClaimRequest) -> Result<ClaimStatus, DaemonError> {
        Ok(self.call(at, Call::post(Verb::Claim, "/v1/claim", json(request)?)).await?.value)
    }

    async fn entrypoint(&self, at: &DaemonAddress, wait: Duration) -> Result<EntrypointStatus, DaemonError> {
        let path = format!("/v1/claim/entrypoint?wait={}", wait.as_secs());
        Ok(self.call(at, Call::get(Verb::EntrypointStatus, path, wait)).await?.value)
    }

    async fn set_tasks(&self, at: &DaemonAddress, tasks: &[Task]) -> Result<Vec<Task>, DaemonError> {
        Ok(self.call(at, Call::post(Verb::SetTasks, "/setTasks", json(tasks)?)).await?.value)
    }

    async fn tasks(&self, at: &DaemonAddress, seen: Option<&str>, wait: Duration) -> Result<TaskList, DaemonError> {
        let call = match seen {
            Some(_) => Call { seen, ..Call::get(Verb::GetTasks, format!("/getTasks?wait={}", wait.as_secs()), wait) },
            None => Call::get(Verb::GetTasks, "/getTasks".to_owned(), Duration::ZERO),
        };
        let Answer { value, tag } = self.call(at, call).await?;
        Ok(TaskList { tasks: value, tag })
    }
}
