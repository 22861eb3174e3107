//! OpenAPI 3.1, made from the table of routes and the schemas of the wire types.

use std::collections::BTreeMap;

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
    let error = generator.subschema_for::<ErrorBody>();
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
            "responses": {
                "Error": {
                    "description": "A refusal or a failure.",
                    "headers": {"X-Request-ID": {"schema": {"type": "string"}}},
                    "content": {"application/json": {"schema": error}},
                },
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
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn parameters(route: &Route) -> Vec<Value> {
    let of_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        json!({"name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": {"type": "string"}})
    });
    let given = |place: &'static str| move |(name, description, schema): &Parameter| json!({"name": name, "in": place, "description": description, "schema": schema()});
    of_path.chain(route.query.iter().map(given("query"))).chain(route.headers.iter().map(given("header"))).collect()
}

/// Success, and per status the codes with their meaning and what to do.
fn responses(route: &Route, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut responses = Map::new();
    let (status, body) = route.success;
    if !route.errors.contains(&ErrorCode::NotSupported) || route.body.is_some() {
        let mut success = json!({"description": "Success."});
        if let Some(body) = body {
            success["content"] = json!({"application/json": {"schema": body(generator)}});
        }
        responses.insert(status.to_string(), success);
    }
    let of_every: &[ErrorCode] = if route.keyed {
        &[
            ErrorCode::MissingApiKey,
            ErrorCode::InvalidApiKey,
            ErrorCode::InsufficientScope,
            ErrorCode::KubernetesApiError,
            ErrorCode::Internal,
            ErrorCode::Overloaded,
            ErrorCode::RequestTimeout,
        ]
    } else {
        &[ErrorCode::Internal]
    };
    let of_body: &[ErrorCode] = if route.body.is_some() { &[ErrorCode::BodyTooLarge] } else { &[] };
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in route.errors.iter().chain(of_every).chain(of_body) {
        let line = format!("`{}`: {} {}", code.as_str(), code.meaning(), code.action());
        by_status.entry(code.status()).or_default().push(line);
    }
    for (status, lines) in by_status {
        let response = json!({"$ref": "#/components/responses/Error", "description": lines.join("\n\n")});
        responses.insert(status.to_string(), response);
    }
    responses
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
