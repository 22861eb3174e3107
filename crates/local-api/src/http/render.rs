//! The forms in which objects are sent: as they are, as rows of a table, or their metadata alone.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::kinds::Resource;
use crate::object;
use crate::store::{Stored, encode};
use crate::table;
use crate::verbs::list::Listed;

/// What the caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rendering {
    /// Objects.
    Object,
    /// A table; rows carry their object's metadata, the object, or nothing.
    Table(Include),
    /// Metadata of the objects.
    Metadata,
}

/// What a table's rows carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Rendering {
    /// Chooses by the `Accept` header: the first alternative that is understood. JSON stands in for what is not.
    pub(crate) fn of(accept: &str, include: &str) -> Self {
        for alternative in accept.split(',') {
            let mut parts = alternative.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if media.contains("protobuf") || media.contains("cbor") {
                continue;
            }
            let mut form = "";
            let mut group = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => form = value,
                    Some(("g", value)) => group = value,
                    _ => {}
                }
            }
            return match (form, group) {
                ("Table", "meta.k8s.io") => Self::Table(match include {
                    "None" => Include::Nothing,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                }),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => Self::Metadata,
                _ => Self::Object,
            };
        }
        Self::Object
    }

    /// Refuses callers who take nothing that is served. Whoever takes protobuf gets JSON, which its content type says.
    pub(crate) fn check(accept: &str) -> Result<()> {
        const SERVED: [&str; 6] = [
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/cbor",
            "application/*",
            "*/*",
        ];
        let media = |alternative: &str| alternative.split(';').next().unwrap_or_default().trim().to_owned();
        // Objects, or one of the forms that a list may be turned into.
        let form = |alternative: &str| {
            let form = alternative.rsplit(';').find_map(|part| part.trim().strip_prefix("as="));
            form.is_none_or(|form| form == "Table" || form.starts_with("PartialObjectMetadata"))
        };
        if accept.is_empty() || accept.split(',').any(|a| SERVED.contains(&media(a).as_str()) && form(a)) {
            return Ok(());
        }
        let why = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        Err(ApiError::new(406, "NotAcceptable", why))
    }

    /// Whether events may be sent in the encoding that all watchers share.
    pub(crate) fn is_stored_form(self, resource: &Resource) -> bool {
        self == Self::Object && resource.api_version() == resource.storage_api_version
    }

    /// One object.
    pub(crate) fn one(self, resource: &Resource, stored: &Arc<Stored>, core: &Core) -> Bytes {
        match self {
            Self::Object => object_json(resource, stored),
            Self::Table(include) => {
                let row = row(resource, stored, include, core);
                encode(&table_of(resource, true, &object::meta_str(&stored.value, "resourceVersion").into(), vec![row]))
                    .into()
            }
            Self::Metadata => encode(&metadata(&stored.value)).into(),
        }
    }

    /// A collection.
    pub(crate) fn many(self, resource: &Resource, listed: &Listed, core: &Core) -> Bytes {
        let mut meta = json!({"resourceVersion": listed.version.to_string()});
        if resource.is_custom() && self == Self::Object {
            meta["continue"] = "".into();
        }
        if !listed.next.is_empty() {
            meta["continue"] = listed.next.clone().into();
            if let Some(remaining) = listed.remaining {
                meta["remainingItemCount"] = remaining.into();
            }
        }
        match self {
            Self::Object => {
                let size = listed.items.iter().map(|o| o.json().len() + 1).sum::<usize>();
                let mut out = Vec::with_capacity(size + 256);
                let kind = Value::from(resource.list_kind.as_str());
                let head = format!(
                    "{{\"kind\":{kind},\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                    resource.api_version()
                );
                out.extend_from_slice(head.as_bytes());
                // Kubernetes names the type of the items of a built-in list with the list alone.
                let typed = match resource.builtin {
                    Some(_) => {
                        format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", resource.api_version(), resource.kind)
                    }
                    None => "\0".to_owned(),
                };
                for (index, item) in listed.items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    let object = object_json(resource, item);
                    match object.strip_prefix(typed.as_bytes()) {
                        Some(rest) => {
                            out.push(b'{');
                            out.extend_from_slice(rest);
                        }
                        None => out.extend_from_slice(&object),
                    }
                }
                out.extend_from_slice(b"]}");
                out.into()
            }
            Self::Table(include) => {
                let rows = listed.items.iter().map(|o| row(resource, o, include, core)).collect();
                let mut table = table_of(resource, true, &Value::Null, rows);
                table["metadata"] = meta;
                encode(&table).into()
            }
            Self::Metadata => {
                let items: Vec<Value> = listed.items.iter().map(|o| metadata(&o.value)).collect();
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items});
                encode(&list).into()
            }
        }
    }

    /// The object of one watch event; only the first table has its columns described.
    pub(crate) fn event_object(self, resource: &Resource, stored: &Arc<Stored>, headed: bool, core: &Core) -> Bytes {
        match self {
            Self::Table(include) => {
                let row = row(resource, stored, include, core);
                let version = object::meta_str(&stored.value, "resourceVersion").into();
                encode(&table_of(resource, headed, &version, vec![row])).into()
            }
            other => other.one(resource, stored, core),
        }
    }

    /// The object of a bookmark.
    pub(crate) fn bookmark_object(self, object: Value) -> Value {
        match self {
            Self::Object => object,
            Self::Table(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": object}],
            }),
            Self::Metadata => metadata(&object),
        }
    }
}

fn object_json(resource: &Resource, stored: &Arc<Stored>) -> Bytes {
    match crate::events::from_storage(&stored.value, resource) {
        Some(other) => encode(&other).into(),
        None => stored.json().clone(),
    }
}

fn metadata(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object::meta(value)})
}

fn row(resource: &Resource, stored: &Arc<Stored>, include: Include, core: &Core) -> Value {
    let mut row = json!({"cells": table::cells(resource, &stored.value, core.clock.now())});
    match include {
        Include::Nothing => row["object"] = Value::Null,
        Include::Metadata => row["object"] = metadata(&stored.value),
        Include::Object => {
            row["object"] =
                crate::events::from_storage(&stored.value, resource).unwrap_or_else(|| stored.value.clone());
        }
    }
    row
}

fn table_of(resource: &Resource, headed: bool, version: &Value, rows: Vec<Value>) -> Value {
    let columns = if headed { table::definitions(resource) } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
        "columnDefinitions": columns, "rows": rows,
    })
}
