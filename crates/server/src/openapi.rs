//! OpenAPI 3.1, made from the table of routes and the schemas of the wire types.

use std::collections::{BTreeMap, HashSet};

use api_types::{ErrorBody, ErrorCode};
use axum::Json;
use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, header};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::routes::{Mount, Parameter, ROUTES, Route};

/// `GET /openapi.json`.
pub async fn handle() -> Json<Value> {
    static DOCUMENT: std::sync::LazyLock<Value> = std::sync::LazyLock::new(document);
    Json(DOCUMENT.clone())
}

/// `GET /docs`: the document as a page that needs nothing from elsewhere.
pub async fn page() -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
    let mut response = Html(include_str!("docs.html")).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for route in ROUTES {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Some(servers) = servers(route.mount) {
            path["servers"] = servers;
        }
        for verb in route.verbs {
            path[*verb] = operation(route, verb, &mut generator);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "OpenSandbox Lifecycle API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/v1"}, {"url": "/", "description": "The same routes without the version."}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": api_types::names::headers::API_KEY},
            },
        },
    })
}

fn servers(mount: Mount) -> Option<Value> {
    match mount {
        Mount::Both => None,
        Mount::Bare => Some(json!([{"url": "/"}])),
        Mount::Versioned => Some(json!([{"url": "/v1"}])),
    }
}

