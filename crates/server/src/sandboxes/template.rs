//! The pod template of a sandbox made from an image: pure.
//!
//! The sandbox container starts `execd run -- ENTRYPOINT` and not `bootstrap.sh`: the script needs a
//! shell in the user's image, the static binary needs nothing. A container that ends is not started
//! again: its files in memory and its processes are gone, so the sandbox is Failed with the reason,
//! and no fresh one stands in for it unnoticed.

use std::collections::BTreeMap;

use api_types::names::{EXECD_PORT, env};
use serde_json::{Value, json};

use super::side;
use super::validate::{Create, ImageSource};
use super::volumes::Volume;
use crate::config::Config;

/// Name of the sandbox's container.
const CONTAINER: &str = "sandbox";
/// Volume that execd is copied into.
const VOLUME: &str = "opensandbox-bin";
/// Where the volume is mounted.
const DIRECTORY: &str = "/opt/opensandbox";

/// Builds `spec.template`.
pub fn build(
    id: &str,
    image: &ImageSource,
    create: &Create,
    labels: &BTreeMap<String, String>,
    config: &Config,
) -> Value {
    let execd = format!("{DIRECTORY}/execd");
    let mut command = vec![execd.clone(), "run".to_owned(), "--".to_owned()];
    command.extend(create.entrypoint.iter().cloned());
    let variables: Vec<Value> = create
        .env
        .iter()
        .filter(|(name, _)| name.as_str() != env::EXECD)
        .map(|(name, value)| json!({"name": name, "value": value}))
        .chain([json!({"name": env::EXECD, "value": execd})])
        .collect();
    let mount = json!([{"name": VOLUME, "mountPath": DIRECTORY}]);
    let mounts: Vec<Value> = std::iter::once(mount[0].clone()).chain(image.volumes.iter().map(Volume::mount)).collect();
    let volume = json!({"name": VOLUME, "emptyDir": {}});
    let volumes: Vec<Value> = std::iter::once(volume).chain(image.volumes.iter().map(Volume::source)).collect();
    let mut sandbox = json!({
        "name": CONTAINER,
        "image": image.uri,
        "imagePullPolicy": config.image_pull_policy,
        "command": command,
        "env": variables,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [{"name": "execd", "containerPort": EXECD_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts,
    });
    if let Some(resources) = resources(image) {
        sandbox["resources"] = resources;
    }
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "initContainers": [{
            "name": "execd-installer",
            "image": config.execd_image,
            "imagePullPolicy": config.image_pull_policy,
            "command": ["/bin/sh", "-c"],
            "args": [format!("cp ./execd ./bootstrap.sh {DIRECTORY}/ && chmod 0755 {DIRECTORY}/execd {DIRECTORY}/bootstrap.sh")],
            "volumeMounts": mount,
        }],
        "containers": [sandbox],
        "volumes": volumes,
    });
    if image.auth.is_some() {
        spec["imagePullSecrets"] = json!([{"name": side::secret_name(id)}]);
    }
    if let Some(resources) = &config.execd_resources {
        spec["initContainers"][0]["resources"] = resources.clone();
    }
    if let Some(class) = &config.runtime_class {
        spec["runtimeClassName"] = json!(class);
    }
    if let Some(platform) = &create.platform {
        spec["nodeSelector"] = json!({"kubernetes.io/os": platform.os, "kubernetes.io/arch": platform.arch});
    }
    json!({"metadata": {"labels": labels}, "spec": spec})
}

fn resources(image: &ImageSource) -> Option<Value> {
    let parts = [("limits", &image.limits), ("requests", &image.requests)];
    let given: serde_json::Map<_, _> =
        parts.into_iter().filter(|(_, r)| !r.is_empty()).map(|(name, r)| (name.to_owned(), json!(r))).collect();
    (!given.is_empty()).then_some(Value::Object(given))
}

#[cfg(test)]
mod tests {
    use api_types::crd::Daemons;
    use k8s_openapi::api::core::v1::PodTemplateSpec;

    use super::*;
    use crate::sandboxes::validate::{Source, check};

    #[test]
    fn the_template_is_a_pod_with_execd_and_without_a_shell_in_the_users_image() {
        let create = check(
            &serde_json::from_value(json!({
                "image": {"uri": "distroless"}, "entrypoint": ["/app", "x"], "env": {"A": "1", "EXECD": "mine"},
                "resourceLimits": {"cpu": "1"}, "platform": {"os": "linux", "arch": "amd64"}
            }))
            .unwrap(),
            &Config::default(),
        )
        .unwrap();
        let Source::Image(image) = &create.source else { panic!("an image") };
        let config = Config { runtime_class: Some("gvisor".to_owned()), ..Config::default() };
        let built = build("the-id", image, &create, &BTreeMap::from([("l".to_owned(), "v".to_owned())]), &config);
        let template: PodTemplateSpec = serde_json::from_value(built).unwrap();
        assert_eq!(template.metadata.unwrap().labels.unwrap()["l"], "v");
        let pod = template.spec.unwrap();
        assert_eq!(Daemons::of(&pod).execd.as_deref(), Some("sandbox"));
        let container = &pod.containers[0];
        assert_eq!(container.command.as_deref().unwrap(), ["/opt/opensandbox/execd", "run", "--", "/app", "x"]);
        let variables = container.env.as_ref().unwrap();
        assert_eq!(variables.iter().filter(|v| v.name == "EXECD").count(), 1);
        assert_eq!(container.resources.as_ref().unwrap().requests, None);
        assert_eq!(pod.runtime_class_name.as_deref(), Some("gvisor"));
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.node_selector.unwrap()["kubernetes.io/arch"], "amd64");
    }
}
