//! What the generated schemas leave out: how lists merge, which objects are atomic, and the defaults.

use serde_json::{Map, Value, json};

/// `definition.field: keys`; lists merged and owned by item.
const MAP_LISTS: [(&str, &str, &[&str]); 31] = [
    ("Container", "env", &["name"]),
    ("Container", "ports", &["containerPort", "protocol"]),
    ("Container", "volumeDevices", &["devicePath"]),
    ("Container", "volumeMounts", &["mountPath"]),
    ("EphemeralContainer", "env", &["name"]),
    ("EphemeralContainer", "ports", &["containerPort", "protocol"]),
    ("EphemeralContainer", "volumeDevices", &["devicePath"]),
    ("EphemeralContainer", "volumeMounts", &["mountPath"]),
    ("ContainerStatus", "volumeMounts", &["mountPath"]),
    ("NamespaceStatus", "conditions", &["type"]),
    ("NodeStatus", "addresses", &["type"]),
    ("NodeStatus", "conditions", &["type"]),
    ("PodSpec", "containers", &["name"]),
    ("PodSpec", "ephemeralContainers", &["name"]),
    ("PodSpec", "hostAliases", &["ip"]),
    ("PodSpec", "imagePullSecrets", &["name"]),
    ("PodSpec", "initContainers", &["name"]),
    ("PodSpec", "resourceClaims", &["name"]),
    ("PodSpec", "schedulingGates", &["name"]),
    ("PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("PodSpec", "volumes", &["name"]),
    ("PodStatus", "conditions", &["type"]),
    ("PodStatus", "podIPs", &["ip"]),
    ("PodStatus", "resourceClaimStatuses", &["name"]),
    ("ResourceRequirements", "claims", &["name"]),
    ("ServiceAccount", "secrets", &["name"]),
    ("ServiceSpec", "ports", &["port", "protocol"]),
    ("ServiceStatus", "conditions", &["type"]),
    ("ObjectMeta", "ownerReferences", &["uid"]),
    ("CustomResourceDefinitionStatus", "conditions", &["type"]),
    ("PodStatus", "hostIPs", &["ip"]),
];

/// Lists that a strategic merge replaces although they are owned by item.
const NOT_PATCHED: [(&str, &str); 2] =
    [("ResourceRequirements", "claims"), ("CustomResourceDefinitionStatus", "conditions")];

/// Lists that a strategic merge first cuts down to the keys it names.
const RETAIN_KEYS: [(&str, &str); 3] =
    [("PodSpec", "volumes"), ("PodSpec", "resourceClaims"), ("PodStatus", "resourceClaimStatuses")];

/// Lists of scalars, each once.
const SET_LISTS: [(&str, &str); 2] = [("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs")];

/// Objects owned and replaced as one.
const ATOMIC: [&str; 11] = [
    "ConfigMapKeySelector",
    "FileKeySelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "ResourceFieldSelector",
    "SecretKeySelector",
    "TypedLocalObjectReference",
    "OwnerReference",
];

/// Maps owned and replaced as one.
const ATOMIC_MAPS: [(&str, &str); 2] = [("PodSpec", "nodeSelector"), ("ServiceSpec", "selector")];

/// Kubernetes' defaults, where they are constants.
fn defaults() -> Vec<(&'static str, &'static str, Value)> {
    let mut list = vec![
        ("PodSpec", "restartPolicy", json!("Always")),
        ("PodSpec", "dnsPolicy", json!("ClusterFirst")),
        ("PodSpec", "terminationGracePeriodSeconds", json!(30)),
        ("PodSpec", "schedulerName", json!("default-scheduler")),
        ("PodSpec", "securityContext", json!({})),
        ("PodSpec", "enableServiceLinks", json!(true)),
        ("ContainerPort", "protocol", json!("TCP")),
        ("ServicePort", "protocol", json!("TCP")),
        ("ServiceSpec", "type", json!("ClusterIP")),
        ("ServiceSpec", "sessionAffinity", json!("None")),
        ("ServiceSpec", "internalTrafficPolicy", json!("Cluster")),
        ("HTTPGetAction", "path", json!("/")),
        ("HTTPGetAction", "scheme", json!("HTTP")),
        ("Probe", "timeoutSeconds", json!(1)),
        ("Probe", "periodSeconds", json!(10)),
        ("Probe", "successThreshold", json!(1)),
        ("Probe", "failureThreshold", json!(3)),
        ("GRPCAction", "service", json!("")),
        ("ResourceFieldSelector", "divisor", json!("0")),
        ("ObjectFieldSelector", "apiVersion", json!("v1")),
        ("ConfigMapVolumeSource", "defaultMode", json!(420)),
        ("SecretVolumeSource", "defaultMode", json!(420)),
        ("DownwardAPIVolumeSource", "defaultMode", json!(420)),
        ("ProjectedVolumeSource", "defaultMode", json!(420)),
        ("ServiceAccountTokenProjection", "expirationSeconds", json!(3600)),
        ("HostPathVolumeSource", "type", json!("")),
        ("Secret", "type", json!("Opaque")),
    ];
    for container in ["Container", "EphemeralContainer"] {
        list.push((container, "terminationMessagePath", json!("/dev/termination-log")));
        list.push((container, "terminationMessagePolicy", json!("File")));
        list.push((container, "resources", json!({})));
    }
    list
}

/// Writes the marks into the schemas.
pub(super) fn apply(texts: &mut Map<String, Value>) {
    for (definition, field, keys) in MAP_LISTS {
        let Some(slot) = field_of(texts, definition, field) else { continue };
        slot["x-kubernetes-list-type"] = if field == "hostIPs" { "atomic".into() } else { "map".into() };
        if field != "hostIPs" {
            slot["x-kubernetes-list-map-keys"] = json!(keys);
        }
        if !NOT_PATCHED.contains(&(definition, field)) {
            let retain = RETAIN_KEYS.contains(&(definition, field));
            slot["x-kubernetes-patch-merge-key"] = keys[0].into();
            slot["x-kubernetes-patch-strategy"] = if retain { "merge,retainKeys".into() } else { "merge".into() };
        }
    }
    for (definition, field) in SET_LISTS {
        if let Some(slot) = field_of(texts, definition, field) {
            slot["x-kubernetes-list-type"] = "set".into();
            slot["x-kubernetes-patch-strategy"] = "merge".into();
        }
    }
    for (definition, field) in ATOMIC_MAPS {
        if let Some(slot) = field_of(texts, definition, field) {
            slot["x-kubernetes-map-type"] = "atomic".into();
        }
    }
    for definition in ATOMIC {
        if let Some(slot) = schema_of(texts, definition) {
            slot["x-kubernetes-map-type"] = "atomic".into();
        }
    }
    for (definition, field, value) in defaults() {
        if let Some(slot) = field_of(texts, definition, field) {
            slot["default"] = value;
        }
    }
}

fn schema_of<'a>(texts: &'a mut Map<String, Value>, short: &str) -> Option<&'a mut Value> {
    // Of the namesakes (core and events both have `Event`) none is marked, so the first will do.
    texts.iter_mut().find(|(name, _)| name.rsplit('.').next() == Some(short)).map(|(_, schema)| schema)
}

fn field_of<'a>(texts: &'a mut Map<String, Value>, short: &str, field: &str) -> Option<&'a mut Value> {
    schema_of(texts, short)?.get_mut("properties")?.get_mut(field)
}
