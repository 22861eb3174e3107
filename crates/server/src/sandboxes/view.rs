//! A BatchSandbox as the lifecycle API shows it: pure.

use std::collections::BTreeMap;

use api_types::crd::BatchSandbox;
use api_types::ids::SandboxId;
use api_types::lifecycle::{AllocationSummary, EXTENSION_ECHO_PREFIX, ImageSpec, Platform, Sandbox};
use api_types::names::{annotations, labels};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::object::ANNOTATION_PLATFORM;
use super::state::{claimed, status};

/// The sandbox.
pub fn sandbox(object: &BatchSandbox) -> Sandbox {
    Sandbox {
        id: SandboxId::new(object.name_any()),
        status: status(object),
        created_at: created_at(object),
        entrypoint: entrypoint(object),
        image: image(object),
        snapshot_id: None,
        metadata: some(metadata(object)),
        extensions: some(extensions(object)),
        platform: platform(object),
        expires_at: object.spec.expire_time.as_ref().map(|t| t.0),
        allocation: allocation(object),
    }
}

/// When it was made.
pub fn created_at(object: &BatchSandbox) -> Timestamp {
    object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn annotation<'a>(object: &'a BatchSandbox, key: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// What was asked for at create.
pub fn entrypoint(object: &BatchSandbox) -> Vec<String> {
    annotation(object, annotations::ENTRYPOINT).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// `unknown` for a pool's own image, as OpenSandbox 1.1.1 says.
fn image(object: &BatchSandbox) -> Option<ImageSpec> {
    let uri = annotation(object, annotations::IMAGE).unwrap_or("unknown");
    Some(ImageSpec { uri: uri.to_owned(), auth: None })
}

/// Labels of the caller.
pub fn metadata(object: &BatchSandbox) -> BTreeMap<String, String> {
    let all = object.metadata.labels.iter().flatten();
    all.filter(|(k, _)| !k.starts_with(labels::RESERVED_PREFIX)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Stored extensions, under the names they came with.
pub fn extensions(object: &BatchSandbox) -> BTreeMap<String, String> {
    let all = object.metadata.annotations.iter().flatten();
    all.filter_map(|(k, v)| {
        k.strip_prefix(annotations::EXTENSIONS_PREFIX)
            .map(|suffix| (format!("{EXTENSION_ECHO_PREFIX}{suffix}"), v.clone()))
    })
    .collect()
}

/// Platform that was asked for.
pub fn platform(object: &BatchSandbox) -> Option<Platform> {
    let (os, arch) = annotation(object, ANNOTATION_PLATFORM)?.split_once('/')?;
    Some(Platform { os: os.to_owned(), arch: arch.to_owned() })
}

/// Shown only while a pod of the pool is held for certain.
fn allocation(object: &BatchSandbox) -> Option<AllocationSummary> {
    let pool = object.spec.pool_ref.as_deref().filter(|p| !p.is_empty() && *p != "*")?;
    if object.metadata.deletion_timestamp.is_some() || claimed(object).is_none() {
        return None;
    }
    Some(AllocationSummary { mode: "pool".to_owned(), pool_ref: pool.to_owned(), state: "allocated".to_owned() })
}

/// An empty map is left out of answers.
pub fn some<K, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandboxes::state::tests::object;

    #[test]
    fn nothing_is_null_and_what_parsers_need_is_there() {
        let seen = serde_json::to_value(sandbox(&object(serde_json::Value::Null))).unwrap();
        assert_eq!(
            seen,
            json!({
                "id": "s", "createdAt": "2026-11-23T10:00:00Z", "entrypoint": [], "image": {"uri": "unknown"},
                "status": {"state": "Pending", "reason": "CREATING", "message": "Sandbox is being created",
                           "lastTransitionAt": "2026-11-23T10:00:00Z"}
            })
        );
    }

    #[test]
    fn labels_and_annotations_come_back_as_they_were_given() {
        let mut held = object(json!({"replicas": 1, "phase": "Succeed", "grants": [
            {"index": 0, "pod": "a", "podUID": "u", "podIP": "10.0.0.1", "epoch": 1, "state": "Claimed"}]}));
        held.metadata.labels = Some([("opensandbox.io/id".into(), "s".into()), ("team".into(), "x".into())].into());
        held.metadata.annotations = Some(
            [
                ("opensandbox.io/extensions.a".into(), "1".into()),
                ("opensandbox.io/entrypoint".into(), "[\"x\"]".into()),
            ]
            .into(),
        );
        let seen = sandbox(&held);
        assert_eq!(seen.metadata.unwrap(), BTreeMap::from([("team".to_owned(), "x".to_owned())]));
        assert_eq!(seen.extensions.unwrap()["opensandbox.extensions.a"], "1");
        assert_eq!(seen.entrypoint, ["x"]);
        assert_eq!(seen.allocation.unwrap().pool_ref, "p");
    }
}
