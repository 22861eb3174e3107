//! The server: the front door around the routes, and the loop that accepts connections.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kube::Client;
use telemetry::{Readiness, Registry};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::App;
use crate::config::Config;
use crate::front::via::Scheme;
use crate::front::{auth, observe, request_id, unmatched};
use crate::keys::ApiKeys;
use crate::metrics::Counted;
use crate::tenants::{Tenants, TenantsFile};
use crate::tls::Tls;
use crate::{reload, routes};

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
        let spaces = match self.app.config.tenants {
            None => vec![self.app.clone()],
            Some(_) => self.app.spaces.all().into_iter().map(|space| self.app.within(space)).collect(),
        };
        let filled = spaces.iter().map(|app| async {
            let space = app.space();
            tokio::join!(space.sandboxes.synced(deadline), space.pools.synced(deadline))
        });
        futures::future::join_all(filled).await.into_iter().all(|(sandboxes, pools)| sandboxes && pools)
    }

    /// Whether it can serve, and what is missing when not; also answered at `/readyz`.
    pub fn readiness(&self) -> Readiness {
        self.app.health.readiness.clone()
    }

    /// Shows the server's metrics in a registry whose prefix is `opensandbox`.
    pub fn register(&self, registry: &mut Registry) {
        self.app.metrics.register(registry);
    }

    /// Takes the keys of a file, and takes them anew when it changes, until the server ends. `others` always hold.
    pub fn follow_keys(&self, file: PathBuf, others: ApiKeys) {
        let app = Arc::downgrade(&self.app.shared());
        reload::watch(vec![file.clone()], self.app.stop.clone(), move || {
            let Some(app) = app.upgrade() else { return };
            match ApiKeys::read(&file) {
                Ok(keys) => {
                    *app.keys.write() = Arc::new(others.clone().and(keys));
                    tracing::info!(file = %file.display(), "API keys were read again");
                }
                Err(why) => tracing::warn!(why, "the API keys stay as they were"),
            }
        });
    }

    /// Takes the tenants of a file anew when it changes, until the server ends. A file that can't be used changes nothing;
    /// one that is gone, or holds no tenant any more, does not open the server.
    pub fn follow_tenants(&self, path: PathBuf) {
        let Some(Tenants::File(known)) = self.app.config.tenants.clone() else { return };
        let stop = self.app.stop.clone();
        reload::watch(vec![path.clone()], stop, move || match TenantsFile::read(&path) {
            Ok(file) => {
                // Who is new is followed from the first request on.
                *known.write() = Arc::new(file);
                tracing::info!(file = %path.display(), "the tenants were read again");
            }
            Err(why) => tracing::warn!(why, "the tenants stay as they were"),
        });
    }

    /// Takes another certificate when its files change, until the server ends.
    pub fn follow_certificate(&self, tls: &Tls) {
        let files = vec![tls.files().certificate.clone(), tls.files().key.clone()];
        let tls = tls.clone();
        reload::watch(files, self.app.stop.clone(), move || match tls.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            // Between the two files' changes they do not fit; the second change comes as well.
            Err(error) => tracing::warn!(error = %telemetry::chain(&error), "the certificate stays as it was"),
        });
    }

    /// The whole service, front door included.
    pub fn router(&self) -> Router {
        let keyed = || from_fn_with_state(self.app.clone(), auth::check);
        let api = routes::api()
            .fallback(unmatched::path)
            .method_not_allowed_fallback(unmatched::verb)
            .layer(keyed())
            .layer(self.cross_origin());
        // What browsers may do with a sandbox's answers is the sandbox's affair.
        api.merge(routes::proxy().layer(keyed()))
            .layer(from_fn_with_state(self.app.clone(), observe::observe))
            .layer(from_fn(request_id::give))
            .with_state(self.app.clone())
    }

    /// Which web pages may call the API. Never with a browser's own credentials: the key is a header of its own.
    fn cross_origin(&self) -> CorsLayer {
        let origins = &self.app.config.cors_origins;
        let layer = CorsLayer::new()
            .allow_methods(tower_http::cors::Any)
            .allow_headers(tower_http::cors::Any)
            .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER, header::LOCATION])
            .max_age(Duration::from_secs(600));
        // Without a key any page that a developer visits could drive the server.
        if origins.is_empty() || self.app.is_open() {
            layer
        } else if origins.iter().any(|origin| origin == "*") {
            layer.allow_origin(tower_http::cors::Any)
        } else {
            layer.allow_origin(AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok())))
        }
    }

    /// Serves until `stop`, then gives the requests in progress a moment.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), ServeError> {
        self.serve_with(listener, None, stop).await
    }

    /// As [`Server::serve`], with TLS where it is given.
    ///
    /// After `stop` readiness fails at once; connections are accepted for `limits.shutdown_delay` more, so that nobody
    /// who has not heard of it is refused; then what is in progress has `limits.shutdown`.
    pub async fn serve_with(
        &self,
        listener: TcpListener,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let limits = &self.app.config.limits;
        if !address.ip().is_loopback() && self.app.is_open() && !self.app.config.allow_open {
            return Err(ServeError::OpenToTheNetwork(address));
        }
        let router = self.router();
        let places = Arc::new(Semaphore::new(limits.connections));
        let conversations = TaskTracker::new();
        let closing = CancellationToken::new();
        let last_call = async {
            stop.cancelled().await;
            self.app.health.serving.fail("stopping");
            tokio::time::sleep(limits.shutdown_delay).await;
        };
        let mut last_call = std::pin::pin!(last_call);
        loop {
            let (stream, peer, place) = tokio::select! {
                next = next(&listener, &places) => next,
                () = &mut last_call => break,
            };
            let conversation = Conversation {
                app: self.app.clone(),
                router: router.clone(),
                peer,
                stopping: stop.clone(),
                closing: closing.clone(),
                _place: place,
            };
            conversations.spawn(conversation.begin(stream, tls.clone()));
        }
        drop(listener);
        closing.cancel();
        conversations.close();
        if tokio::time::timeout(limits.shutdown, conversations.wait()).await.is_err() {
            tracing::info!("requests were cut off by the shutdown");
        }
        // Those who were cut off have hung up, so to say: what they had begun is taken back.
        self.app.stop.cancel();
        let _ = tokio::time::timeout(limits.shutdown, conversations.wait()).await;
        self.app.work.close();
        if tokio::time::timeout(limits.shutdown, self.app.work.wait()).await.is_err() {
            tracing::warn!("a create in progress could not be taken back before the end");
        }
        Ok(())
    }
}

