//! `PATCH`: by JSON patch, merge patch, strategic merge patch or server-side apply.

use serde_json::Value;

use super::{Answer, Outcome, Target, WriteOptions, decode, update};
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
use crate::object;
use crate::patch::managed::Source;
use crate::patch::{apply, strategic};

/// The kinds of patch, by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// The kind that a content type names.
    pub(crate) fn of(content_type: &str, target: &Target) -> Result<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let custom = target.resource.is_custom();
        match kind {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if !custom => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => {
                let strategic = if custom { "" } else { "application/strategic-merge-patch+json, " };
                Err(ApiError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, {strategic}application/apply-patch+yaml"
                )))
            }
        }
    }
}

/// Most operations that one JSON patch may hold.
const MAX_OPERATIONS: usize = 10_000;

/// Changes an object by a patch; an apply also creates it.
pub(crate) fn patch(core: &Core, target: &Target, kind: PatchKind, body: &[u8], options: &WriteOptions) -> Answer {
    let mut warnings = Vec::new();
    let object = match kind {
        PatchKind::Apply => return apply::apply(core, target, body, options),
        PatchKind::Json => {
            let list = serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(body);
            list.map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            let operations: json_patch::Patch = serde_json::from_slice(body).map_err(|e| {
                let message = format!("the server rejected our request due to an error in our request: {e}");
                ApiError::new(422, "Invalid", message)
            })?;
            if operations.0.len() > MAX_OPERATIONS {
                let why = format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    operations.0.len()
                );
                return Err(ApiError::new(413, "RequestEntityTooLarge", why));
            }
            change(core, target, options, &mut warnings, |object| {
                json_patch::patch(object, &operations).map_err(|e| {
                    let message = format!("the server rejected our request due to an error in our request: {e}");
                    ApiError::new(422, "Invalid", message)
                })
            })?
        }
        PatchKind::Merge => {
            let patch = object_body(body)?;
            change(core, target, options, &mut warnings, |object| {
                json_patch::merge(object, &patch);
                Ok(())
            })?
        }
        PatchKind::Strategic => {
            let patch = object_body(body)?;
            let schema = &target.resource.schema;
            change(core, target, options, &mut warnings, |object| {
                strategic::merge(object, &patch, Some(&schema.root), &schema.defs)
            })?
        }
    };
    Ok(Outcome { object, created: false, warnings })
}

fn object_body(body: &[u8]) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(ApiError::bad_request("error decoding patch: the patch must be a JSON object"))
}

fn change(
    core: &Core,
    target: &Target,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    edit: impl Fn(&mut Value) -> Result<()>,
) -> Result<std::sync::Arc<crate::store::Stored>> {
    update::modify(core, target, options, &Source::Update, |old| {
        let served = crate::events::from_storage(old, &target.resource);
        let mut new = served.unwrap_or_else(|| old.clone());
        edit(&mut new)?;
        let uid = object::meta_str(&new, "uid");
        if !uid.is_empty() && uid != object::uid(old) {
            let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
            let resource = &target.resource;
            return Err(ApiError::invalid(&resource.group, &resource.kind, &target.name, vec![cause]));
        }
        *warnings = decode::admit(&mut new, target, options)?;
        if object::name(&new).is_empty() {
            object::meta_mut(&mut new).insert("name".into(), target.name.clone().into());
        }
        Ok(new)
    })
}
