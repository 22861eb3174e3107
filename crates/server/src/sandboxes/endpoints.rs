//! `GET /sandboxes/{id}/endpoints/{port}`: where a port is reached, and what to send there.

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::crd::BatchSandbox;
use api_types::lifecycle::Endpoint;
use axum::Json;
use axum::extract::RawQuery;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::find::{fetch, find};
use super::state::{self, Address};
use super::view::some;
use crate::app::App;
use crate::config::{Config, EndpointMode};
use crate::error::ApiError;
use crate::front::path::Path;
use crate::front::query::Query;
use crate::front::via::Via;

/// Answers from memory.
pub async fn handle(
    app: App,
    Path((id, port)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    via: Via,
) -> Result<Json<Endpoint>, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let through_proxy = query.truth("use_server_proxy")?;
    let expires = query.get("expires").map(|text| expiry(text, through_proxy, &app.config)).transpose()?;
    let port = parse_port(&port)?;
    let (object, address) = locate(&app, &id).await?;
    Ok(Json(of_address(&app, &object, &address, port, through_proxy, expires, &via)))
}

/// When a signed address ends, in seconds since 1970.
fn expiry(text: &str, through_proxy: bool, config: &Config) -> Result<u64, ApiError> {
    if through_proxy {
        return Err(ApiError::field("expires", "can't be combined with use_server_proxy"));
    }
    if config.gateway.as_ref().is_none_or(|gateway| gateway.signer.is_none()) {
        return Err(ApiError::field(
            "expires",
            "signed addresses need a gateway with a key, which this server has not",
        ));
    }
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let expires = text.parse::<u64>().ok().filter(|expires| *expires > now);
    expires.ok_or_else(|| {
        ApiError::field("expires", format_args!("is {text:?}; it is a time to come, in seconds since 1970"))
    })
}

/// A sandbox and where it is. When memory knows of no address the API server is asked once: another replica may have
/// answered the create, and this one's watch be a moment behind.
pub async fn locate(app: &App, id: &str) -> Result<(Arc<BatchSandbox>, Address), ApiError> {
    let known = find(app, id).await?;
    if let Ok(address) = address(&known) {
        return Ok((known, address));
    }
    let fresh = Arc::new(fetch(app, id).await?);
    let address = address(&fresh)?;
    Ok((fresh, address))
}

/// A port, in the words of the caller.
pub fn parse_port(text: &str) -> Result<u16, ApiError> {
    text.parse::<u16>()
        .ok()
        .filter(|p| *p > 0)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidPort, format!("port: {text:?} is no port between 1 and 65535")))
}

/// The endpoint of a port, direct or through the proxy.
pub fn endpoint(
    app: &App,
    object: &BatchSandbox,
    port: u16,
    through_proxy: bool,
    via: &Via,
) -> Result<Endpoint, ApiError> {
    Ok(of_address(app, object, &address(object)?, port, through_proxy, None, via))
}

fn of_address(
    app: &App,
    object: &BatchSandbox,
    address: &Address,
    port: u16,
    through_proxy: bool,
    expires: Option<u64>,
    via: &Via,
) -> Endpoint {
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    if let Some(gateway) = app.config.gateway.as_ref().filter(|_| !through_proxy) {
        let (endpoint, mut headers) = gateway.endpoint(&object.name_any(), port, expires);
        headers.extend(app.access_headers(uid, address, port, false));
        return Endpoint { endpoint, headers: some(headers) };
    }
    let proxied = through_proxy || app.config.endpoints == EndpointMode::Proxy;
    let endpoint = if proxied {
        format!("{}{}/sandboxes/{}/proxy/{port}", via.host, via.prefix, object.name_any())
    } else {
        authority(&address.ip, port)
    };
    let headers = some(app.access_headers(uid, address, port, proxied));
    Endpoint { endpoint, headers }
}

/// Where the sandbox is now, or why it is nowhere.
pub fn address(object: &BatchSandbox) -> Result<Address, ApiError> {
    if let Some(address) = state::address(object) {
        return Ok(address);
    }
    let told = state::status(object);
    let id = object.name_any();
    let detail = told.message.unwrap_or_default();
    Err(match told.state.as_str() {
        "Stopping" | "Failed" => {
            ApiError::new(ErrorCode::SandboxGone, format!("sandbox {id} is {}: {detail}", told.state))
        }
        "Pausing" | "Paused" => ApiError::new(ErrorCode::InvalidState, format!("sandbox {id} is {}", told.state)),
        // The one answer that published SDKs take as "ask again".
        state => ApiError::new(
            ErrorCode::PodIpNotAvailable,
            format!("sandbox {id} is {state} and has no address yet: {detail}"),
        ),
    })
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub fn authority(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandboxes::state::tests::object;

    #[test]
    fn ports() {
        assert_eq!(parse_port("44772").unwrap(), 44772);
        for bad in ["0", "65536", "-1", "http", ""] {
            assert_eq!(parse_port(bad).unwrap_err().code, ErrorCode::InvalidPort, "{bad}");
        }
        assert_eq!(authority("10.0.0.1", 80), "10.0.0.1:80");
        assert_eq!(authority("fd00::1", 80), "[fd00::1]:80");
    }

    #[test]
    fn no_address_says_whether_asking_again_helps() {
        let code = |status| address(&object(status)).unwrap_err().code;
        assert_eq!(code(json!(null)), ErrorCode::PodIpNotAvailable);
        assert_eq!(code(json!({"replicas": 1, "phase": "Failed"})), ErrorCode::SandboxGone);
        assert_eq!(code(json!({"replicas": 1, "phase": "Paused"})), ErrorCode::InvalidState);
    }
}