fn operation(route: &Route, verb: &str, generator: &mut SchemaGenerator) -> Value {
    let id = if route.verbs.len() == 1 { route.id.to_owned() } else { format!("{verb}{}", capital(route.id)) };
    let mut operation = json!({
        "operationId": id,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses(route, generator),
    });
    if route.keyed {
        operation["security"] = json!([{"apiKey": []}]);
    }
    if let Some(body) = route.body {
        let schema = body(generator);
        operation["requestBody"] = json!({"required": true, "description": format!("At most {} bytes.", route.body_bytes), "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn parameters(route: &Route) -> Vec<Value> {
    let of_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        let schema = match name {
            "port" => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": schema})
    });
    let given = |place: &'static str| move |(name, description, schema): &Parameter| json!({"name": name, "in": place, "description": description, "schema": schema()});
    of_path.chain(route.query.iter().map(given("query"))).chain(route.headers.iter().map(given("header"))).collect()
}

/// Success, and per status the codes with their meaning and what to do.
fn responses(route: &Route, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut responses = Map::new();
    if let Some((status, success)) = success(route, generator) {
        if let Some(also) = route.also {
            responses.insert(also.to_string(), success.clone());
        }
        responses.insert(status, success);
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in errors(route) {
        by_status.entry(code.status()).or_default().push(code);
    }
    for (status, codes) in by_status {
        responses.insert(status.to_string(), refusal(&codes, generator));
    }
    responses
}

/// Status and answer of success; what is always refused has none.
fn success(route: &Route, generator: &mut SchemaGenerator) -> Option<(String, Value)> {
    if route.errors == [ErrorCode::NotSupported] {
        return None;
    }
    if route.path.contains("/proxy/") {
        return Some(("default".to_owned(), json!({"description": "What the sandbox answers."})));
    }
    let (status, body) = route.success;
    let mut content = Map::new();
    if let Some(body) = body {
        content.insert("application/json".to_owned(), json!({"schema": body(generator)}));
    }
    for media in route.media {
        content.insert((*media).to_owned(), json!({"schema": {"type": "string"}}));
    }
    let mut success = json!({"description": "Success.", "headers": headers(route.answers)});
    if !content.is_empty() {
        success["content"] = Value::Object(content);
    }
    Some((status.to_string(), success))
}

/// Every code an operation may be refused with.
fn errors(route: &Route) -> impl Iterator<Item = ErrorCode> {
    // The proxy is not held to a rate.
    let not_here = route.path.contains("/proxy/").then_some(ErrorCode::RateLimited);
    let of_every: &[ErrorCode] = if route.keyed {
        &[
            ErrorCode::MissingApiKey,
            ErrorCode::InvalidApiKey,
            ErrorCode::InsufficientScope,
            ErrorCode::KubernetesApiError,
            ErrorCode::Internal,
            ErrorCode::RateLimited,
            ErrorCode::Overloaded,
            ErrorCode::TenantProviderUnavailable,
            ErrorCode::RequestTimeout,
        ]
    } else {
        &[ErrorCode::Internal]
    };
    let of_body: &[ErrorCode] =
        if route.body.is_some() { &[ErrorCode::InvalidRequest, ErrorCode::BodyTooLarge] } else { &[] };
    // The proxy passes a path on as it is.
    let read = route.path.contains('{') && !route.path.contains("/proxy/");
    let of_path: &[ErrorCode] = if read { &[ErrorCode::InvalidRequest] } else { &[] };
    let mut met = HashSet::new();
    let all = route.errors.iter().chain(of_every).chain(of_body).chain(of_path).copied();
    all.filter(move |code| Some(*code) != not_here && met.insert(*code))
}

/// An answer of these codes, which have one status.
fn refusal(codes: &[ErrorCode], generator: &mut SchemaGenerator) -> Value {
    let line = |code: &ErrorCode| format!("`{}`: {} {}", code.as_str(), code.meaning(), code.action());
    let words: Vec<_> = codes.iter().map(line).collect();
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let mut schema = generator.subschema_for::<ErrorBody>();
    schema.insert("properties".to_owned(), json!({"code": {"enum": names}}));
    let own: &[Parameter] = if codes.iter().any(|code| MAY_HELP_LATER.contains(code)) { &[RETRY_AFTER] } else { &[] };
    json!({
        "description": words.join("\n\n"),
        "headers": headers(own),
        "content": {"application/json": {"schema": schema}},
    })
}

/// Codes that come with a `Retry-After` where the server knows when a retry may help.
const MAY_HELP_LATER: [ErrorCode; 5] = [
    ErrorCode::Overloaded,
    ErrorCode::RateLimited,
    ErrorCode::PoolCapacityExhausted,
    ErrorCode::InvalidState,
    ErrorCode::TenantProviderUnavailable,
];
const RETRY_AFTER: Parameter =
    ("Retry-After", "Seconds after which a retry may help.", || json!({"type": "integer", "minimum": 1}));
const REQUEST_ID: Parameter = (
    "X-Request-ID",
    "The request's own id, or a new one; the log has it too.",
    || json!({"type": "string", "minLength": 1, "maxLength": 128}),
);

fn headers(own: &[Parameter]) -> Map<String, Value> {
    let all = [REQUEST_ID].into_iter().chain(own.iter().copied());
    all.map(|(name, description, schema)| (name.to_owned(), json!({"description": description, "schema": schema()})))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_it_with_key_errors_and_a_unique_name() {
        let document = document();
        let mut names = HashSet::new();
        for route in ROUTES {
            let path = &document["paths"][route.path.replace("{*", "{")];
            for verb in route.verbs {
                let operation = &path[*verb];
                assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", route.path);
                assert_eq!(operation["security"].is_array(), route.keyed, "{}", route.path);
                assert!(operation["responses"]["500"].is_object(), "{}", route.path);
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let named = answer["headers"]["X-Request-ID"].is_object();
                    assert!(named || status == "default", "{} {status}", route.path);
                }
                for part in route.path.split('/').filter(|p| p.starts_with('{')) {
                    let name = part.trim_matches(['{', '}', '*']);
                    let parameters = operation["parameters"].as_array().unwrap();
                    assert!(parameters.iter().any(|p| p["name"] == name), "{} {name}", route.path);
                }
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(document: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(to)) = members.get("$ref") {
                        let pointer = to.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{to}");
                    }
                    members.values().for_each(|v| walk(document, v));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(document, v)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }
}
