//! What a user gets wrong in security contexts.

use serde_json::Value;

use super::{one_of, text};
use crate::error::Cause;

/// The pod's own.
pub(super) fn pod_rules(spec: &Value, causes: &mut Vec<Cause>) {
    let Some(context) = spec.get("securityContext") else { return };
    let path = "spec.securityContext";
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(context, field, path, causes);
    }
    one_of(context, "fsGroupChangePolicy", path, &["Always", "OnRootMismatch"], causes);
    seccomp(context, path, causes);
}

/// A container's.
pub(super) fn container_rules(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(context) = container.get("securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        id(context, field, path, causes);
    }
    one_of(context, "procMount", path, &["Default", "Unmasked"], causes);
    seccomp(context, path, causes);
    let flag = |field: &str| context.get(field).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) && flag("privileged") == Some(true) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.push(Cause::invalid(path, context, why));
    }
}

fn id(context: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    if let Some(number) = context.get(field).and_then(Value::as_i64)
        && !(0..=i64::from(i32::MAX)).contains(&number)
    {
        let rule = format!("must be between 0 and {}, inclusive", i32::MAX);
        causes.push(Cause::invalid(format!("{path}.{field}"), &number.into(), rule));
    }
}

fn seccomp(context: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(profile) = context.get("seccompProfile") else { return };
    let path = format!("{path}.seccompProfile");
    one_of(profile, "type", &path, &["Localhost", "RuntimeDefault", "Unconfined"], causes);
    if text(profile, "type") == "Localhost" && text(profile, "localhostProfile").is_empty() {
        let why = "must be set when seccomp type is Localhost";
        causes.push(Cause::required(format!("{path}.localhostProfile"), why));
    }
}
