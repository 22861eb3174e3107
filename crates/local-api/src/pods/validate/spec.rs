//! What a user gets wrong in a pod besides its containers.

use std::net::IpAddr;

use serde_json::Value;

use super::{one_of, text};
use crate::error::Cause;
use crate::object;
use crate::verbs::names;

/// Names, addresses, tolerations, affinity.
pub(super) fn rules(spec: &Value, causes: &mut Vec<Cause>) {
    let list = |field: &str| spec.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let hostname = text(spec, "hostname");
    if !hostname.is_empty() && !names::is_label(hostname) {
        causes.push(Cause::invalid("spec.hostname", &hostname.into(), names::LABEL_RULE));
    }
    let subdomain = text(spec, "subdomain");
    if subdomain.contains('.') {
        causes.push(Cause::invalid("spec.subdomain", &subdomain.into(), "must not contain dots"));
    } else if !subdomain.is_empty() && !names::is_label(subdomain) {
        causes.push(Cause::invalid("spec.subdomain", &subdomain.into(), names::LABEL_RULE));
    }
    if text(spec, "dnsPolicy") == "None" && spec.get("dnsConfig").is_none() {
        causes.push(Cause::required("spec.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"));
    }
    for (index, alias) in list("hostAliases").iter().enumerate() {
        let ip = text(alias, "ip");
        if ip.parse::<IpAddr>().is_err() {
            let rule = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("spec.hostAliases[{index}].ip"), &ip.into(), rule));
        }
        let hosts = alias.get("hostnames").and_then(Value::as_array);
        for (at, host) in hosts.into_iter().flatten().enumerate() {
            if !host.as_str().is_some_and(names::is_subdomain) {
                let path = format!("spec.hostAliases[{index}].hostnames[{at}]");
                causes.push(Cause::invalid(path, host, names::SUBDOMAIN_RULE));
            }
        }
    }
    if !list("ephemeralContainers").is_empty() {
        causes.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    for (index, toleration) in list("tolerations").iter().enumerate() {
        tolerated(toleration, &format!("spec.tolerations[{index}]"), causes);
    }
    let required = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    if object::at(spec, required).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        causes.push(Cause::required(format!("spec.{required}"), "must have at least one node selector term"));
    }
}

fn tolerated(toleration: &Value, path: &str, causes: &mut Vec<Cause>) {
    let key = text(toleration, "key");
    if !key.is_empty() {
        for fault in names::key_faults(key) {
            causes.push(Cause::invalid(format!("{path}.key"), &key.into(), fault));
        }
    }
    if !text(toleration, "operator").is_empty() {
        one_of(toleration, "operator", path, &["Equal", "Exists"], causes);
    }
    let effect = text(toleration, "effect");
    if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.push(Cause::invalid(format!("{path}.effect"), &effect.into(), why));
    } else if !effect.is_empty() {
        one_of(toleration, "effect", path, &["NoSchedule", "PreferNoSchedule", "NoExecute"], causes);
    }
}

/// A path of the node.
pub(super) fn host_path(volume: &Value, path: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let Some(source) = volume.get("hostPath") else { return };
    let at = text(source, "path");
    if at.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(format!("{path}.hostPath.path"), &at.into(), "must not contain '..'"));
    }
    one_of(source, "type", &format!("{path}.hostPath"), &TYPES, causes);
}
