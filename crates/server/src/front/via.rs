//! How the caller reached the server: host and prefix, which addresses in answers keep.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;

use crate::app::App;

/// Whether the connection has TLS; in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without.
    Http,
    /// With.
    Https,
}

impl Scheme {
    /// As it stands in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Host and prefix of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// `host[:port]`.
    pub host: String,
    /// `/v1`, or nothing.
    pub prefix: &'static str,
}

impl FromRequestParts<App> for Via {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let asked = || parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
        let authority = || parts.uri.authority().map(ToString::to_string);
        let host = app.config.public_host.clone().or_else(asked).or_else(authority).unwrap_or_default();
        Ok(Self { host, prefix: prefix(parts.uri.path()) })
    }
}

/// The prefix of a path.
pub fn prefix(path: &str) -> &'static str {
    if path.starts_with("/v1/") { "/v1" } else { "" }
}
