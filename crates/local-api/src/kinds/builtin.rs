//! The table of built-in kinds.

use super::{Builtin, Resource, definitions};
use crate::schema::{Node, Schema};

struct Row {
    builtin: Builtin,
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    generations: bool,
    definition: &'static str,
}

const fn row(builtin: Builtin, plural: &'static str, kind: &'static str, definition: &'static str) -> Row {
    Row {
        builtin,
        group: "",
        plural,
        kind,
        short: &[],
        namespaced: true,
        status: false,
        generations: false,
        definition,
    }
}

const ROWS: [Row; 11] = [
    Row { short: &["cm"], ..row(Builtin::ConfigMap, "configmaps", "ConfigMap", "io.k8s.api.core.v1.ConfigMap") },
    Row { short: &["ev"], ..row(Builtin::Event, "events", "Event", "io.k8s.api.core.v1.Event") },
    Row {
        short: &["ns"],
        namespaced: false,
        status: true,
        ..row(Builtin::Namespace, "namespaces", "Namespace", "io.k8s.api.core.v1.Namespace")
    },
    Row {
        short: &["no"],
        namespaced: false,
        status: true,
        ..row(Builtin::Node, "nodes", "Node", "io.k8s.api.core.v1.Node")
    },
    Row {
        short: &["po"],
        status: true,
        generations: true,
        ..row(Builtin::Pod, "pods", "Pod", "io.k8s.api.core.v1.Pod")
    },
    row(Builtin::Secret, "secrets", "Secret", "io.k8s.api.core.v1.Secret"),
    Row {
        short: &["sa"],
        ..row(Builtin::ServiceAccount, "serviceaccounts", "ServiceAccount", "io.k8s.api.core.v1.ServiceAccount")
    },
    Row { short: &["svc"], status: true, ..row(Builtin::Service, "services", "Service", "io.k8s.api.core.v1.Service") },
    Row {
        group: "apiextensions.k8s.io",
        short: &["crd", "crds"],
        namespaced: false,
        status: true,
        generations: true,
        ..row(
            Builtin::Definition,
            "customresourcedefinitions",
            "CustomResourceDefinition",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        )
    },
    Row { group: "coordination.k8s.io", ..row(Builtin::Lease, "leases", "Lease", "io.k8s.api.coordination.v1.Lease") },
    Row {
        group: "events.k8s.io",
        short: &["ev"],
        ..row(Builtin::Event, "events", "Event", "io.k8s.api.events.v1.Event")
    },
];

/// The built-in resources.
pub fn builtins() -> Vec<Resource> {
    ROWS.iter()
        .map(|row| {
            // Events of both groups are the same objects.
            let storage_group = if row.builtin == Builtin::Event { "" } else { row.group };
            let storage_api_version =
                if storage_group.is_empty() { "v1".into() } else { format!("{storage_group}/v1") };
            let table = if storage_group.is_empty() {
                row.plural.to_owned()
            } else {
                format!("{}.{storage_group}", row.plural)
            };
            Resource {
                group: row.group.into(),
                version: "v1".into(),
                plural: row.plural.into(),
                singular: row.kind.to_lowercase(),
                kind: row.kind.into(),
                list_kind: format!("{}List", row.kind),
                short_names: row.short.iter().map(|s| (*s).into()).collect(),
                categories: match row.builtin {
                    Builtin::Pod | Builtin::Service => vec!["all".into()],
                    Builtin::Definition => vec!["api-extensions".into()],
                    _ => Vec::new(),
                },
                namespaced: row.namespaced,
                has_status: row.status,
                counts_generations: row.generations,
                table: table.into(),
                storage_api_version,
                schema: Schema {
                    root: Node { reference: Some(row.definition.into()), ..Node::default() },
                    defs: definitions(),
                },
                storage_schema: None,
                columns: Vec::new(),
                selectable: Vec::new(),
                scale: None,
                deprecation: None,
                builtin: Some(row.builtin),
            }
        })
        .collect()
}
