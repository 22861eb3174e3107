//! Volumes of a sandbox made from an image: claims, and directories of nodes that the operator allows. Pure.
//!
//! A directory of a node is never mounted by the path that was asked for: the allowed directory is the volume, and the
//! rest is its `subPath`, which kubelet resolves without leaving the volume. So a symbolic link that a sandbox has laid
//! leads nobody out.

use std::collections::HashSet;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::Deserialize;
use serde_json::{Value, json};

use super::validate::is_quantity;
use crate::config::Config;
use crate::error::ApiError;
use crate::labels::{is_dns_label, is_object_name};

/// Prefix of volume names in the pod, apart from the platform's own.
const PREFIX: &str = "v-";

/// A volume that may be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    name: String,
    mount_path: String,
    read_only: bool,
    sub_path: Option<String>,
    backend: Backend,
}

/// What is behind a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Backend {
    /// An allowed directory of the node.
    Host(String),
    /// A claim by name, and how to make it when it is not there.
    Claim(String, Option<NewClaim>),
}

/// A claim to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewClaim {
    class: Option<String>,
    size: String,
    modes: Vec<String>,
    goes_with_sandbox: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    sub_path: Option<String>,
    #[serde(default)]
    host: Option<WireHost>,
    #[serde(default)]
    pvc: Option<WireClaim>,
    #[serde(default)]
    ossfs: Option<Value>,
}

#[derive(Deserialize)]
struct WireHost {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireClaim {
    claim_name: String,
    #[serde(default = "yes")]
    create_if_not_exists: bool,
    #[serde(default)]
    delete_on_sandbox_termination: bool,
    #[serde(default)]
    storage_class: Option<String>,
    #[serde(default)]
    storage: Option<String>,
    #[serde(default)]
    access_modes: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}

/// Checks volumes; a refusal begins with the member's path.
pub fn check(given: &[Value], config: &Config) -> Result<Vec<Volume>, ApiError> {
    let mut names = HashSet::new();
    let mut volumes = Vec::with_capacity(given.len());
    for (i, value) in given.iter().enumerate() {
        let at = |member: &str| format!("volumes[{i}]{member}");
        let wire: Wire = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let member = if path == "." { String::new() } else { format!(".{path}") };
            ApiError::field(&at(&member), error.inner())
        })?;
        if !is_dns_label(&wire.name) {
            return Err(ApiError::field(&at(".name"), "is at most 63 lower-case letters, digits and inner dashes"));
        }
        if !names.insert(wire.name.clone()) {
            return Err(ApiError::field(&at(".name"), format_args!("{:?} is the name of another volume", wire.name)));
        }
        if !wire.mount_path.starts_with('/') || wire.mount_path.contains(':') {
            return Err(ApiError::field(&at(".mountPath"), "is an absolute path without a colon"));
        }
        let sub_path = wire.sub_path.filter(|path| !path.is_empty());
        if sub_path.as_deref().is_some_and(|path| !is_plain(path)) {
            return Err(ApiError::field(&at(".subPath"), "is a relative path without .."));
        }
        let (backend, sub_path) = match (wire.host, wire.pvc, wire.ossfs) {
            (Some(host), None, None) => check_host(&host.path, sub_path, config, &at(".host.path"))?,
            (None, Some(claim), None) => (check_claim(claim, config, &at(".pvc"))?, sub_path),
            (None, None, Some(_)) => {
                return Err(ApiError::unsupported(&at(".ossfs"), "this server mounts no object stores; use a claim"));
            }
            _ => return Err(ApiError::field(&at(""), "has exactly one of host, pvc and ossfs")),
        };
        let (name, mount_path, read_only) = (wire.name, wire.mount_path, wire.read_only);
        volumes.push(Volume { name, mount_path, read_only, sub_path, backend });
    }
    Ok(volumes)
}

/// A relative path that stays where it is.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The allowed directory, and what lies below it as the sub-path.
fn check_host(
    path: &str,
    sub_path: Option<String>,
    config: &Config,
    field: &str,
) -> Result<(Backend, Option<String>), ApiError> {
    let asked = Path::new(path);
    if !asked.is_absolute() || asked.components().any(|part| part == Component::ParentDir) {
        return Err(ApiError::field(field, "is an absolute path without .."));
    }
    // The longest allowed directory that holds it.
    let allowed = config.allowed_host_paths.iter().filter(|allowed| asked.starts_with(allowed));
    let Some(root) = allowed.max_by_key(|allowed| allowed.components().count()) else {
        return Err(ApiError::field(
            field,
            format_args!("{path:?} is not below a directory that this server allows (storage.allowed_host_paths)"),
        ));
    };
    let below = asked.strip_prefix(root).map(|rest| rest.display().to_string()).unwrap_or_default();
    let parts: Vec<String> = [Some(below), sub_path].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    Ok((Backend::Host(root.display().to_string()), (!parts.is_empty()).then(|| parts.join("/"))))
}

