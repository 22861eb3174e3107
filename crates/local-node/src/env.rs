//! A container's environment: image, `envFrom`, `env` with `valueFrom`, and `$(NAME)`, in Kubernetes' order.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::quantity;
use crate::volumes::objects::{ObjectError, ObjectKind, ObjectSource, Objects};

/// What the node knows and a pod may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name of the node.
    pub node_name: String,
    /// Address of the node.
    pub host_ip: String,
    /// The pod's own address.
    pub pod_ip: String,
    /// Thousandths of a processor that a container without limit may use.
    pub cpu_milli: i64,
    /// Bytes of memory that a container without limit may use.
    pub memory: i64,
    /// Bytes of disk that a container without limit may use.
    pub ephemeral_storage: i64,
}

/// Why there is no environment: the container waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret is missing, or has no such key.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A field that cannot be had by `fieldRef`.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A resource that cannot be had by `resourceFieldRef`.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// `resourceFieldRef` names a container that the pod does not have.
    #[error("container {0} not found")]
    Container(String),
    /// A source that this node does not know.
    #[error("environment variable {0:?} has a valueFrom that this node does not support")]
    Source(String),
    /// A value that no environment can carry.
    #[error("environment variable {0:?} contains a NUL byte")]
    Nul(String),
    /// A name that no environment can carry.
    #[error("invalid environment variable name {0:?}")]
    Name(String),
    /// A value that is no text.
    #[error("key {key} of {name:?} is not valid UTF-8 and cannot be an environment variable")]
    NotText {
        /// Object.
        name: String,
        /// Key.
        key: String,
    },
}

/// Reads every object that the container's environment refers to.
pub async fn fetch(container: &Container, source: &dyn ObjectSource, objects: &mut Objects) -> Result<(), ObjectError> {
    for from in container.env_from.iter().flatten() {
        if let Some(map) = &from.config_map_ref {
            objects.fetch(source, ObjectKind::ConfigMap, &map.name).await?;
        }
        if let Some(secret) = &from.secret_ref {
            objects.fetch(source, ObjectKind::Secret, &secret.name).await?;
        }
    }
    for from in container.env.iter().flatten().filter_map(|entry| entry.value_from.as_ref()) {
        if let Some(map) = &from.config_map_key_ref {
            objects.fetch(source, ObjectKind::ConfigMap, &map.name).await?;
        }
        if let Some(secret) = &from.secret_key_ref {
            objects.fetch(source, ObjectKind::Secret, &secret.name).await?;
        }
    }
    Ok(())
}

/// The environment in order, each name once; `image` is the image's own, `NAME=value` each.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    image: &[String],
    objects: &Objects,
    facts: &NodeFacts,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut environment = Environment::default();
    for (name, value) in image.iter().filter_map(|entry| entry.split_once('=')) {
        environment.set(name, value.to_owned());
    }
    let of_pod = from_objects(container, objects)?;
    // `$(NAME)` sees what the pod set before, never what the image set.
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in of_pod {
        known.insert(name.clone(), value.clone());
        environment.set(&name, value);
    }
    for entry in container.env.iter().flatten() {
        if entry.name.is_empty() || entry.name.contains(['=', '\0']) {
            return Err(EnvError::Name(entry.name.clone()));
        }
        let value = match (&entry.value, &entry.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &known)),
            (_, Some(from)) => value_from(pod, container, &entry.name, from, objects, facts)?,
            _ => Some(String::new()),
        };
        let Some(value) = value else { continue };
        if value.contains('\0') {
            return Err(EnvError::Nul(entry.name.clone()));
        }
        known.insert(entry.name.clone(), value.clone());
        environment.set(&entry.name, value);
    }
    Ok(environment.entries)
}

/// Kubernetes' rules: `command` replaces the entrypoint and with it the image's command, `args` the image's command.
pub fn arguments(
    container: &Container,
    entrypoint: &[String],
    command: &[String],
    environment: &[(String, String)],
) -> Vec<String> {
    let values: BTreeMap<String, String> = environment.iter().cloned().collect();
    let expanded = |list: &[String]| -> Vec<String> { list.iter().map(|text| expand(text, &values)).collect() };
    let own = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    match (own.is_empty(), args.is_empty()) {
        (false, _) => [expanded(own), expanded(args)].concat(),
        (true, false) => [entrypoint.to_vec(), expanded(args)].concat(),
        (true, true) => [entrypoint, command].concat(),
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign, and what is not known stays as it is.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The value of a pod's field, as the downward API gives it.
pub fn field(pod: &Pod, path: &str, facts: &NodeFacts) -> Result<String, EnvError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(EnvError::Field(path.to_owned())),
        };
        return Ok(text(map.and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => listed(metadata.labels.as_ref()),
        "metadata.annotations" => listed(metadata.annotations.as_ref()),
        "spec.nodeName" => {
            spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| facts.node_name.clone())
        }
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => return Err(EnvError::Field(path.to_owned())),
    })
}

