//! The resources that are served: the built-in ones and those that CRDs bring.

mod builtin;
mod definitions;
mod marks;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::schema::Schema;
use crate::store::Table;

pub use builtin::builtins;
pub use definitions::{definition_texts, definitions};

/// Kinds whose rules are written in code rather than in a CRD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `v1/Namespace`
    Namespace,
    /// `v1/Pod`
    Pod,
    /// `v1/ConfigMap`
    ConfigMap,
    /// `v1/Secret`
    Secret,
    /// `v1/Event` and `events.k8s.io/v1/Event`
    Event,
    /// `v1/ServiceAccount`
    ServiceAccount,
    /// `v1/Node`
    Node,
    /// `v1/Service`
    Service,
    /// `coordination.k8s.io/v1/Lease`
    Lease,
    /// `apiextensions.k8s.io/v1/CustomResourceDefinition`
    Definition,
}

/// A column of `kubectl get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `date`, ...
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i64,
    /// JSON path of the value, for columns of CRDs.
    pub json_path: String,
}

/// Where the numbers of `/scale` stand in an object; dotted paths, the last may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec: String,
    /// Counted replicas.
    pub status: String,
    /// Selector of the pods, as text.
    pub selector: String,
}

/// One served resource in one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` is served, and `status` guarded on the main path.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub counts_generations: bool,
    /// Where its objects are stored.
    pub table: Table,
    /// `apiVersion` in which objects are stored.
    pub storage_api_version: String,
    /// Schema of the objects.
    pub schema: Schema,
    /// Schema of the version in which objects are stored, where that is another.
    pub storage_schema: Option<Schema>,
    /// Columns of its tables; empty means name and age.
    pub columns: Vec<Column>,
    /// JSON paths that field selectors may name, for custom resources.
    pub selectable: Vec<String>,
    /// Where `/scale` finds its numbers, when it is served.
    pub scale: Option<ScalePaths>,
    /// What answers of a deprecated version warn of.
    pub deprecation: Option<String>,
    /// Rules in code; `None` for custom resources.
    pub builtin: Option<Builtin>,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it came by a CRD.
    pub fn is_custom(&self) -> bool {
        self.builtin.is_none()
    }

    /// Whether it is `builtin`.
    pub fn is(&self, builtin: Builtin) -> bool {
        self.builtin == Some(builtin)
    }

    /// Subresources under an object.
    pub fn subresources(&self) -> Vec<&'static str> {
        let mut list = Vec::new();
        if self.has_status {
            list.push("status");
        }
        if self.scale.is_some() {
            list.push("scale");
        }
        match self.builtin {
            Some(Builtin::Pod) => list.extend(["log", "exec", "attach", "portforward", "binding", "eviction"]),
            Some(Builtin::Namespace) => list.push("finalize"),
            _ => {}
        }
        list
    }
}

/// What is served now.
#[derive(Default)]
pub struct Registry {
    resources: RwLock<BTreeMap<(String, String, String), Arc<Resource>>>,
}

impl Registry {
    /// A registry of the built-in kinds.
    pub fn new() -> Self {
        let registry = Self::default();
        for resource in builtins() {
            registry.add(resource);
        }
        registry
    }

    /// Serves a resource, or replaces it.
    pub fn add(&self, resource: Resource) {
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.resources.write().insert(key, Arc::new(resource));
    }

    /// Stops serving every version of a resource, except those named.
    pub fn remove(&self, group: &str, plural: &str, keep: &[&str]) {
        self.resources.write().retain(|(g, v, p), _| g != group || p != plural || keep.contains(&v.as_str()));
    }

    /// One resource.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.read().get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// Some version of the resource stored in `table`, that of storage first.
    pub fn by_table(&self, table: &str) -> Option<Arc<Resource>> {
        let resources = self.resources.read();
        let mut found = resources.values().filter(|r| &*r.table == table);
        let first = found.next()?;
        if first.storage_api_version == first.api_version() {
            return Some(first.clone());
        }
        Some(found.find(|r| r.storage_api_version == r.api_version()).unwrap_or(first).clone())
    }

    /// Whether a group and version has any resource.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.resources.read().keys().any(|(g, v, _)| g == group && v == version)
    }

    /// All, in the order of group, version, plural.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.resources.read().values().cloned().collect()
    }
}
