//! A create request, checked: pure, and every refusal names the member's path.

use std::collections::BTreeMap;

use api_types::ErrorCode;
use api_types::lifecycle::{CreateSandboxRequest, EXTENSION_ECHO_PREFIX, EXTENSION_POOL_REF, ImageAuth, Platform};
use api_types::names::{annotations, labels};

use super::volumes::{self, Volume};
use crate::config::Config;
use crate::error::ApiError;
use crate::labels::{is_object_name, key_problem, value_problem};

/// Shortest `timeout`, in seconds. OpenSandbox 1.1.1: 60.
pub const MIN_TIMEOUT: i64 = 60;
/// Extension that asks for a longer life with every access.
const EXTENSION_RENEW: &str = "access.renew.extend.seconds";
/// Annotation that keeps it.
const ANNOTATION_RENEW: &str = "opensandbox.io/access-renew-extend-seconds";
/// Extension that asks for isolated sessions.
const EXTENSION_ISOLATION: &str = "bootstrap.execd.isolation";

/// Where the sandbox's pod comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A pool by name, or `*` for one that the controller chooses.
    Pool(String),
    /// A pod of its own.
    Image(ImageSource),
}

/// A pod of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSource {
    /// Image reference.
    pub uri: String,
    /// Limits by Kubernetes resource name.
    pub limits: BTreeMap<String, String>,
    /// Requests by Kubernetes resource name.
    pub requests: BTreeMap<String, String>,
    /// Account for the image's registry.
    pub auth: Option<ImageAuth>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// A create that may be carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    /// Where the pod comes from.
    pub source: Source,
    /// Seconds to live.
    pub timeout: Option<i64>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Program and arguments.
    pub entrypoint: Vec<String>,
    /// Labels of the caller.
    pub metadata: BTreeMap<String, String>,
    /// Annotations that come of extensions.
    pub annotations: BTreeMap<String, String>,
    /// Where it must run.
    pub platform: Option<Platform>,
    /// Name of the tenant it is for; the handler knows it.
    pub tenant: Option<String>,
    /// What was asked for and does not take effect.
    pub warnings: Vec<String>,
}

/// Checks a request.
pub fn check(request: &CreateSandboxRequest, config: &Config) -> Result<Create, ApiError> {
    if !blank(request.template_id.as_deref()) {
        return Err(ApiError::unsupported("templateId", "this server starts sandboxes from pools and images"));
    }
    let timeout = check_timeout(request.timeout, config.max_timeout)?;
    let env = check_env(request)?;
    let metadata = request.metadata.clone().unwrap_or_default();
    check_metadata(metadata.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))))?;
    let mut warnings = Vec::new();
    let annotations = check_extensions(request, &mut warnings)?;
    let platform = check_platform(request.platform.as_ref())?;
    let pool = request.extensions.as_ref().and_then(|e| e.get(EXTENSION_POOL_REF)).map(|p| p.trim());
    let source = match pool.filter(|p| !p.is_empty()) {
        Some(pool) => check_pool(request, pool, &mut warnings)?,
        None => check_image(request, config)?,
    };
    let needs_entrypoint = matches!(source, Source::Image(_));
    let entrypoint = check_entrypoint(request.entrypoint.as_deref(), needs_entrypoint)?;
    Ok(Create { source, timeout, env, entrypoint, metadata, annotations, platform, tenant: None, warnings })
}

fn blank(text: Option<&str>) -> bool {
    text.is_none_or(|t| t.trim().is_empty())
}

fn check_timeout(timeout: Option<i64>, max: Option<i64>) -> Result<Option<i64>, ApiError> {
    match timeout {
        Some(t) if t < MIN_TIMEOUT => {
            Err(ApiError::field("timeout", format_args!("is {t} s; the shortest is {MIN_TIMEOUT} s")))
        }
        Some(t) if max.is_some_and(|max| t > max) => Err(ApiError::field(
            "timeout",
            format_args!("is {t} s; the longest on this server is {} s", max.unwrap_or_default()),
        )),
        // Year 9999 is as far as timestamps go.
        Some(t) if t > 100 * 366 * 86_400 => Err(ApiError::field("timeout", format_args!("is {t} s: over a century"))),
        timeout => Ok(timeout),
    }
}

