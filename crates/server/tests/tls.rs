//! TLS by files: a certificate that is replaced as kubelet does it, and callers that never finish the handshake.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{DEADLINE, World};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use server::settings::TlsFiles;
use server::{ApiKeys, Config, Server, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Writes a certificate for `localhost` and its key, and gives the certificate.
fn issue(directory: &Path) -> CertificateDer<'static> {
    std::fs::create_dir_all(directory).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// One request over TLS, trusting this certificate alone.
async fn health(address: SocketAddr, root: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    // A peer may leave without saying so.
    let _ = stream.read_to_string(&mut text).await;
    Ok(text)
}

async fn serve(world: &World, files: TlsFiles, handshake: Duration) -> (SocketAddr, Arc<Server>) {
    let mut config = Config { api_keys: ApiKeys::new(["k"]), ..Config::default() };
    config.limits.handshake = handshake;
    let server = Arc::new(Server::new(world.client.clone(), config));
    let tls = Tls::new(files).unwrap();
    server.follow_certificate(&tls);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve_with(listener, Some(tls), CancellationToken::new()).await });
    (address, server)
}

#[tokio::test]
async fn a_new_certificate_is_taken_when_kubelet_swaps_the_link() {
    let world = World::new().await;
    let mount = tempfile::tempdir().unwrap();
    let at = |name: &str| mount.path().join(name);
    let first = issue(&at("..2026_01"));
    symlink("..2026_01", at("..data")).unwrap();
    symlink("..data/tls.crt", at("tls.crt")).unwrap();
    symlink("..data/tls.key", at("tls.key")).unwrap();
    let files = TlsFiles { certificate: at("tls.crt"), key: at("tls.key") };
    let (address, _server) = serve(&world, files, DEADLINE).await;
    assert!(health(address, &first).await.unwrap().contains("healthy"));

    let second = issue(&at("..2026_02"));
    symlink("..2026_02", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let taken = async {
        while health(address, &second).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("the new certificate is taken in time");
    assert!(health(address, &first).await.is_err());
}

#[tokio::test]
async fn a_handshake_has_a_deadline_and_wrong_files_are_told() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    issue(directory.path());
    issue(&directory.path().join("other"));
    let files = TlsFiles { certificate: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
    let (address, _server) = serve(&world, files.clone(), Duration::from_millis(50)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, silent.read(&mut [0; 16])).await.expect("it ends in time");
    assert!(matches!(ended, Ok(0) | Err(_)));

    let other = TlsFiles { key: directory.path().join("other/tls.key"), ..files.clone() };
    assert!(Tls::new(other).err().unwrap().to_string().contains("does not fit"));
    let swapped = TlsFiles { certificate: files.key.clone(), key: files.certificate };
    assert!(Tls::new(swapped).err().unwrap().to_string().contains("no certificate"));
}
