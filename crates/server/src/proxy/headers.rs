//! Which headers pass the proxy, and which are its own.

use std::net::IpAddr;

use api_types::names::headers::API_KEY;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{LOCATION, relocate};
use crate::front::via::Scheme;

/// RFC 9110: headers of one connection, besides what `Connection` names.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Credentials for this server, and what a caller could claim about itself: not the sandbox's business.
const WITHHELD: [&str; 7] = [
    "authorization",
    "cookie",
    "forwarded",
    "opensandbox-secure-access",
    "opensandbox-access-renew",
    "x-real-ip",
    "host",
];

/// Whether a request asks for a WebSocket.
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    says(header::UPGRADE, "websocket") && says(header::CONNECTION, "upgrade")
}

/// Leaves a request what the sandbox may see.
pub fn for_backend(headers: &mut HeaderMap, peer: Option<IpAddr>, scheme: Scheme, upgrade: bool) {
    let host = headers.get(header::HOST).cloned();
    remove_hop_by_hop(headers);
    let withheld = |name: &HeaderName| {
        WITHHELD.contains(&name.as_str())
            || name.as_str().starts_with("x-forwarded-")
            || name.as_str().eq_ignore_ascii_case(API_KEY)
    };
    let names: Vec<_> = headers.keys().filter(|name| withheld(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme.as_str()));
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host);
    }
    if let Some(peer) = peer.and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok()) {
        headers.insert("x-forwarded-for", peer);
    }
    if upgrade {
        ask_for_websocket(headers);
    }
}

/// Leaves an answer what the caller may see.
pub fn for_caller(headers: &mut HeaderMap, base: &str, upgraded: bool) {
    remove_hop_by_hop(headers);
    headers.remove(header::SERVER);
    if let Some(location) = headers.get(LOCATION).and_then(|l| relocate(l, base)) {
        headers.insert(LOCATION, location);
    }
    if upgraded {
        ask_for_websocket(headers);
    }
}

fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let values = headers.get_all(header::CONNECTION);
    let named: Vec<HeaderName> = values
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn credentials_and_claims_stay_here() {
        let mut headers = map(&[
            ("host", "api:8080"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("open-sandbox-api-key", "k"),
            ("forwarded", "for=x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "1.2.3.4"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("x-mine", "1"),
            ("accept", "text/event-stream"),
        ]);
        for_backend(&mut headers, "10.9.9.9".parse().ok(), Scheme::Http, false);
        let expected = map(&[
            ("x-mine", "1"),
            ("accept", "text/event-stream"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "api:8080"),
            ("x-forwarded-for", "10.9.9.9"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn answers_keep_each_cookie_and_lose_the_server() {
        let mut headers = map(&[("server", "nginx"), ("transfer-encoding", "chunked"), ("location", "/in")]);
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        for_caller(&mut headers, "/base", false);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers["location"], "/base/in");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn websockets_are_told_by_both_headers() {
        assert!(wants_websocket(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!wants_websocket(&map(&[("upgrade", "websocket")])));
        assert!(!wants_websocket(&map(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")]);
        for_backend(&mut headers, None, Scheme::Https, true);
        assert!(wants_websocket(&headers) && headers.contains_key("sec-websocket-key"));
    }
}
