//! TLS of the main listener: certificate and key by files, which may change while the server runs.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::settings::TlsFiles;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A file is no PEM, or has not what it should have.
    #[error("{} holds no {what} in PEM", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The key is of a kind that is not understood, or not the certificate's.
    #[error("the key of {} does not fit the certificate of {}", .key.display(), .certificate.display())]
    Mismatch {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// What the library said.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// TLS that can be given another certificate.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(load(&files)?))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| mismatch(&files, source))?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Reads the files again; when they can't be used, what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = load(&self.files)?;
        *self.current.0.write() = Arc::new(fresh);
        Ok(())
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What makes a connection one with TLS.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// Reads certificate and key, and sees that they belong together.
pub fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let open = |path: &PathBuf| File::open(path).map(BufReader::new).map_err(|e| TlsError::Read(path.clone(), e));
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_reader_iter(open(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Pem { path: files.certificate.clone(), what: "certificate" })?;
    if certificates.is_empty() {
        return Err(TlsError::Pem { path: files.certificate.clone(), what: "certificate" });
    }
    let key = PrivateKeyDer::from_pem_reader(open(&files.key)?)
        .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
    CertifiedKey::from_der(certificates, key, &rustls::crypto::ring::default_provider())
        .map_err(|source| mismatch(files, source))
}

fn mismatch(files: &TlsFiles, source: rustls::Error) -> TlsError {
    TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone(), source }
}
