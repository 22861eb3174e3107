//! The BatchSandbox that a create writes: pure.

use std::collections::BTreeMap;

use api_types::crd::{BatchSandbox, BatchSandboxSpec, ClaimSpec, Raw};
use api_types::names::{annotations, finalizers, labels};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::validate::{Create, Source};
use super::{side, template};
use crate::config::Config;

/// Annotation: SHA-256 of the request that an idempotency key came with.
pub const ANNOTATION_REQUEST_HASH: &str = "opensandbox.io/request-hash";
/// Annotation: platform that was asked for, as `os/arch`.
pub const ANNOTATION_PLATFORM: &str = "opensandbox.io/platform";

/// Builds the object. `request_hash` is there with an idempotency key.
pub fn build(id: &str, create: &Create, now: Timestamp, config: &Config, request_hash: Option<&str>) -> BatchSandbox {
    let mut labels = create.metadata.clone();
    labels.insert(labels::SANDBOX_ID.to_owned(), id.to_owned());
    if let Some(tenant) = &create.tenant {
        labels.insert(labels::TENANT.to_owned(), tenant.clone());
    }
    if create.timeout.is_none() {
        labels.insert(labels::MANUAL_CLEANUP.to_owned(), "true".to_owned());
    }
    let mut notes = create.annotations.clone();
    notes.insert(annotations::ENTRYPOINT.to_owned(), serde_json::Value::from(create.entrypoint.clone()).to_string());
    if let Some(hash) = request_hash {
        notes.insert(ANNOTATION_REQUEST_HASH.to_owned(), hash.to_owned());
    }
    if let Some(platform) = &create.platform {
        notes.insert(ANNOTATION_PLATFORM.to_owned(), format!("{}/{}", platform.os, platform.arch));
    }
    let mut claim = ClaimSpec { env: create.env.clone(), entrypoint: Vec::new() };
    let mut spec = BatchSandboxSpec {
        replicas: 1,
        expire_time: create.timeout.and_then(|t| expiry(now, t)).map(Time),
        task_resource_policy_when_completed: "Retain".to_owned(),
        ..BatchSandboxSpec::default()
    };
    let mut held_by = None;
    match &create.source {
        Source::Pool(pool) => {
            claim.entrypoint = create.entrypoint.clone();
            spec.pool_ref = Some(pool.clone());
            // Durable before the first grant: the object can't go before its pod is given back.
            held_by = Some(vec![finalizers::POOL_ALLOCATION.to_owned()]);
        }
        Source::Image(image) => {
            notes.insert(annotations::IMAGE.to_owned(), image.uri.clone());
            // The entrypoint is the container's command; the claim must not start it again.
            spec.template = Some(Raw(template::build(id, image, create, &labels, config)));
        }
    }
    spec.claim = Some(claim);
    if side::needed(create) {
        // What it needs is made first, with this object as its owner.
        spec.replicas = 0;
    }
    let mut object = BatchSandbox::new(id, spec);
    object.metadata = ObjectMeta {
        name: Some(id.to_owned()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from_iter(notes)),
        finalizers: held_by,
        ..ObjectMeta::default()
    };
    object
}

/// When a sandbox ends. Kubernetes keeps whole seconds; a part of one is the caller's.
pub fn expiry(now: Timestamp, seconds: i64) -> Option<Timestamp> {
    whole_second_after(now.checked_add(SignedDuration::from_secs(seconds)).ok()?)
}

/// A time, or the next whole second.
pub fn whole_second_after(time: Timestamp) -> Option<Timestamp> {
    let second = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(second).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandboxes::validate::check;

    fn build_from(body: serde_json::Value) -> serde_json::Value {
        let create = check(&serde_json::from_value(body).unwrap(), &Config::default()).unwrap();
        let now: Timestamp = "2026-11-23T10:00:00.5Z".parse().unwrap();
        serde_json::to_value(build("the-id", &create, now, &Config::default(), None)).unwrap()
    }

    #[test]
    fn from_a_pool() {
        let object = build_from(json!({
            "image": {"uri": "ignored"}, "entrypoint": ["sleep", "1"], "env": {"A": "1"}, "timeout": 60,
            "metadata": {"team": "x"}, "extensions": {"poolRef": "p"}
        }));
        assert_eq!(
            object["metadata"],
            json!({
                "annotations": {"opensandbox.io/entrypoint": "[\"sleep\",\"1\"]"},
                "finalizers": ["pool.sandbox.opensandbox.io/pool-allocation"],
                "labels": {"opensandbox.io/id": "the-id", "team": "x"},
                "name": "the-id"
            })
        );
        assert_eq!(
            object["spec"],
            json!({
                "replicas": 1, "poolRef": "p", "expireTime": "2026-11-23T10:01:01Z",
                "taskResourcePolicyWhenCompleted": "Retain",
                "claim": {"env": {"A": "1"}, "entrypoint": ["sleep", "1"]}
            })
        );
    }

    #[test]
    fn from_an_image_the_command_is_in_the_template_and_not_in_the_claim() {
        let object = build_from(json!({"image": {"uri": "img"}, "entrypoint": ["a"], "env": {"A": "1"}}));
        assert_eq!(object["metadata"]["labels"]["opensandbox.io/manual-cleanup"], "true");
        assert_eq!(object["metadata"]["annotations"]["opensandbox.io/image"], "img");
        assert_eq!(object["metadata"].get("finalizers"), None);
        assert_eq!(object["spec"]["claim"], json!({"env": {"A": "1"}}));
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "img");
        assert_eq!(object["spec"].get("expireTime"), None);
    }
}