/// One connection.
struct Conversation {
    app: App,
    router: Router,
    peer: SocketAddr,
    stopping: CancellationToken,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Conversation {
    async fn begin(self, stream: TcpStream, tls: Option<Tls>) {
        let _counted = Counted::new(&self.app.metrics.connections);
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // Whoever reads nothing holds a place, and what a sandbox sends to it.
        stream.set_write_timeout(Some(self.app.config.limits.write_stall));
        let stream = Box::pin(stream);
        let Some(tls) = tls else {
            return self.speak(stream, Scheme::Http).await;
        };
        match tokio::time::timeout(self.app.config.limits.handshake, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.speak(stream, Scheme::Https).await,
            failed => {
                self.app.metrics.tls_failures.inc();
                let why = failed
                    .map_or_else(|_| "too slow".to_owned(), |e| e.err().map_or_else(String::new, |e| e.to_string()));
                tracing::debug!(peer = %self.peer, why, "a TLS handshake came to nothing");
            }
        }
    }

    /// Speaks HTTP. Once the server stops, each answer says that the connection ends with it, so that no client sends
    /// its next request into the end; once it is closing, the request in progress is the last one. A connection on
    /// which none has come yet is owed one: its client was let in and has no way to know.
    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, scheme: Scheme) {
        let Self { app, router, peer, stopping, closing, _place } = self;
        let begun = CancellationToken::new();
        let asked = begun.clone();
        let service = router
            .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
                asked.cancel();
                request.extensions_mut().insert(ConnectInfo(peer));
                request.extensions_mut().insert(scheme);
                request.map(axum::body::Body::new)
            })
            .map_response(move |mut response: Response| {
                let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if stopping.is_cancelled() && !upgrade {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.config.limits.header_read)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = closing.cancelled() => {
                let last = async {
                    tokio::select! {
                        // Ends by itself when no request comes in the time that its head may take.
                        result = connection.as_mut() => return result,
                        () = begun.cancelled() => connection.as_mut().graceful_shutdown(),
                    }
                    connection.await
                };
                tokio::select! {
                    result = last => result,
                    () = app.stop.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error = %telemetry::chain(&error), "connection ended");
        }
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
