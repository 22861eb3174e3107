//! The tenants' settings: who knows the tenants, and what can't stand beside them.

use std::path::PathBuf;

use super::Settings;
use super::program::seconds;
use crate::Config;
use crate::tenants::{Provider, ProviderSettings, Tenants, TenantsFile};

/// Puts the tenants into the configuration; the answer is the file that they come from.
pub fn tenants(s: &mut Settings, config: &mut Config) -> Option<PathBuf> {
    let provider = s.text("tenants.provider")?;
    for key in ["server.api_key", "server.api_keys_file", "server.insecure"] {
        if s.text(key).is_some() {
            s.refuse(key, "can't stand beside tenants, whose keys are the only ones; leave it out");
        }
    }
    if !s.list("storage.allowed_host_paths").is_empty() {
        s.refuse(
            "storage.allowed_host_paths",
            "can't stand beside tenants: what lies on a node is nobody's in particular",
        );
    }
    if provider == "file" {
        let path = at_home(s.path("tenants.file").unwrap_or_default());
        match TenantsFile::read(&path) {
            Ok(file) => config.tenants = Some(Tenants::file(file)),
            Err(why) => s.refuse("tenants.file", why),
        }
        return Some(path);
    }
    let Some(endpoint) = s.text("tenants.endpoint") else {
        s.refuse("tenants.endpoint", "is missing; the provider http needs the URL of its service");
        return None;
    };
    let auth = match (s.text("tenants.auth_header"), s.text("tenants.auth_token")) {
        (Some(header), Some(token)) => {
            if http::HeaderName::try_from(&header).is_err() || http::HeaderValue::try_from(&token).is_err() {
                s.refuse("tenants.auth_header", "and tenants.auth_token make no header");
            }
            Some((header, token))
        }
        (None, None) => None,
        _ => {
            s.refuse("tenants.auth_header", "and tenants.auth_token come together");
            None
        }
    };
    let settings = ProviderSettings {
        endpoint,
        auth,
        timeout: seconds(s.integer("tenants.timeout_seconds")),
        max_stale: seconds(s.integer("tenants.max_stale_seconds")),
    };
    match Provider::new(settings) {
        Ok(provider) => config.tenants = Some(Tenants::Http(provider.into())),
        Err(why) => s.refuse("tenants.endpoint", why),
    }
    None
}

/// `~/` is the home of whoever runs the server.
fn at_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
