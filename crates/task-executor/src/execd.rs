//! Handing a task to execd over the pod's loopback: the process is then born in the sandbox container.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api_types::tasks::{ProcessStatus, Task, TaskHandOver};
use api_types::{ErrorBody, ErrorCode};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::ApiError;

/// Loopback answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(2);
/// A start is a fork and an exec.
const START: Duration = Duration::from_secs(15);
/// Above execd's own longest wait.
const SLACK: Duration = Duration::from_secs(10);
/// What one question waits for news.
pub const WAIT_SECONDS: u64 = 50;
/// Largest answer.
const ANSWER_MAX: usize = 1 << 20;

/// Why execd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecdError {
    /// Nothing of ours listens there.
    #[error("{0}")]
    NotThere(String),
    /// It was asked, but the answer was lost.
    #[error("execd's answer was lost: {0}")]
    Lost(String),
    /// It knows no such task.
    #[error("execd knows no such task")]
    Unknown,
    /// It refused.
    #[error("execd refused the task: {0}")]
    Refused(ApiError),
}

/// The execd of this pod.
#[derive(Debug, Clone, Copy)]
pub struct Execd {
    port: u16,
}

/// An open connection, for one call.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Execd {
    /// execd at a port of loopback; none where it is never to be used.
    pub fn at(port: u16) -> Option<Self> {
        (port != 0).then_some(Self { port })
    }

    /// Connects.
    pub async fn connect(self) -> Result<Connection, ExecdError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
            let _ = stream.set_nodelay(true);
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())
        };
        let outcome = tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(|_| Err("no answer".into()));
        let (sender, connection) =
            outcome.map_err(|e| ExecdError::NotThere(format!("execd at {address} can't be reached: {e}")))?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// How a task is, when it has ended or the wait is over.
    pub async fn status(self, handle: &str, wait: u64) -> Result<ProcessStatus, ExecdError> {
        let path = format!("/v1/tasks/{handle}?wait={wait}");
        self.connect().await?.call(Method::GET, &path, Bytes::new(), Duration::from_secs(wait) + SLACK).await
    }

    /// Stops a task and everything in its group; answers when that is done.
    pub async fn stop(self, handle: &str, grace: u64) -> Result<ProcessStatus, ExecdError> {
        let path = format!("/v1/tasks/{handle}?grace={grace}");
        self.connect().await?.call(Method::DELETE, &path, Bytes::new(), Duration::from_secs(grace) + SLACK).await
    }
}

impl Connection {
    /// Hands a task over.
    pub async fn start(self, task: &TaskHandOver) -> Result<ProcessStatus, ExecdError> {
        let body = serde_json::to_vec(task).map_err(|e| ExecdError::NotThere(e.to_string()))?;
        self.call(Method::POST, "/v1/tasks", body.into(), START).await
    }

    async fn call(
        mut self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ProcessStatus, ExecdError> {
        let starts = method == Method::POST;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "127.0.0.1")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| ExecdError::NotThere(e.to_string()))?;
        let exchange = async {
            let answer = self.0.send_request(request).await.map_err(|e| e.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|e| e.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let outcome =
            tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err("no answer in time".into()));
        let (status, body) = outcome.map_err(ExecdError::Lost)?;
        judge(starts, status, &body)
    }
}

/// What an answer means. Only words of our own catalogue are a refusal: anything else is not our execd.
fn judge(starts: bool, status: StatusCode, body: &[u8]) -> Result<ProcessStatus, ExecdError> {
    let strange = || ExecdError::NotThere(format!("what listens on execd's port does not take tasks ({status})"));
    if status.is_success() {
        if let Ok(Task { process_status: Some(status), .. }) = serde_json::from_slice::<Task>(body) {
            return Ok(status);
        }
        return serde_json::from_slice(body)
            .ok()
            .filter(|s: &ProcessStatus| s.waiting.is_some() || s.running.is_some() || s.terminated.is_some())
            .ok_or_else(strange);
    }
    let error: ErrorBody = serde_json::from_slice(body).map_err(|_| strange())?;
    match ErrorCode::from_code(&error.code) {
        Some(ErrorCode::TaskNotFound) if !starts => Err(ExecdError::Unknown),
        Some(ErrorCode::RouteNotFound | ErrorCode::MethodNotAllowed | ErrorCode::ExecdNotSupported) | None => {
            Err(strange())
        }
        Some(code) => Err(ExecdError::Refused(ApiError::new(code, error.message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let running = br#"{"running":{"startedAt":"2026-01-01T00:00:00Z"}}"#;
        assert!(judge(true, StatusCode::OK, running).unwrap().running.is_some());
        let task = br#"{"name":"x","processStatus":{"terminated":{"exitCode":3,"startedAt":null,"finishedAt":null}}}"#;
        assert_eq!(judge(false, StatusCode::OK, task).unwrap().terminated.unwrap().exit_code, 3);
        let refusal = br#"{"code":"BAD_SIGNATURE","message":"no"}"#;
        assert!(matches!(judge(true, StatusCode::UNAUTHORIZED, refusal), Err(ExecdError::Refused(_))));
        let missing = br#"{"code":"TASK_NOT_FOUND","message":"no"}"#;
        assert_eq!(judge(false, StatusCode::NOT_FOUND, missing), Err(ExecdError::Unknown));
        for (status, body) in [(404, &b"404 page not found"[..]), (200, b"<html>"), (200, b"{}"), (405, b"")] {
            let judged = judge(true, StatusCode::from_u16(status).unwrap(), body);
            assert!(matches!(judged, Err(ExecdError::NotThere(_))), "{judged:?}");
        }
    }
}
