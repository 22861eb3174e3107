//! The server: the front door around the routes, and the loop that accepts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::middleware::{from_fn, from_fn_with_state};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::app::App;
use crate::config::Config;
use crate::front::{auth, request_id, unmatched};
use crate::routes;

/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It would be open to the network.
    #[error("listening on {0} without an API key is refused: give a key, or allow an open server in words")]
    OpenToTheNetwork(SocketAddr),
    /// The listener can't say where it listens.
    #[error("the listener has no address")]
    Listener(#[source] std::io::Error),
}

/// The lifecycle server.
pub struct Server {
    app: App,
}

impl Server {
    /// A server over a Kubernetes API. Its two watches begin at once, in the current runtime, and end with it.
    pub fn new(client: Client, config: Config) -> Self {
        Self { app: App::start(client, config) }
    }

    /// Waits until the sandboxes and pools of Kubernetes are known; false when the deadline came first.
    pub async fn ready(&self, deadline: Duration) -> bool {
        let (sandboxes, pools) = tokio::join!(self.app.sandboxes.synced(deadline), self.app.pools.synced(deadline));
        sandboxes && pools
    }

    /// The whole service, front door included.
    pub fn router(&self) -> Router {
        routes::router()
            .fallback(unmatched::path)
            .method_not_allowed_fallback(unmatched::verb)
            .layer(from_fn_with_state(self.app.clone(), auth::check))
            .layer(from_fn(request_id::give))
            .with_state(self.app.clone())
    }

    /// Serves until `stop`, then gives the requests in progress a moment.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let config = &self.app.config;
        if !address.ip().is_loopback() && config.api_keys.is_empty() && !config.allow_open {
            return Err(ServeError::OpenToTheNetwork(address));
        }
        let router = self.router();
        let places = Arc::new(Semaphore::new(config.limits.connections));
        let conversations = TaskTracker::new();
        loop {
            let (stream, peer, place) = tokio::select! {
                next = next(&listener, &places) => next,
                () = stop.cancelled() => break,
            };
            conversations.spawn(converse(self.app.clone(), router.clone(), stream, peer, place, stop.clone()));
        }
        drop(listener);
        conversations.close();
        if tokio::time::timeout(config.limits.shutdown, conversations.wait()).await.is_err() {
            tracing::info!("requests were cut off by the shutdown");
        }
        // Those who were cut off have hung up, so to say: what they had begun is taken back.
        self.app.stop.cancel();
        let _ = tokio::time::timeout(config.limits.shutdown, conversations.wait()).await;
        self.app.work.close();
        if tokio::time::timeout(config.limits.shutdown, self.app.work.wait()).await.is_err() {
            tracing::warn!("a create in progress could not be taken back before the end");
        }
        Ok(())
    }
}

/// Speaks HTTP on one connection. After `stop` the request in progress is the last one.
async fn converse(
    app: App,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(axum::body::Body::new)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.config.limits.header_read)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection => result,
                () = app.stop.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error = %crate::error::chain(&error), "connection ended");
    }
}

/// The next connection, when there is a place for it.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // Never closed; if it were, nothing more would be accepted.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
