//! OpenAPI, as far as kubectl needs it: `explain`, and whether the server checks fields itself.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::kinds::{Resource, definition_texts};

/// An empty document of version 2: kubectl reads version 3 and falls back to this only to find nothing.
pub(crate) fn v2() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": {},
        "definitions": {},
    })
}

/// The same in protobuf, the only form of version 2 that kubectl reads. It looks there for kinds that version 3 does not
/// describe, such as `List`, and skips what it does not find.
pub(crate) fn v2_protobuf() -> Vec<u8> {
    let text = |number: u8, text: &str| {
        let mut field = vec![number << 3 | 2, u8::try_from(text.len()).unwrap_or_default()];
        field.extend_from_slice(text.as_bytes());
        field
    };
    let info = [text(1, "Kubernetes"), text(2, "v1.36.0")].concat();
    let mut document = text(1, "2.0");
    document.extend_from_slice(&[2 << 3 | 2, u8::try_from(info.len()).unwrap_or_default()]);
    document.extend_from_slice(&info);
    document
}

fn path_of(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

/// The documents there are.
pub(crate) fn index(core: &Core) -> Value {
    let mut paths = Map::new();
    for resource in core.registry.all() {
        let path = path_of(&resource);
        let url = format!("/openapi/v3/{path}?hash={}", core.store.state().version());
        // The hash lets clients cache; schemas change only with definitions, so the built-in ones have a fixed one.
        let url = if resource.is_custom() { url } else { format!("/openapi/v3/{path}?hash=builtin") };
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document of one group and version.
pub(crate) fn document(core: &Core, path: &str) -> Result<Value> {
    let resources: Vec<_> = core.registry.all().into_iter().filter(|r| path_of(r) == path).collect();
    if resources.is_empty() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND.as_u16(),
            "NotFound",
            format!("no OpenAPI document for {path}"),
        ));
    }
    let mut paths = Map::new();
    let mut schemas = definition_texts().clone();
    for resource in &resources {
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let name = schema_name(resource);
        if resource.is_custom() {
            schemas.insert(name.clone(), custom_schema(core, resource));
        }
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        let base = if resource.namespaced {
            format!("/{path}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("/{path}/{}", resource.plural)
        };
        let answer = json!({"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}}});
        let operation = |action: &str, content: &[&str]| {
            let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
                .iter()
                .map(|p| json!({"name": p, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
                .collect();
            let content: Map<String, Value> =
                content.iter().map(|c| ((*c).to_owned(), json!({"schema": {"type": "object"}}))).collect();
            json!({
                "parameters": parameters, "requestBody": {"content": content, "required": true}, "responses": answer,
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
            })
        };
        let read = json!({"responses": answer, "x-kubernetes-action": "get", "x-kubernetes-group-version-kind": gvk});
        paths.insert(base.clone(), json!({"post": operation("post", &["application/json"])}));
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": read,
                "put": operation("put", &["application/json"]),
                "patch": operation("patch", &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]),
            }),
        );
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn schema_name(resource: &Resource) -> String {
    match &resource.schema.root.reference {
        Some(name) => name.clone(),
        None => {
            let reversed: Vec<&str> = resource.group.rsplit('.').collect();
            format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind)
        }
    }
}

/// A custom resource's schema as its definition says it, with the metadata every object has.
fn custom_schema(core: &Core, resource: &Resource) -> Value {
    let state = core.store.state();
    let definition = state.scan(crate::crd::TABLE, None).find(|o| crate::object::name(&o.value) == &*resource.table);
    let versions = definition.and_then(|o| crate::object::at(&o.value, "spec.versions")?.as_array());
    let mut schema = versions
        .and_then(|list| list.iter().find(|v| v.get("name").is_some_and(|n| *n == resource.version.as_str())))
        .and_then(|v| crate::object::at(v, "schema.openAPIV3Schema").cloned())
        .unwrap_or_else(|| json!({"type": "object"}));
    let properties = crate::object::child_mut(&mut schema, "properties");
    properties.insert("apiVersion".into(), json!({"type": "string", "description": "Version of the object's schema."}));
    properties.insert("kind".into(), json!({"type": "string", "description": "Kind of the object."}));
    properties.insert(
        "metadata".into(),
        json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}),
    );
    schema
}