/// `key="value"` a line, quoted as the downward API quotes it.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of `resourceFieldRef`.
pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    facts: &NodeFacts,
) -> Result<String, EnvError> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
            .find(|candidate| candidate.name == name)
            .ok_or_else(|| EnvError::Container(name.to_owned()))?,
    };
    let unknown = || EnvError::Resource(selector.resource.clone());
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let limit = limits.and_then(|map| map.get(resource));
    // A request that is not given is the limit; a limit that is not given is what the node has.
    let (asked, fallback) = match list {
        "limits" => (limit, true),
        "requests" => (requests.and_then(|map| map.get(resource)).or(limit), false),
        _ => return Err(unknown()),
    };
    let is_cpu = resource == "cpu";
    let of_node = match resource {
        "cpu" => facts.cpu_milli,
        "memory" => facts.memory,
        "ephemeral-storage" => facts.ephemeral_storage,
        name if name.starts_with("hugepages-") => 0,
        _ => return Err(unknown()),
    };
    let value = match asked {
        Some(quantity) if is_cpu => quantity::milli(quantity),
        Some(quantity) => quantity::units(quantity),
        None => Some(if fallback { of_node } else { 0 }),
    }
    .ok_or_else(unknown)?;
    let divisor = selector.divisor.clone().filter(|d| !matches!(d.0.as_str(), "" | "0"));
    let divisor = divisor.unwrap_or_else(|| Quantity("1".to_owned()));
    let divisor = if is_cpu { quantity::milli(&divisor) } else { quantity::units(&divisor) };
    let divisor = divisor.filter(|d| *d > 0).ok_or_else(unknown)?;
    Ok(value.div_euclid(divisor).saturating_add(i64::from(value.rem_euclid(divisor) != 0)).to_string())
}

#[derive(Default)]
struct Environment {
    entries: Vec<(String, String)>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((name.to_owned(), value)),
        }
    }
}

fn from_objects(container: &Container, objects: &Objects) -> Result<Vec<(String, String)>, EnvError> {
    let mut found = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = if let Some(map) = &from.config_map_ref {
            (ObjectKind::ConfigMap, &map.name, map.optional)
        } else if let Some(secret) = &from.secret_ref {
            (ObjectKind::Secret, &secret.name, secret.optional)
        } else {
            continue;
        };
        let Some(data) = objects.keys(kind, name, optional == Some(true))? else { continue };
        for (key, value) in data {
            let variable = format!("{prefix}{key}");
            // Kubernetes skips keys that cannot be names and goes on.
            if variable.is_empty() || variable.contains(['=', '\0']) {
                continue;
            }
            found.push((variable, as_text(name, key, value)?));
        }
    }
    Ok(found)
}

fn value_from(
    pod: &Pod,
    container: &Container,
    variable: &str,
    from: &EnvVarSource,
    objects: &Objects,
    facts: &NodeFacts,
) -> Result<Option<String>, EnvError> {
    if let Some(of) = &from.field_ref {
        // The two maps as a whole are for volumes only.
        if matches!(of.field_path.as_str(), "metadata.labels" | "metadata.annotations") {
            return Err(EnvError::Field(of.field_path.clone()));
        }
        return field(pod, &of.field_path, facts).map(Some);
    }
    if let Some(of) = &from.resource_field_ref {
        return resource(pod, container, of, facts).map(Some);
    }
    if let Some(of) = &from.file_key_ref {
        return Ok(objects.file_key(of)?.map(str::to_owned));
    }
    let (kind, name, key, optional) = if let Some(of) = &from.config_map_key_ref {
        (ObjectKind::ConfigMap, &of.name, &of.key, of.optional)
    } else if let Some(of) = &from.secret_key_ref {
        (ObjectKind::Secret, &of.name, &of.key, of.optional)
    } else {
        return Err(EnvError::Source(variable.to_owned()));
    };
    let value = objects.key(kind, name, key, optional == Some(true))?;
    value.map(|value| as_text(name, key, value)).transpose()
}

fn as_text(name: &str, key: &str, value: &[u8]) -> Result<String, EnvError> {
    let text =
        std::str::from_utf8(value).map_err(|_| EnvError::NotText { name: name.to_owned(), key: key.to_owned() })?;
    if text.contains('\0') {
        return Err(EnvError::Nul(key.to_owned()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
