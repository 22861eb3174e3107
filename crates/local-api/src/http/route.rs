//! From a path to what it means.

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::verbs::Target;

/// What a path names.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    /// `/version`
    Version,
    /// `/`
    Paths,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`
    GroupVersion(String, String),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3` or one of its documents
    OpenApiV3(String),
    /// A question about the caller itself, by its plural name.
    Review(String),
    /// A watch by its old path.
    Watch(Target),
    /// An object, a collection or a subresource.
    Target(Target),
}

/// Reads a path.
pub(crate) fn route(core: &Core, path: &str) -> Result<Route> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let parts: Vec<&str> = decoded.split('/').filter(|p| !p.is_empty()).collect();
    Ok(match parts.as_slice() {
        [] => Route::Paths,
        ["healthz" | "livez" | "readyz"] | ["healthz" | "livez" | "readyz", "ping" | "log" | "etcd"] => Route::Health,
        ["version"] => Route::Version,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3", rest @ ..] => Route::OpenApiV3(rest.join("/")),
        ["api", version] => group_version(core, "", version)?,
        ["apis", group] => Route::Group((*group).into()),
        ["apis", group, version] => group_version(core, group, version)?,
        ["apis", group @ ("authorization.k8s.io" | "authentication.k8s.io"), "v1", plural] => {
            Route::Review(format!("{plural}.{group}"))
        }
        ["api", version, "watch", rest @ ..] => Route::Watch(target(core, "", version, rest)?),
        ["apis", group, version, "watch", rest @ ..] => Route::Watch(target(core, group, version, rest)?),
        ["api", version, rest @ ..] => Route::Target(target(core, "", version, rest)?),
        ["apis", group, version, rest @ ..] => Route::Target(target(core, group, version, rest)?),
        _ => return Err(ApiError::page_not_found()),
    })
}

/// kube-apiserver's own groups answer what they do not have with a `Status`, all else with a page.
pub(crate) fn nowhere(group: &str) -> ApiError {
    let own = group.is_empty() || !group.contains('.') || group.ends_with(".k8s.io");
    if own { ApiError::no_such_path() } else { ApiError::page_not_found() }
}

fn group_version(core: &Core, group: &str, version: &str) -> Result<Route> {
    let virtual_group = matches!(group, "authorization.k8s.io" | "authentication.k8s.io") && version == "v1";
    if virtual_group || core.registry.serves(group, version) {
        return Ok(Route::GroupVersion(group.into(), version.into()));
    }
    Err(nowhere(group))
}

fn target(core: &Core, group: &str, version: &str, rest: &[&str]) -> Result<Target> {
    let find = |plural: &str| {
        let missing = || if core.registry.serves(group, version) { ApiError::no_such_path() } else { nowhere(group) };
        core.registry.get(group, version, plural).ok_or_else(missing)
    };
    let (namespace, plural, name, subresource) = match rest {
        // `/namespaces/{name}/status` and `/finalize` are of the namespace itself.
        ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
            ("", "namespaces", *name, Some(*sub))
        }
        ["namespaces", namespace, plural] => (*namespace, *plural, "", None),
        ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, None),
        ["namespaces", namespace, plural, name, sub @ ..] => (*namespace, *plural, *name, Some(sub[0])),
        [plural] => ("", *plural, "", None),
        [plural, name] => ("", *plural, *name, None),
        [plural, name, sub] => ("", *plural, *name, Some(*sub)),
        _ => return Err(ApiError::no_such_path()),
    };
    let resource = find(plural)?;
    // A namespaced object without its namespace, or the reverse, is no path.
    if resource.namespaced == namespace.is_empty() && !(resource.namespaced && name.is_empty()) {
        return Err(if resource.is_custom() { ApiError::page_not_found() } else { ApiError::no_such_path() });
    }
    if let Some(sub) = subresource
        && !resource.subresources().contains(&sub)
    {
        if resource.is_custom() {
            return Err(ApiError::not_found(group, plural, name));
        }
        return Err(ApiError::no_such_path());
    }
    let mut target = Target::new(resource, namespace, name);
    target.subresource = subresource.map(Into::into);
    Ok(target)
}
