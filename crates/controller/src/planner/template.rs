//! Pods out of templates, and the revision of a template.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::crd::{BatchSandbox, Pool, keyed_template};
use api_types::names::labels;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::merge;
use crate::world::Template;

/// Kubernetes: a generated pod name is cut so that it stays a DNS label, 63 letters.
const MAX_POD_NAME: usize = 63;

/// Reads a pool's template.
pub fn read(pool: &Pool) -> Template {
    let Some(raw) = &pool.spec.template else {
        return Template::Malformed("spec.template is missing".to_owned());
    };
    match parse(&raw.0, "spec.template") {
        Ok(template) => Template::Usable { template: Arc::new(template), revision: revision(&raw.0).into() },
        Err(message) => Template::Malformed(message),
    }
}

/// Reads a pod template; the error names the field.
pub fn parse(raw: &Value, field: &str) -> Result<PodTemplateSpec, String> {
    let template: PodTemplateSpec = serde_json::from_value(raw.clone()).map_err(|e| format!("{field}: {e}"))?;
    match &template.spec {
        None => Err(format!("{field}.spec is missing")),
        Some(spec) if spec.containers.is_empty() => Err(format!("{field}.spec.containers is empty")),
        Some(_) => Ok(template),
    }
}

/// Revision of a template: 16 hex digits that do not depend on the order of members.
pub fn revision(template: &Value) -> String {
    fn canonical(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Object(members) => {
                let sorted: BTreeMap<&String, &Value> = members.iter().filter(|(_, v)| !v.is_null()).collect();
                out.push(b'{');
                for (name, member) in sorted {
                    out.extend_from_slice(Value::String(name.clone()).to_string().as_bytes());
                    out.push(b':');
                    canonical(member, out);
                    out.push(b',');
                }
                out.push(b'}');
            }
            Value::Array(elements) => {
                out.push(b'[');
                for element in elements {
                    canonical(element, out);
                    out.push(b',');
                }
                out.push(b']');
            }
            plain => out.extend_from_slice(plain.to_string().as_bytes()),
        }
    }
    let mut text = Vec::new();
    canonical(template, &mut text);
    Sha256::digest(&text).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// The pod of a pool under a name that nobody else has.
pub fn pool_pod(pool: &Pool, template: &PodTemplateSpec, revision: &str, suffix: &str, daemon_key: &str) -> Pod {
    let prefix = format!("{}-", pool.name_any());
    let keep = prefix.len().min(MAX_POD_NAME.saturating_sub(suffix.len()));
    let mut pod = from_template(template, daemon_key);
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}{suffix}", &prefix[..keep]));
    meta.generate_name = Some(prefix);
    meta.namespace = pool.namespace();
    meta.owner_references = owner(pool);
    let labels = meta.labels.get_or_insert_default();
    labels.remove(labels::CLAIMED_BY);
    labels.insert(labels::POOL_NAME.to_owned(), pool.name_any());
    labels.insert(labels::POOL_REVISION.to_owned(), revision.to_owned());
    pod
}

/// The pod of index `index` of a BatchSandbox that makes its own.
pub fn batch_pod(
    batch: &BatchSandbox,
    template: &PodTemplateSpec,
    index: i32,
    daemon_key: &str,
) -> Result<Pod, String> {
    let mut pod =
        Pod { metadata: template.metadata.clone().unwrap_or_default(), spec: template.spec.clone(), status: None };
    let patch = usize::try_from(index).ok().and_then(|i| batch.spec.shard_patches.as_ref()?.get(i));
    if let Some(patch) = patch {
        let field = format!("spec.shardPatches[{index}]");
        let mut value = serde_json::to_value(&pod).map_err(|e| format!("{field}: {e}"))?;
        merge::strategic(&mut value, &patch.0);
        pod = serde_json::from_value(value).map_err(|e| format!("{field}: {e}"))?;
    }
    let patched = PodTemplateSpec { metadata: Some(pod.metadata), spec: pod.spec };
    let mut pod = from_template(&patched, daemon_key);
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{index}", batch.name_any()));
    meta.generate_name = None;
    meta.namespace = batch.namespace();
    meta.owner_references = owner(batch);
    let labels = meta.labels.get_or_insert_default();
    labels.insert(labels::BATCH_NAME.to_owned(), batch.name_any());
    labels.insert(labels::POD_INDEX.to_owned(), index.to_string());
    Ok(pod)
}

