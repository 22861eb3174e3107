//! Tenants by file: `[[tenants]]` with name, namespace and keys, and ours beside them: scope, quota and rate.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Identified, Quota, Tenant};
use crate::front::rate::Rate;
use crate::keys::{ApiKeys, Scope};
use crate::labels::{is_dns_label, value_problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    tenants: Vec<WireTenant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTenant {
    name: String,
    namespace: String,
    api_keys: Vec<String>,
    #[serde(default)]
    scope: Option<Scope>,
    #[serde(default)]
    quota: Quota,
    #[serde(default)]
    requests_per_second: Option<NonZeroU32>,
}

/// What a file says.
#[derive(Debug, Default)]
pub struct TenantsFile {
    tenants: Vec<Arc<Tenant>>,
    /// Keys of the tenant of the same place.
    keys: Vec<ApiKeys>,
}

impl TenantsFile {
    /// Reads a file. The error says what is wrong with which tenant, and never what a key is.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The error's own text would quote the line, which may hold a key.
        let wire: Wire = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if wire.tenants.is_empty() {
            return Err("there is no tenant; write [[tenants]] with name, namespace and api_keys".to_owned());
        }
        let mut file = Self::default();
        let mut names = HashSet::new();
        let mut all_keys = HashSet::new();
        for tenant in wire.tenants {
            let refuse = |why: &str| Err(format!("tenant {:?}: {why}", tenant.name));
            if tenant.name.is_empty() || value_problem(&tenant.name).is_some() {
                return refuse("its name is 1 to 63 letters, digits, '-', '_' or '.'");
            }
            if !is_dns_label(&tenant.namespace) {
                return refuse("its namespace is at most 63 lower-case letters, digits and inner dashes");
            }
            if !names.insert(tenant.name.clone()) {
                return refuse("another tenant has this name");
            }
            if tenant.api_keys.iter().any(|key| key.trim().is_empty()) || tenant.api_keys.is_empty() {
                return refuse("api_keys holds at least one key, and none that is blank");
            }
            if !tenant.api_keys.iter().all(|key| all_keys.insert(key.clone())) {
                return refuse("a key of it is there twice; each key is one tenant's");
            }
            let scope = tenant.scope.unwrap_or(Scope::Run);
            let keys: Result<Vec<_>, _> = tenant.api_keys.iter().map(|key| ApiKeys::one(key, scope)).collect();
            let Ok(keys) = keys else {
                return refuse("sha256: is followed by the 64 hex digits of a hash");
            };
            file.keys.push(keys.into_iter().fold(ApiKeys::default(), ApiKeys::and));
            file.tenants.push(Arc::new(Tenant {
                name: tenant.name,
                namespace: tenant.namespace,
                quota: tenant.quota,
                rate: tenant.requests_per_second.map(|n| Rate::per_second(n, None)),
            }));
        }
        Ok(file)
    }

    /// The tenants.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }

    /// Whose a key is. Every key is looked at, so that the time tells nothing.
    pub fn find(&self, key: &[u8]) -> Option<Identified> {
        let now = Timestamp::now();
        let mut found = None;
        for (tenant, keys) in self.tenants.iter().zip(&self.keys) {
            if let Some(caller) = keys.find(key, now) {
                let tenant = tenant.clone();
                found = Some(Identified { tenant, scope: caller.scope, fingerprint: caller.name });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tenants() {
        let text = r#"
            [[tenants]]
            name = "red"
            namespace = "team-red"
            api_keys = ["one", "two"]
            [[tenants]]
            name = "blue"
            namespace = "team-blue"
            # SHA-256 of "secret".
            api_keys = ["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]
            scope = "admin"
            requests_per_second = 5
            quota = { sandboxes = 3, cpu = "1500m", memory = "2Gi" }
        "#;
        let file = TenantsFile::parse(text).unwrap();
        let red = file.find(b"two").unwrap();
        assert_eq!((red.tenant.namespace.as_str(), red.scope), ("team-red", Scope::Run));
        assert!(red.caller().name.starts_with("red/key-"));
        let blue = file.find(b"secret").unwrap();
        assert_eq!((blue.tenant.name.as_str(), blue.scope), ("blue", Scope::Admin));
        assert_eq!((blue.tenant.quota.sandboxes, blue.tenant.quota.milli_cpu()), (Some(3), Some(1500)));
        assert_eq!(file.find(b"three"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_a_key() {
        let tenant = |name: &str, namespace: &str, keys: &str| {
            format!("[[tenants]]\nname = \"{name}\"\nnamespace = \"{namespace}\"\napi_keys = {keys}\n")
        };
        for text in [
            String::new(),
            tenant("a b", "n", "[\"hush\"]"),
            tenant("a", "N", "[\"hush\"]"),
            tenant("a", "n", "[]"),
            tenant("a", "n", "[\" \"]"),
            tenant("a", "n", "[\"hush\"]") + &tenant("a", "m", "[\"x\"]"),
            tenant("a", "n", "[\"hush\"]") + &tenant("b", "m", "[\"hush\"]"),
            tenant("a", "n", "[\"sha256:hush\"]"),
            tenant("a", "n", "[\"hush\"]") + "quota = { cpu = \"much\" }",
            tenant("a", "n", "[\"hush\"]") + "colour = 1",
        ] {
            let why = TenantsFile::parse(&text).unwrap_err();
            assert!(!why.is_empty() && !why.contains("hush"), "{why}");
        }
    }
}
