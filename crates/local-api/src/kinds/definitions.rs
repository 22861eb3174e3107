//! The schemas of the built-in kinds, generated from the types of `k8s-openapi` and marked with what those leave out.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{coordination, core, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::marks;
use crate::schema::{Defs, compile};

static TEXTS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let settings = SchemaSettings::openapi3().with(|s| s.meta_schema = None);
    let mut generator = settings.into_generator();
    let _ = generator.subschema_for::<core::v1::ConfigMap>();
    let _ = generator.subschema_for::<core::v1::Event>();
    let _ = generator.subschema_for::<core::v1::Namespace>();
    let _ = generator.subschema_for::<core::v1::Node>();
    let _ = generator.subschema_for::<core::v1::Pod>();
    let _ = generator.subschema_for::<core::v1::Binding>();
    let _ = generator.subschema_for::<core::v1::Secret>();
    let _ = generator.subschema_for::<core::v1::Service>();
    let _ = generator.subschema_for::<core::v1::ServiceAccount>();
    let _ = generator.subschema_for::<coordination::v1::Lease>();
    let _ = generator.subschema_for::<events::v1::Event>();
    let _ = generator.subschema_for::<apiextensions::v1::CustomResourceDefinition>();
    let mut texts = generator.take_definitions(false);
    for (name, schema) in &mut texts {
        // Types that Go decodes by hand: any JSON goes in.
        let short = name.rsplit('.').next().unwrap_or_default();
        if short == "FieldsV1" || short == "JSON" || short.starts_with("JSONSchemaPropsOr") {
            *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
        }
    }
    marks::apply(&mut texts);
    texts
});

static DEFINITIONS: LazyLock<Arc<Defs>> = LazyLock::new(|| {
    let nodes = TEXTS.iter().filter_map(|(name, schema)| match compile(schema) {
        Ok(node) => Some((name.clone(), node)),
        Err(error) => {
            tracing::error!(name, %error, "a built-in schema does not compile");
            None
        }
    });
    Arc::new(Defs(nodes.collect()))
});

/// The schemas as JSON, for OpenAPI.
pub fn definition_texts() -> &'static Map<String, Value> {
    &TEXTS
}

/// The schemas as the server uses them.
pub fn definitions() -> Arc<Defs> {
    DEFINITIONS.clone()
}