fn check_env(request: &CreateSandboxRequest) -> Result<BTreeMap<String, String>, ApiError> {
    let mut env = BTreeMap::new();
    for (name, value) in request.env.iter().flatten() {
        let field = format!("env[{name:?}]");
        if name.is_empty() {
            return Err(ApiError::field(&field, "a variable needs a name"));
        }
        if name.contains(['=', '\0']) {
            return Err(ApiError::field(&field, "a variable's name has no '=' and no NUL"));
        }
        let value = value.clone().unwrap_or_default();
        if value.contains('\0') {
            return Err(ApiError::field(&field, "a variable's value has no NUL"));
        }
        env.insert(name.clone(), value);
    }
    Ok(env)
}

/// Checks metadata as labels; a value of `None` takes the label away.
pub fn check_metadata<'a>(pairs: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<(), ApiError> {
    let refuse =
        |key: &str, why: &str| Err(ApiError::new(ErrorCode::InvalidMetadataLabel, format!("metadata[{key:?}]: {why}")));
    for (key, value) in pairs {
        if key.starts_with(labels::RESERVED_PREFIX) {
            return refuse(key, "keys below opensandbox.io/ are the platform's own");
        }
        if let Some(why) = key_problem(key) {
            return refuse(key, why);
        }
        if let Some(why) = value.and_then(value_problem) {
            return refuse(key, why);
        }
    }
    Ok(())
}

fn check_extensions(
    request: &CreateSandboxRequest,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut kept = BTreeMap::new();
    for (key, value) in request.extensions.iter().flatten() {
        let field = format!("extensions[{key:?}]");
        if let Some(suffix) = key.strip_prefix(EXTENSION_ECHO_PREFIX) {
            let annotation = format!("{}{suffix}", annotations::EXTENSIONS_PREFIX);
            if let Some(why) = key_problem(&annotation) {
                return Err(ApiError::field(&field, format_args!("can't be kept as an annotation: {why}")));
            }
            kept.insert(annotation, value.clone());
        } else if key == EXTENSION_RENEW {
            let seconds = value.trim().parse::<u32>().ok().filter(|s| (300..=86_400).contains(s));
            if seconds.is_none() {
                return Err(ApiError::field(&field, "is a number of seconds from 300 to 86400"));
            }
            kept.insert(ANNOTATION_RENEW.to_owned(), value.trim().to_owned());
            warnings.push(format!("{field}: kept; this server does not renew on access, call renew-expiration"));
        } else if key == EXTENSION_ISOLATION && value == "enable" {
            return Err(ApiError::unsupported(&field, "this server has no isolated sessions"));
        }
    }
    Ok(kept)
}

fn check_platform(platform: Option<&Platform>) -> Result<Option<Platform>, ApiError> {
    let Some(platform) = platform else {
        return Ok(None);
    };
    let os = platform.os.trim().to_ascii_lowercase();
    let arch = platform.arch.trim().to_ascii_lowercase();
    match os.as_str() {
        "linux" => {}
        "windows" => return Err(ApiError::unsupported("platform.os", "this server runs linux sandboxes")),
        _ => return Err(ApiError::field("platform.os", format_args!("is {os:?}; it is linux or windows"))),
    }
    if !matches!(arch.as_str(), "amd64" | "arm64") {
        return Err(ApiError::field("platform.arch", format_args!("is {arch:?}; it is amd64 or arm64")));
    }
    Ok(Some(Platform { os, arch }))
}

/// What a warm pod can't be given is refused, never dropped; image and resources, which the
/// published SDKs always send, are the pool's own, and the answer says so.
fn check_pool(request: &CreateSandboxRequest, pool: &str, warnings: &mut Vec<String>) -> Result<Source, ApiError> {
    if pool != "*" && !is_object_name(pool) {
        return Err(ApiError::pool_not_found(pool));
    }
    let refuse = |field: &str| {
        Err(ApiError::field(field, "can't be asked of a pod from a pool; put it into the pool's template"))
    };
    if !blank(request.snapshot_id.as_deref()) {
        return refuse("snapshotId");
    }
    if request.volumes.as_ref().is_some_and(|v| !v.is_empty()) {
        return refuse("volumes");
    }
    if request.network_policy.is_some() {
        return refuse("networkPolicy");
    }
    if request.lifecycle.is_some() {
        return refuse("lifecycle");
    }
    if request.secure_access == Some(true) {
        return refuse("secureAccess");
    }
    if request.credential_proxy.as_ref().is_some_and(|c| c.enabled) {
        return refuse("credentialProxy.enabled");
    }
    let whose = if pool == "*" { "the pool that is chosen".to_owned() } else { format!("pool {pool}") };
    if let Some(image) = request.image.as_ref().filter(|i| !i.uri.trim().is_empty()) {
        warnings.push(format!("image.uri: {:?} is ignored; the pods of {whose} have their own image", image.uri));
        if image.auth.is_some() {
            warnings.push("image.auth: is ignored with the image".to_owned());
        }
    }
    for (field, given) in
        [("resourceLimits", &request.resource_limits), ("resourceRequests", &request.resource_requests)]
    {
        if given.as_ref().is_some_and(|g| !g.is_empty()) {
            warnings.push(format!("{field}: ignored; the pods of {whose} have their own"));
        }
    }
    Ok(Source::Pool(pool.to_owned()))
}

