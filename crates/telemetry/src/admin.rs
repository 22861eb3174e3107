//! The admin listener: `/healthz`, `/readyz` and `/metrics` over plain HTTP/1.1, one request a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Readiness;

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 64;
/// Time for a request's head to arrive.
const HEADER: Duration = Duration::from_secs(5);
/// Time for a whole connection, answer included.
const CONNECTION: Duration = Duration::from_secs(20);
/// Largest head, in bytes. A probe's is some hundred.
const HEAD: usize = 8 * 1024;
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `cancel`, then ends the connections in progress. `/healthz` answers as long as the program can;
/// `/readyz` tells every check; `/metrics` writes the registry, as OpenMetrics for those who accept it.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, readiness: Readiness, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (registry, readiness, cancel) = (registry.clone(), readiness.clone(), cancel.clone());
                connections.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = converse(stream, &registry, &readiness) => {}
                        () = cancel.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the admin listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// One request and its answer.
async fn converse(stream: TcpStream, registry: &Registry, readiness: &Readiness) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, registry, readiness))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION, connection).await {
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("an admin connection took too long"),
        Ok(Ok(())) => {}
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry, readiness: &Readiness) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let (ready, report) = readiness.report();
            plain(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
        }
        "/metrics" => metrics(request, registry),
        _ => plain(StatusCode::NOT_FOUND, "only /healthz, /readyz and /metrics\n"),
    }
}

fn metrics(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let open = request
        .headers()
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text")));
    let mut body = String::new();
    let (written, content_type) = if open {
        (text::encode(&mut body, registry), "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (prometheus_text::encode(&mut body, registry), "text/plain; version=0.0.4; charset=utf-8")
    };
    if written.is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
    }
    let mut response = plain(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(CONNECTION, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn tells_health_readiness_and_metrics_and_ends() {
        let mut registry = Registry::with_prefix("opensandbox");
        let counter: Counter = Counter::default();
        registry.register("things", "Things done", counter.clone());
        counter.inc();
        let readiness = Readiness::default();
        let check = readiness.check("caches", "not synced");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::new(registry), readiness, cancel.clone()));

        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(ask(address, &get("/healthz")).await.starts_with("HTTP/1.1 200"));
        let unready = ask(address, &get("/readyz")).await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("[-] caches: not synced"), "{unready}");
        check.pass();
        assert!(ask(address, &get("/readyz?verbose")).await.starts_with("HTTP/1.1 200"));
        let metrics = ask(address, &get("/metrics")).await;
        assert!(metrics.contains("\nopensandbox_things_total 1\n"), "{metrics}");
        assert!(metrics.contains("version=0.0.4"), "{metrics}");
        let open = "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
        assert!(ask(address, open).await.ends_with("# EOF\n"));
        assert!(ask(address, &get("/other")).await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));

        cancel.cancel();
        tokio::time::timeout(CONNECTION, server).await.unwrap().unwrap();
    }
}