/// The owner's deletion waits for its pods, and takes them along.
fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<Vec<OwnerReference>> {
    let owner = object.controller_owner_ref(&())?;
    Some(vec![OwnerReference { block_owner_deletion: Some(true), ..owner }])
}

fn from_template(template: &PodTemplateSpec, daemon_key: &str) -> Pod {
    let wanted = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone().unwrap_or_default();
    keyed_template(&mut spec, daemon_key);
    // The sandbox's code must not be handed a way into the cluster that nobody asked for.
    spec.automount_service_account_token.get_or_insert(false);
    Pod {
        metadata: ObjectMeta {
            labels: wanted.labels,
            annotations: wanted.annotations,
            finalizers: wanted.finalizers,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use api_types::crd::PoolSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_does_not_depend_on_the_order_of_members() {
        let a = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "hostNetwork": false}});
        let b = json!({"spec": {"hostNetwork": false, "containers": [{"image": "i", "name": "c"}]}});
        let c = json!({"spec": {"hostNetwork": false, "containers": [{"image": "j", "name": "c"}]}});
        assert_eq!(revision(&a), revision(&b));
        assert_ne!(revision(&a), revision(&c));
        assert_eq!(revision(&a).len(), 16);
    }

    #[test]
    fn a_new_controller_does_not_change_revisions() {
        let template = json!({"metadata": {"labels": {"app": "sandbox"}}, "spec": {"containers": [
            {"name": "main", "image": "nginx:latest", "env": [{"name": "A", "value": "b"}]}]}});
        // Written down: what a controller adds to pods, and how it reads templates, is no part of it.
        assert_eq!(revision(&template), "ade6d75528269f14");
    }

    #[test]
    fn a_pool_pod_carries_what_it_must() {
        let mut pool = Pool::new("p", PoolSpec::default());
        pool.metadata.uid = Some("pool-uid".into());
        pool.metadata.namespace = Some("d".into());
        let template = parse(
            &json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 44772}]}]}}),
            "spec.template",
        )
        .unwrap();
        let pod = pool_pod(&pool, &template, "rev", "abc", "the-key");
        assert_eq!(pod.metadata.name.as_deref(), Some("p-abc"));
        assert_eq!(pod.labels()["x"], "y");
        assert_eq!(pod.labels()[labels::POOL_REVISION], "rev");
        let owner = &pod.owner_references()[0];
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert!(spec.containers[0].env.as_ref().unwrap().iter().any(|e| e.value.as_deref() == Some("the-key")));
    }

    #[test]
    fn what_is_wrong_in_a_template_is_named() {
        let error = parse(&json!({"spec": {"containers": [{"name": 3}]}}), "spec.template").unwrap_err();
        assert!(error.starts_with("spec.template: "), "{error}");
        assert!(parse(&json!({"spec": {"containers": []}}), "spec.template").is_err());
    }

    #[test]
    fn a_shard_patch_changes_its_pod_only() {
        let spec = serde_json::from_value(json!({"replicas": 2, "shardPatches": [
            {"spec": {"containers": [{"name": "c", "command": ["other"]}]}}]}))
        .unwrap();
        let batch = BatchSandbox::new("b", spec);
        let template =
            parse(&json!({"spec": {"containers": [{"name": "c", "image": "i", "command": ["one"]}]}}), "spec.template")
                .unwrap();
        let command = |i| batch_pod(&batch, &template, i, "k").unwrap().spec.unwrap().containers[0].command.clone();
        assert_eq!(command(0), Some(vec!["other".to_owned()]));
        assert_eq!(command(1), Some(vec!["one".to_owned()]));
    }
}
