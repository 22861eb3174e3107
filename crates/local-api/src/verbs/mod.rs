//! The verbs on objects. They neither wait nor know HTTP.

pub(crate) mod create;
pub(crate) mod data;
pub(crate) mod decode;
pub(crate) mod delete;
pub(crate) mod duplicates;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod names;
pub(crate) mod patch;
pub(crate) mod prepare;
pub(crate) mod scale;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use crate::error::{ApiError, Result};
use crate::kinds::Resource;
use crate::store::{Key, Stored};

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Namespace of the path; empty for cluster-wide objects and for all namespaces.
    pub(crate) namespace: String,
    /// Name of the path; empty for collections.
    pub(crate) name: String,
    pub(crate) subresource: Option<String>,
}

impl Target {
    pub(crate) fn new(resource: Arc<Resource>, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into(), subresource: None }
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(&self.resource.table, &self.namespace, &self.name)
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub(crate) fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    pub(crate) fn modified(&self) -> ApiError {
        ApiError::modified(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub(crate) fn is_status(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }
}

/// What becomes of fields nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning header.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// The query of a write.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Fields that the body has twice.
    pub(crate) duplicates: Vec<String>,
    /// Who owns what is written.
    pub(crate) manager: String,
    /// An apply takes what others own.
    pub(crate) force: bool,
}

/// What a write came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) object: Arc<Stored>,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

/// How often a write without a version of its own is tried again when others are faster.
pub(crate) const ATTEMPTS: usize = 64;

/// A write that lost every race; the caller shall come again.
pub(crate) fn lost_every_race(target: &Target) -> ApiError {
    target.modified()
}

pub(crate) type Answer = Result<Outcome>;