fn check_image(request: &CreateSandboxRequest, config: &Config) -> Result<Source, ApiError> {
    let unsupported =
        |field: &str, what: &str| Err(ApiError::unsupported(field, format_args!("this server has no {what}")));
    if !blank(request.snapshot_id.as_deref()) {
        if request.image.as_ref().is_some_and(|i| !i.uri.trim().is_empty()) {
            return Err(ApiError::field("snapshotId", "give either image or snapshotId"));
        }
        return unsupported("snapshotId", "snapshots");
    }
    let Some(image) = request.image.as_ref().filter(|i| !i.uri.trim().is_empty()) else {
        return Err(ApiError::field("image.uri", "give an image, or a pool in extensions.poolRef"));
    };
    if image.auth.as_ref().is_some_and(|auth| auth.username.is_empty() || auth.username.contains(':')) {
        return Err(ApiError::field("image.auth.username", "is a name without a colon"));
    }
    if request.network_policy.is_some() {
        return unsupported("networkPolicy", "egress sidecar");
    }
    if request.credential_proxy.as_ref().is_some_and(|c| c.enabled) {
        return unsupported("credentialProxy.enabled", "credential proxy");
    }
    if request.lifecycle.is_some() {
        return unsupported("lifecycle", "lifecycle hooks");
    }
    if request.secure_access == Some(true) {
        return Err(ApiError::field("secureAccess", "needs a gateway, which this server is not behind"));
    }
    Ok(Source::Image(ImageSource {
        uri: image.uri.trim().to_owned(),
        limits: check_resources("resourceLimits", request.resource_limits.as_ref())?,
        requests: check_resources("resourceRequests", request.resource_requests.as_ref())?,
        auth: image.auth.clone(),
        volumes: volumes::check(request.volumes.as_deref().unwrap_or_default(), config)?,
    }))
}

fn check_resources(
    field: &str,
    given: Option<&BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut resources = BTreeMap::new();
    for (name, quantity) in given.into_iter().flatten() {
        let path = format!("{field}[{name:?}]");
        if name == "gpu" {
            if quantity.parse::<u32>().ok().filter(|n| *n > 0).is_none() {
                return Err(ApiError::field(&path, format_args!("is {quantity:?}; it is a number of GPUs from 1")));
            }
            resources.insert("nvidia.com/gpu".to_owned(), quantity.clone());
            continue;
        }
        if let Some(why) = key_problem(name) {
            return Err(ApiError::field(&path, format_args!("is no resource: {why}")));
        }
        if !is_quantity(quantity) {
            return Err(ApiError::field(&path, format_args!("{quantity:?} is no quantity such as 500m or 2Gi")));
        }
        resources.insert(name.clone(), quantity.clone());
    }
    Ok(resources)
}

/// Kubernetes: a non-negative decimal number with a binary or decimal suffix, or an exponent.
pub fn is_quantity(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<i8>().is_ok());
    number.parse::<f64>().is_ok()
        && (exponent
            || matches!(
                suffix,
                "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
            ))
}

fn check_entrypoint(entrypoint: Option<&[String]>, needed: bool) -> Result<Vec<String>, ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidEntrypoint, message));
    let Some(entrypoint) = entrypoint else {
        if needed {
            return refuse("entrypoint: an image needs one, e.g. [\"tail\",\"-f\",\"/dev/null\"]".to_owned());
        }
        return Ok(Vec::new());
    };
    if entrypoint.first().is_none_or(|program| program.trim().is_empty()) {
        return refuse("entrypoint: needs a program as its first element".to_owned());
    }
    if let Some(at) = entrypoint.iter().position(|word| word.contains('\0')) {
        return refuse(format!("entrypoint[{at}]: has a NUL"));
    }
    Ok(entrypoint.to_vec())
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
