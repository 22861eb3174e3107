//! HTTPS for kubectl and other tools: TLS, the bearer token, HTTP/1.1 with upgrades.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::body::{self, ApiBody};
use super::identity::Identity;
use super::service::ApiService;
use crate::error::ApiError;

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The identity's certificate or key cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
}

/// Connections at once; kubectl opens a few each.
const CONNECTIONS: usize = 1_024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// What open requests get to finish at the end; watches never do.
const GOODBYE: Duration = Duration::from_secs(1);

fn tls(identity: &Identity) -> Result<TlsAcceptor, ServeError> {
    let wrong = |e: &dyn std::fmt::Display| ServeError::Tls(e.to_string());
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(&e))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).map_err(|e| wrong(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| wrong(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `shutdown` resolves; then open requests get a moment and are cut.
pub(crate) async fn serve(
    service: ApiService,
    listener: TcpListener,
    identity: &Identity,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let acceptor = tls(identity)?;
    let token: Arc<str> = identity.token().into();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (ending, ended) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let slot = tokio::select! {
            () = &mut shutdown => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or the peer left: neither is a reason to stop, nor to spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (service, acceptor, token, ended) = (service.clone(), acceptor.clone(), token.clone(), ended.clone());
        tokio::spawn(async move {
            let _slot = slot;
            connection(stream, acceptor, service, token, ended).await;
        });
    }
    let _ = ending.send(true);
    drop(ended);
    // Every connection holds a receiver; the last one to end closes the channel.
    let _ = tokio::time::timeout(GOODBYE + GOODBYE, ending.closed()).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: ApiService,
    token: Arc<str>,
    mut ended: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let handler = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut service, token) = (service.clone(), token.clone());
        async move {
            if let Err(error) = authorize(&request, &token) {
                return Ok::<Response<ApiBody>, Infallible>(body::error(&error));
            }
            service.call(request).await
        }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades();
    let mut http = std::pin::pin!(http);
    let goodbye = async {
        // An error means that the server is gone, which is an end too.
        let _ = ended.wait_for(|e| *e).await;
    };
    tokio::select! {
        _ = http.as_mut() => {}
        () = goodbye => {
            http.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GOODBYE, http).await;
        }
    }
}

/// Health and version are told to anyone, everything else to who has the token.
fn authorize(request: &Request<Incoming>, token: &str) -> Result<(), ApiError> {
    if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz" | "/version") {
        return Ok(());
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "))
        .unwrap_or_default();
    if bool::from(given.trim().as_bytes().ct_eq(token.as_bytes())) {
        return Ok(());
    }
    Err(ApiError::new(401, "Unauthorized", "Unauthorized"))
}
