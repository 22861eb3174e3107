//! What is served, told to clients: groups, versions, resources, the version, health.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::http::route::{Route, nowhere};
use crate::http::{ApiBody, body};
use crate::kinds::Resource;

/// The Kubernetes version whose API this is.
const VERSION: (&str, &str) = ("1", "36");
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// The same in the order in which kube-apiserver tells them of custom resources.
const CUSTOM_VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

fn verbs(resource: &Resource) -> &'static [&'static str] {
    if resource.is_custom() { &CUSTOM_VERBS } else { &VERBS }
}

/// Answers a path that tells what is there.
pub(crate) fn answer(core: &Core, route: &Route, accept: &str) -> Result<Response<ApiBody>> {
    let value = match route {
        Route::Health => {
            return Ok(body::plain(StatusCode::OK, "ok"));
        }
        Route::Version => json!({
            "major": VERSION.0, "minor": VERSION.1, "emulationMajor": VERSION.0, "emulationMinor": VERSION.1,
            "minCompatibilityMajor": VERSION.0, "minCompatibilityMinor": "35",
            "gitVersion": format!("v{}.{}.0+osb.{}", VERSION.0, VERSION.1, env!("CARGO_PKG_VERSION")),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
        }),
        Route::Paths => json!({"paths": paths(core)}),
        Route::CoreVersions | Route::Groups if wants_aggregated(accept) => {
            return Ok(aggregated(core, matches!(route, Route::CoreVersions)));
        }
        Route::CoreVersions => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }),
        Route::Groups => {
            let list: Vec<Value> =
                groups(core).iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, v)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
        }
        Route::Group(name) => {
            let groups = groups(core);
            let versions = groups.get(name).filter(|_| !name.is_empty()).ok_or_else(|| nowhere(name))?;
            let mut value = group(name, versions);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        Route::GroupVersion(group, version) => resources(core, group, version),
        Route::OpenApiV2 if accept.contains("protobuf") => {
            let mut response = body::json(StatusCode::OK, crate::openapi::v2_protobuf());
            let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            return Ok(response);
        }
        Route::OpenApiV2 => crate::openapi::v2(),
        Route::OpenApiV3(path) if path.is_empty() => crate::openapi::index(core),
        Route::OpenApiV3(path) => crate::openapi::document(core, path)?,
        Route::Review(_) | Route::Target(_) | Route::Watch(_) => return Err(ApiError::no_such_path()),
    };
    Ok(body::value(StatusCode::OK, &value))
}

fn paths(core: &Core) -> Vec<String> {
    let mut list: Vec<String> = ["/api", "/api/v1", "/apis"].map(String::from).into();
    for (group, versions) in groups(core).iter().filter(|(g, _)| !g.is_empty()) {
        list.push(format!("/apis/{group}"));
        list.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    list.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(String::from));
    list
}

/// Groups and their versions, those that are only asked about the caller included.
fn groups(core: &Core) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in core.registry.all() {
        let versions = map.entry(resource.group.clone()).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version.clone());
        }
    }
    for versions in map.values_mut() {
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
    }
    map.insert("authentication.k8s.io".into(), vec!["v1".into()]);
    map.insert("authorization.k8s.io".into(), vec!["v1".into()]);
    map
}

/// Kubernetes prefers general availability over beta over alpha, and then the higher number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let number = |text: &str| text.parse().unwrap_or(0);
    if let Some((major, minor)) = rest.split_once("alpha") {
        (0, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("beta") {
        (1, number(major), number(minor))
    } else {
        (2, number(rest), 0)
    }
}

fn group(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

fn of_version(core: &Core, group: &str, version: &str) -> Vec<Arc<Resource>> {
    core.registry.all().into_iter().filter(|r| r.group == group && r.version == version).collect()
}

/// Resources that can only be created, to ask something.
fn reviews(group: &str) -> &'static [(&'static str, &'static str)] {
    match group {
        "authorization.k8s.io" => &[
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ],
        "authentication.k8s.io" => &[("selfsubjectreviews", "SelfSubjectReview")],
        _ => &[],
    }
}

fn sub_verbs(sub: &str) -> &'static [&'static str] {
    match sub {
        "status" => &["get", "patch", "update"],
        "log" => &["get"],
        "exec" | "attach" | "portforward" => &["create", "get"],
        "scale" => &["get", "patch", "update"],
        "finalize" => &["update"],
        _ => &["create"],
    }
}

fn sub_kind(resource: &Resource, sub: &str) -> (String, &'static str, &'static str) {
    match sub {
        "exec" => ("PodExecOptions".into(), "", ""),
        "attach" => ("PodAttachOptions".into(), "", ""),
        "portforward" => ("PodPortForwardOptions".into(), "", ""),
        "binding" => ("Binding".into(), "", ""),
        "eviction" => ("Eviction".into(), "policy", "v1"),
        "scale" => ("Scale".into(), "autoscaling", "v1"),
        _ => (resource.kind.clone(), "", ""),
    }
}

fn resources(core: &Core, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for (plural, kind) in reviews(group) {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    for resource in of_version(core, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs(&resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for sub in resource.subresources() {
            let (kind, sub_group, sub_version) = sub_kind(&resource, sub);
            let mut entry = json!({
                "name": format!("{}/{sub}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": kind, "verbs": sub_verbs(sub),
            });
            if !sub_group.is_empty() {
                entry["group"] = sub_group.into();
                entry["version"] = sub_version.into();
            }
            list.push(entry);
        }
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}

fn wants_aggregated(accept: &str) -> bool {
    // The first alternative that is JSON decides, as in content negotiation.
    accept
        .split(',')
        .find(|a| a.trim().starts_with("application/json"))
        .is_some_and(|a| a.contains("as=APIGroupDiscoveryList") && a.contains("v=v2") && !a.contains("v=v2beta1"))
}

fn aggregated(core: &Core, only_core: bool) -> Response<ApiBody> {
    let items: Vec<Value> = groups(core)
        .iter()
        .filter(|(group, _)| group.is_empty() == only_core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|v| discovered(core, group, v)).collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let mut response = body::value(StatusCode::OK, &list);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    );
    response
}

fn discovered(core: &Core, group: &str, version: &str) -> Value {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kind_of = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut list: Vec<Value> = reviews(group)
        .iter()
        .map(|(plural, kind)| {
            json!({
                "resource": plural, "responseKind": kind_of(group, version, kind), "scope": "Cluster",
                "singularResource": kind.to_lowercase(), "verbs": ["create"],
            })
        })
        .collect();
    for resource in of_version(core, group, version) {
        let mut entry = json!({
            "resource": resource.plural, "responseKind": kind_of(group, version, &resource.kind),
            "scope": scope(resource.namespaced), "singularResource": resource.singular, "verbs": verbs(&resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        let subs: Vec<Value> = resource
            .subresources()
            .into_iter()
            .map(|sub| {
                let (kind, sub_group, sub_version) = sub_kind(&resource, sub);
                let (g, v) = if sub_group.is_empty() { (group, version) } else { (sub_group, sub_version) };
                json!({"subresource": sub, "responseKind": kind_of(g, v, &kind), "verbs": sub_verbs(sub)})
            })
            .collect();
        if !subs.is_empty() {
            entry["subresources"] = subs.into();
        }
        list.push(entry);
    }
    json!({"version": version, "resources": list, "freshness": "Current"})
}
