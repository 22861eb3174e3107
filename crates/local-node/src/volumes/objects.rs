//! Where ConfigMaps and Secrets come from, and what is told when they are not there.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, FileKeySelector, Secret};

/// An object's keys and values.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Reads the objects that a pod's environment and volumes refer to.
#[async_trait]
pub trait ObjectSource: Send + Sync {
    /// The ConfigMap, or `None` when there is none of this name.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ObjectError>;
    /// The Secret, or `None` when there is none of this name.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ObjectError>;
}

/// Why something that a pod refers to cannot be had. The text is what Kubernetes shows in events and states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The object does not exist.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key.
        key: String,
    },
    /// A file of a volume is missing, or has no such variable.
    #[error("couldn't find key {key} in file {path} of volume {volume}")]
    NoVariable {
        /// The variable.
        key: String,
        /// Path in the volume.
        path: String,
        /// The volume.
        volume: String,
    },
    /// The API could not be asked.
    #[error("cannot read {kind} {name:?}: {reason}")]
    Fetch {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// What the API said.
        reason: String,
    },
}

/// The kind of an object that holds keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// ConfigMap.
    ConfigMap,
    /// Secret.
    Secret,
}

impl ObjectKind {
    fn lower(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// The data of every object that a pod refers to, read once; `None` marks one that does not exist.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    namespace: String,
    data: BTreeMap<(ObjectKind, String), Option<Data>>,
    /// Variables of files, by volume and path.
    files: BTreeMap<(String, String), BTreeMap<String, String>>,
}

impl Objects {
    /// No objects yet, all of one namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), data: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Adds the variables of a file of a volume.
    pub fn insert_file(&mut self, volume: &str, path: &str, variables: BTreeMap<String, String>) {
        self.files.insert((volume.to_owned(), path.to_owned()), variables);
    }

    /// One variable of a file; `Ok(None)` when it is missing and may be.
    pub fn file_key(&self, of: &FileKeySelector) -> Result<Option<&str>, ObjectError> {
        let file = self.files.get(&(of.volume_name.clone(), of.path.clone()));
        match file.and_then(|variables| variables.get(&of.key)) {
            Some(value) => Ok(Some(value)),
            None if of.optional == Some(true) => Ok(None),
            None => Err(ObjectError::NoVariable {
                key: of.key.clone(),
                path: of.path.clone(),
                volume: of.volume_name.clone(),
            }),
        }
    }

    /// Adds an object's data, or that it does not exist.
    pub fn insert(&mut self, kind: ObjectKind, name: impl Into<String>, data: Option<Data>) {
        self.data.insert((kind, name.into()), data);
    }

    /// Reads the object unless it has been read already.
    pub async fn fetch(&mut self, source: &dyn ObjectSource, kind: ObjectKind, name: &str) -> Result<(), ObjectError> {
        if self.data.contains_key(&(kind, name.to_owned())) {
            return Ok(());
        }
        let data = match kind {
            ObjectKind::ConfigMap => source.config_map(&self.namespace, name).await?.map(config_map_data),
            ObjectKind::Secret => source.secret(&self.namespace, name).await?.map(secret_data),
        };
        self.insert(kind, name, data);
        Ok(())
    }

    /// The object's keys; `Ok(None)` when it is missing and may be.
    pub fn keys(&self, kind: ObjectKind, name: &str, optional: bool) -> Result<Option<&Data>, ObjectError> {
        match self.data.get(&(kind, name.to_owned())).and_then(Option::as_ref) {
            Some(data) => Ok(Some(data)),
            None if optional => Ok(None),
            None => Err(ObjectError::NotFound { kind: kind.lower(), name: name.to_owned() }),
        }
    }

    /// One key of an object; `Ok(None)` when it is missing and may be.
    pub fn key(&self, kind: ObjectKind, name: &str, key: &str, optional: bool) -> Result<Option<&[u8]>, ObjectError> {
        let Some(data) = self.keys(kind, name, optional)? else { return Ok(None) };
        match data.get(key) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(ObjectError::NoKey {
                kind: kind.title(),
                namespace: self.namespace.clone(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    }
}

/// A ConfigMap's keys, text and binary.
pub fn config_map_data(map: ConfigMap) -> Data {
    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

/// A Secret's keys; `stringData` wins, as the API server merges it.
pub fn secret_data(secret: Secret) -> Data {
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    let text = secret.string_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    data.chain(text).collect()
}
