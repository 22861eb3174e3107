//! Who the server is and who may talk to it: a CA, a certificate and a token, kept across restarts.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::env::Ids;

/// Why an identity could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A CA's certificate, a certificate signed by it with its key, and the bearer token.
#[derive(Clone)]
pub struct Identity {
    ca: String,
    certificate: String,
    key: String,
    token: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the key nor the token belongs in a log.
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

const FILES: [&str; 4] = ["ca.crt", "tls.crt", "tls.key", "token"];

impl Identity {
    /// A fresh identity. The CA's key is thrown away: it signs this one certificate.
    pub fn generate() -> Result<Self, IdentityError> {
        let lifetime = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2124, 1, 1);
        };
        let mut root = CertificateParams::new(Vec::new())?;
        lifetime(&mut root);
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.distinguished_name.push(DnType::CommonName, "opensandbox embedded cluster CA");
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_key = KeyPair::generate()?;
        let ca = root.self_signed(&root_key)?.pem();
        let issuer = Issuer::new(root, root_key);
        let mut leaf = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
        lifetime(&mut leaf);
        leaf.distinguished_name.push(DnType::CommonName, "opensandbox embedded cluster");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &issuer)?.pem();
        // Two random UUIDs carry 244 random bits.
        let token = format!("{}{}", crate::env::System.uid(), crate::env::System.uid()).replace('-', "");
        Ok(Self { ca, certificate, key: leaf_key.serialize_pem(), token })
    }

    /// The identity kept in `directory`, made and written there (readable by its owner alone) when there is none.
    pub fn load_or_generate(directory: &Path) -> Result<Self, IdentityError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        let [ca, certificate, key, token] = FILES.map(|file| std::fs::read_to_string(directory.join(file)));
        if let (Ok(ca), Ok(certificate), Ok(key), Ok(token)) = (ca, certificate, key, token)
            && !token.trim().is_empty()
        {
            return Ok(Self { ca, certificate, key, token: token.trim().to_owned() });
        }
        let fresh = Self::generate()?;
        std::fs::create_dir_all(directory).map_err(at(directory))?;
        for (file, text) in FILES.into_iter().zip([&fresh.ca, &fresh.certificate, &fresh.key, &fresh.token]) {
            let path = directory.join(file);
            // A new file under another name, so that nobody ever reads half of it or finds it open to all.
            let draft = directory.join(format!(".{file}.new"));
            let _ = std::fs::remove_file(&draft);
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)
                .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
                .and_then(|()| std::fs::rename(&draft, &path))
                .map_err(at(&path))?;
        }
        Ok(fresh)
    }

    /// The token that opens everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key
    }

    /// A kubeconfig for kubectl. It holds the token: write it with mode 0600.
    pub fn kubeconfig(&self, address: SocketAddr, namespace: &str) -> String {
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        let token = &self.token;
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: opensandbox\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {ca}\n\
             users:\n\
             - name: opensandbox\n  user:\n    token: {token}\n\
             contexts:\n\
             - name: opensandbox\n  context:\n    cluster: opensandbox\n    user: opensandbox\n    namespace: {namespace}\n\
             current-context: opensandbox\n"
        )
    }
}
