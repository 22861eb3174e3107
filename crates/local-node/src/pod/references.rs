//! Which ConfigMaps and Secrets a pod refers to, and whether it shows its own labels to its containers.

use k8s_openapi::api::core::v1::Pod;

use crate::volumes::objects::ObjectKind;

/// Whether the pod's environment or volumes refer to the object.
pub fn refers_to(pod: &Pod, kind: ObjectKind, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is = |candidate: Option<&String>| candidate.is_some_and(|candidate| candidate == name);
    let map = kind == ObjectKind::ConfigMap;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let by_environment = containers.into_iter().any(|container| {
        let whole = container.env_from.iter().flatten().any(|from| {
            if map {
                is(from.config_map_ref.as_ref().map(|of| &of.name))
            } else {
                is(from.secret_ref.as_ref().map(|of| &of.name))
            }
        });
        let keys = container.env.iter().flatten().filter_map(|entry| entry.value_from.as_ref());
        whole
            || keys.into_iter().any(|from| {
                if map {
                    is(from.config_map_key_ref.as_ref().map(|of| &of.name))
                } else {
                    is(from.secret_key_ref.as_ref().map(|of| &of.name))
                }
            })
    });
    let by_volume = spec.volumes.iter().flatten().any(|volume| {
        let mut parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        if map {
            is(volume.config_map.as_ref().map(|of| &of.name))
                || parts.any(|part| is(part.config_map.as_ref().map(|of| &of.name)))
        } else {
            is(volume.secret.as_ref().and_then(|of| of.secret_name.as_ref()))
                || parts.any(|part| is(part.secret.as_ref().map(|of| &of.name)))
        }
    });
    by_environment || by_volume
}

/// Whether a volume shows fields of the pod, which may change while it runs.
pub fn shows_itself(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
        volume.downward_api.is_some()
            || volume
                .projected
                .iter()
                .flat_map(|projected| projected.sources.iter().flatten())
                .any(|part| part.downward_api.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_wherever_they_stand() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}]}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "m1"}}]}],
            "volumes": [
                {"name": "v", "projected": {"sources": [{"secret": {"name": "s2"}}, {"downwardAPI": {"items": []}}]}},
                {"name": "w", "configMap": {"name": "m2"}}]}}))
        .unwrap();
        for name in ["m1", "m2"] {
            assert!(refers_to(&pod, ObjectKind::ConfigMap, name) && !refers_to(&pod, ObjectKind::Secret, name));
        }
        for name in ["s1", "s2"] {
            assert!(refers_to(&pod, ObjectKind::Secret, name) && !refers_to(&pod, ObjectKind::ConfigMap, name));
        }
        assert!(shows_itself(&pod) && !shows_itself(&Pod::default()));
    }
}