fn check_claim(claim: WireClaim, config: &Config, field: &str) -> Result<Backend, ApiError> {
    if !is_object_name(&claim.claim_name) {
        return Err(ApiError::field(&format!("{field}.claimName"), "is no name of a PersistentVolumeClaim"));
    }
    if claim.storage.as_deref().is_some_and(|size| !is_quantity(size)) {
        return Err(ApiError::field(&format!("{field}.storage"), "is no quantity such as 5Gi"));
    }
    if claim.delete_on_sandbox_termination && !claim.create_if_not_exists {
        let why = "needs createIfNotExists: a claim that others made is not deleted";
        return Err(ApiError::field(&format!("{field}.deleteOnSandboxTermination"), why));
    }
    let new = claim.create_if_not_exists.then(|| NewClaim {
        class: claim.storage_class.filter(|class| !class.is_empty()),
        size: claim.storage.unwrap_or_else(|| config.volume_size.clone()),
        modes: claim.access_modes.filter(|m| !m.is_empty()).unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
        goes_with_sandbox: claim.delete_on_sandbox_termination,
    });
    Ok(Backend::Claim(claim.claim_name, new))
}

impl Volume {
    /// As it stands in the pod's `volumes`.
    pub fn source(&self) -> Value {
        let name = format!("{PREFIX}{}", self.name);
        match &self.backend {
            Backend::Host(path) => json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}),
            Backend::Claim(claim, _) => json!({"name": name, "persistentVolumeClaim": {"claimName": claim}}),
        }
    }

    /// As it stands in the container's `volumeMounts`.
    pub fn mount(&self) -> Value {
        let mut mount = json!({"name": format!("{PREFIX}{}", self.name), "mountPath": self.mount_path});
        if self.read_only {
            mount["readOnly"] = json!(true);
        }
        if let Some(path) = &self.sub_path {
            mount["subPath"] = json!(path);
        }
        mount
    }

    /// The claim that has to be made first, and whether it goes with the sandbox.
    pub fn new_claim(&self) -> Option<(PersistentVolumeClaim, bool)> {
        let Backend::Claim(name, Some(new)) = &self.backend else {
            return None;
        };
        let mut spec = json!({"accessModes": new.modes, "resources": {"requests": {"storage": new.size}}});
        if let Some(class) = &new.class {
            spec["storageClassName"] = json!(class);
        }
        let claim = json!({"metadata": {"name": name}, "spec": spec});
        serde_json::from_value(claim).ok().map(|claim| (claim, new.goes_with_sandbox))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { allowed_host_paths: vec!["/data".into(), "/data/shared".into()], ..Config::default() }
    }

    fn one(volume: Value) -> Volume {
        check(&[volume], &config()).unwrap().remove(0)
    }

    #[test]
    fn a_directory_of_the_node_is_mounted_by_its_allowed_root() {
        let volume =
            one(json!({"name": "h", "mountPath": "/h", "host": {"path": "/data/shared/team/x"}, "readOnly": true}));
        assert_eq!(volume.source()["hostPath"], json!({"path": "/data/shared", "type": "Directory"}));
        assert_eq!(volume.mount(), json!({"name": "v-h", "mountPath": "/h", "readOnly": true, "subPath": "team/x"}));
        assert!(
            one(json!({"name": "h", "mountPath": "/h", "host": {"path": "/data/"}})).mount().get("subPath").is_none()
        );
    }

    #[test]
    fn a_claim_as_the_published_sdk_sends_it() {
        let volume = one(json!({"name": "v", "mountPath": "/m", "readOnly": false, "subPath": "s", "pvc": {
            "claimName": "c", "createIfNotExists": true, "deleteOnSandboxTermination": true,
            "storageClass": null, "storage": null, "accessModes": null}}));
        let (claim, goes) = volume.new_claim().unwrap();
        let claim = serde_json::to_value(claim).unwrap();
        assert!(goes);
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
        assert_eq!(claim["spec"].get("storageClassName"), None);
        assert_eq!(volume.source()["persistentVolumeClaim"]["claimName"], "c");
    }

    #[test]
    fn refusals_name_the_path() {
        let claim = json!({"claimName": "c"});
        for (volume, start) in [
            (json!({}), "volumes[0]: missing field `name`"),
            (json!({"name": "A", "mountPath": "/m", "pvc": claim}), "volumes[0].name: "),
            (json!({"name": "v", "mountPath": "m", "pvc": claim}), "volumes[0].mountPath: "),
            (json!({"name": "v", "mountPath": "/m"}), "volumes[0]: has exactly one"),
            (
                json!({"name": "v", "mountPath": "/m", "pvc": claim, "host": {"path": "/data"}}),
                "volumes[0]: has exactly one",
            ),
            (json!({"name": "v", "mountPath": "/m", "ossfs": {}}), "volumes[0].ossfs: "),
            (json!({"name": "v", "mountPath": "/m", "subPath": "../x", "pvc": claim}), "volumes[0].subPath: "),
            (json!({"name": "v", "mountPath": "/m", "host": {"path": "/etc"}}), "volumes[0].host.path: \"/etc\""),
            (json!({"name": "v", "mountPath": "/m", "host": {"path": "/database"}}), "volumes[0].host.path: "),
            (json!({"name": "v", "mountPath": "/m", "host": {"path": "/data/../etc"}}), "volumes[0].host.path: "),
            (json!({"name": "v", "mountPath": "/m", "pvc": {"claimName": "C_"}}), "volumes[0].pvc.claimName: "),
            (
                json!({"name": "v", "mountPath": "/m", "pvc": {"claimName": "c", "storage": "lots"}}),
                "volumes[0].pvc.storage: ",
            ),
        ] {
            let error = check(std::slice::from_ref(&volume), &config()).unwrap_err();
            assert!(error.message.starts_with(start), "{volume}: {}", error.message);
        }
        let twice = json!({"name": "v", "mountPath": "/m", "pvc": claim});
        assert!(check(&[twice.clone(), twice], &config()).unwrap_err().message.starts_with("volumes[1].name: "));
    }
}
