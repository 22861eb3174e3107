//! TLS by rustls with `ring`, without touching the process's default provider.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::config::Protocol;

/// Configuration for a client that speaks `protocol`. Reading the machine's certificates costs
/// milliseconds, so a client without TLS gets a configuration that trusts nobody.
pub(crate) fn config(protocol: Protocol) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(match protocol {
        Protocol::Http => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Protocol::Https => builder.with_platform_verifier()?.with_no_client_auth(),
    })
}
