//! Sends every operation what it must refuse, and what it must take.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use super::common::{Answer, KEY, World, from_pool};
use super::document::{Operation, operations, wrong};

/// Headers of HTTP itself, of browsers' safety and of caching: no part of the contract.
const OF_HTTP: [&str; 10] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "date",
    "vary",
    "allow",
    "cache-control",
    "content-security-policy",
    "x-accel-buffering",
    "x-content-type-options",
];

async fn send(world: &World, verb: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(verb).uri(format!("http://{}{path}", world.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.raw(request.body(body.into()).unwrap()).await
}

async fn keyed(world: &World, verb: &str, path: &str, body: Option<&Value>) -> Answer {
    let headers = [("open-sandbox-api-key", KEY), ("content-type", "application/json")];
    let (headers, body) = match body {
        Some(body) => (&headers[..], Body::from(body.to_string())),
        None => (&headers[..1], Body::empty()),
    };
    send(world, verb, path, headers, body).await
}

/// A refusal with this code, in the catalogue's shape, with an id, and documented.
#[track_caller]
fn refused(operation: &Operation, answer: &Answer, code: &str, why: &str) {
    if operation.verb == "HEAD" {
        assert!(answer.headers.contains_key("x-request-id"));
        return;
    }
    let found = answer.code();
    assert_eq!(found, code, "{}, {why}: {}", operation.name(), answer.message());
    let documented = operation.codes(answer.status.as_u16());
    assert!(documented.contains(&found), "{}, {why}: {found} is not documented", operation.name());
    of_the_contract(operation, &answer.headers, &answer.status.as_u16().to_string());
}

/// Whether every header is documented for the status.
#[track_caller]
fn of_the_contract(operation: &Operation, headers: &HeaderMap, status: &str) {
    let documented = operation.whole["responses"][status]["headers"].as_object().cloned().unwrap_or_default();
    for name in headers.keys().map(|name| name.as_str()).filter(|name| !OF_HTTP.contains(name)) {
        let known = documented.keys().any(|known| known.eq_ignore_ascii_case(name))
            || name.starts_with("access-control-")
            || operation.path.contains("/proxy/");
        assert!(known, "{} {status}: header {name} is not documented", operation.name());
    }
}

/// A body that an operation takes.
fn right_body(operation: &Operation) -> Option<Value> {
    operation.body()?;
    Some(match operation.id.as_str() {
        "createSandbox" => from_pool("claim"),
        "patchMetadata" => json!({"team": "x"}),
        "renewExpiration" => json!({"expiresAt": "2099-01-01T00:00:00Z"}),
        "createPool" => json!({
            "name": "made", "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}},
            "capacitySpec": {"bufferMax": 1, "bufferMin": 0, "poolMax": 1, "poolMin": 0}
        }),
        "updatePool" => json!({"capacitySpec": {"bufferMax": 1, "bufferMin": 0, "poolMax": 10, "poolMin": 0}}),
        "reportEvent" => json!({"eventType": "sandbox.create", "createDurationMs": 1, "success": true}),
        other => panic!("no body is known that {other} takes"),
    })
}

#[tokio::test]
async fn every_operation_needs_the_key_unless_it_is_public() {
    let world = World::new().await;
    let mut public = BTreeSet::new();
    for operation in operations() {
        let path = operation.filled("x");
        if !operation.keyed {
            public.insert(path.clone());
            let answer = send(&world, &operation.verb, &path, &[], Body::empty()).await;
            assert!(answer.status.is_success(), "{}: {}", operation.name(), answer.status);
            continue;
        }
        let body = || Body::from("{}");
        let none = send(&world, &operation.verb, &path, &[], body()).await;
        refused(&operation, &none, "MISSING_API_KEY", "without a key");
        let other = send(&world, &operation.verb, &path, &[("open-sandbox-api-key", "other")], body()).await;
        refused(&operation, &other, "INVALID_API_KEY", "with a wrong key");
    }
    let known = ["/docs", "/health", "/healthz", "/openapi.json", "/readyz", "/version"];
    assert_eq!(public, known.map(str::to_owned).into());
}

#[tokio::test]
async fn wrong_bodies_are_refused_with_the_member_that_is_wrong() {
    let world = World::new().await;
    let mut checked = 0;
    for operation in operations().into_iter().filter(|o| o.body().is_some()) {
        let path = operation.filled("x");
        let verb = operation.verb.as_str();
        let invalid = async |text: &str, why: &str| {
            let key = ("open-sandbox-api-key", KEY);
            let answer = send(&world, verb, &path, &[key, ("content-type", "application/json")], text.to_owned()).await;
            refused(&operation, &answer, "SANDBOX::INVALID_PARAMETER", why);
            answer.message()
        };
        for (text, why) in
            [("", "empty"), ("{", "cut off"), ("nonsense", "no JSON"), ("\"text\"", "text"), ("[]", "list")]
        {
            let message = invalid(text, why).await;
            assert!(message.contains(": "), "{message}");
        }
        for (member, schema) in operation.members() {
            let Some(wrong) = wrong(&schema) else { continue };
            let dotted = member.join(".");
            let body = member.iter().rev().fold(wrong, |inner, name| json!({name: inner}));
            let message = invalid(&body.to_string(), &dotted).await;
            assert!(message.starts_with(&format!("{dotted}: ")), "{}: {dotted}: {message}", operation.name());
            checked += 1;
        }
        for member in operation.required() {
            let mut body = right_body(&operation).unwrap();
            let (last, outer) = member.split_last().unwrap();
            let holder = outer.iter().fold(&mut body, |at, name| &mut at[name]);
            let Some(holder) = holder.as_object_mut() else { continue };
            holder.shift_remove(last);
            // A member that the body above has not got at all is wrong as well.
            let message = invalid(&body.to_string(), &format!("without {}", member.join("."))).await;
            assert!(message.contains(&format!("`{last}`")), "{}: {message}", operation.name());
            checked += 1;
        }
        let typed = [("open-sandbox-api-key", KEY), ("content-type", "text/plain")];
        let answer = send(&world, verb, &path, &typed, "{}").await;
        refused(&operation, &answer, "SANDBOX::INVALID_PARAMETER", "a type that is not JSON");
        assert!(answer.message().starts_with("Content-Type: "));
        let limit = operation.body_bytes();
        let huge = send(&world, verb, &path, &[("open-sandbox-api-key", KEY)], vec![b' '; limit + 1]).await;
        refused(&operation, &huge, "BODY_TOO_LARGE", "too large");
        let full = send(&world, verb, &path, &[("open-sandbox-api-key", KEY)], vec![b' '; limit]).await;
        refused(&operation, &full, "SANDBOX::INVALID_PARAMETER", "as large as may be, and blank");
    }
    assert!(checked > 60, "only {checked} members were checked");
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    let world = World::new().await;
    let id = world.created().await;
    let mut checked = 0;
    for operation in operations().into_iter().filter(|o| o.keyed && !o.refused()) {
        for (name, schema) in operation.parameters("query") {
            if !matches!(schema["type"].as_str(), Some("integer" | "boolean")) {
                continue;
            }
            for value in ["", "perhaps", "-1", "1.5", "99999999999999999999"] {
                let path = format!("{}?{name}={value}", operation.filled(&id));
                let answer = keyed(&world, &operation.verb, &path, right_body(&operation).as_ref()).await;
                refused(&operation, &answer, "SANDBOX::INVALID_PARAMETER", &path);
                assert!(answer.message().starts_with(&format!("{name}: ")), "{}", answer.message());
                checked += 1;
            }
        }
        for (name, schema) in operation.parameters("path") {
            let path = operation.path.replace(&format!("{{{name}}}"), "%FF");
            let path = path.replace("{id}", &id).replace("{port}", "80").replace("{path}", "x");
            let answer = keyed(&world, &operation.verb, &path, right_body(&operation).as_ref()).await;
            if operation.path.contains("/proxy/") {
                // Passed on as it is, or refused; never understood wrongly.
                assert!(!answer.status.is_success(), "{path}");
                continue;
            }
            refused(&operation, &answer, "SANDBOX::INVALID_PARAMETER", &path);
            if schema["type"] == "integer" {
                for value in ["0", "65536", "http", "-1"] {
                    let path = operation.filled(&id).replace("/80", &format!("/{value}"));
                    let answer = keyed(&world, &operation.verb, &path, None).await;
                    refused(&operation, &answer, "DOCKER::INVALID_PORT", &path);
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} parameters were checked");
}

#[tokio::test]
async fn what_is_not_there_is_typed() {
    let world = World::new().await;
    let all = operations();
    let mut paths = BTreeSet::new();
    for operation in &all {
        paths.insert(operation.path.clone());
        if !operation.keyed || operation.refused() || !operation.path.contains("/{") {
            continue;
        }
        let path = operation.filled("none").replace("/pools/pool", "/pools/none");
        let answer = keyed(&world, &operation.verb, &path, right_body(operation).as_ref()).await;
        let code =
            if path.contains("/pools/") { "KUBERNETES::POOL_NOT_FOUND" } else { "KUBERNETES::SANDBOX_NOT_FOUND" };
        refused(operation, &answer, code, "of what is not there");
    }
    for path in paths {
        let here: Vec<_> = all.iter().filter(|o| o.path == path).collect();
        let filled = here[0].filled("x");
        let unknown = keyed(&world, "GET", &format!("{}/nothing/here", filled.trim_end_matches('/')), None).await;
        if !path.contains("/proxy/") {
            assert_eq!(unknown.code(), "ROUTE_NOT_FOUND", "{path}");
            for verb in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
                if here.iter().any(|o| o.verb == verb) || here[0].filled("x").ends_with("/") {
                    continue;
                }
                let answer = keyed(&world, verb, &filled, None).await;
                assert_eq!(answer.code(), "METHOD_NOT_ALLOWED", "{verb} {path}");
                let allowed = answer.headers["allow"].to_str().unwrap();
                assert!(here.iter().all(|o| allowed.contains(&o.verb)), "{verb} {path}: {allowed}");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_answers_as_it_is_documented() {
    let world = World::new().await;
    for operation in operations().into_iter().filter(|o| o.id != "watchSandbox" && !o.path.contains("/proxy/")) {
        let id = world.created().await;
        if operation.id == "createPool" {
            keyed(&world, "DELETE", "/v1/pools/made", None).await;
        }
        let path = match operation.id.as_str() {
            // What the walk needs afterwards stays.
            "deletePool" => "/v1/pools/empty-pool".to_owned(),
            _ => operation.filled(&id),
        };
        let answer = keyed(&world, &operation.verb, &path, right_body(&operation).as_ref()).await;
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            let documented = &operation.whole["responses"][status.to_string()];
            assert!(documented.is_object(), "{}: {status} is not documented", operation.name());
            let media = answer.headers.get("content-type").and_then(|t| t.to_str().ok()).unwrap_or_default();
            let media = media.split(';').next().unwrap();
            let known = documented["content"].as_object().is_some_and(|content| content.contains_key(media));
            assert!(known || media.is_empty(), "{}: {media} is not documented", operation.name());
            of_the_contract(&operation, &answer.headers, &status.to_string());
            for name in documented["headers"].as_object().unwrap().keys() {
                let there = answer.headers.contains_key(name.to_lowercase()) || name == "Deprecation";
                assert!(there, "{}: header {name} is documented and not there", operation.name());
            }
        } else if operation.refused() {
            refused(&operation, &answer, "SANDBOX::API_NOT_SUPPORTED", "which is not on this server");
        } else {
            // Here no pod has logs, and one pool can be deleted only once.
            let code = answer.code();
            let expected = ["KUBERNETES::POD_IP_NOT_AVAILABLE", "KUBERNETES::POOL_NOT_FOUND"];
            assert!(expected.contains(&code.as_str()), "{}: {code}: {}", operation.name(), answer.message());
            refused(&operation, &answer, &code, "here");
        }
        let _ = world.send(Method::DELETE, &format!("/v1/sandboxes/{id}"), None).await;
    }
}
