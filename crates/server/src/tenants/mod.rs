//! Tenants: whose a key is, in which namespace its sandboxes live, and how much it may have at once.

mod file;
mod http;
pub mod quota;

use std::sync::Arc;

use parking_lot::RwLock;

pub use file::TenantsFile;
pub use http::{Provider, ProviderSettings};
pub use quota::Quota;

use crate::front::rate::Rate;
use crate::keys::{Caller, Scope};

/// One tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Name; the value of the label on its objects.
    pub name: String,
    /// Namespace of its sandboxes and pools.
    pub namespace: String,
    /// What it may have at once.
    pub quota: Quota,
    /// How often it may ask; absent is the server's own bound.
    pub rate: Option<Rate>,
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identified {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// What the key may do there.
    pub scope: Scope,
    /// Tells the keys of a tenant apart, and opens nothing.
    pub fingerprint: String,
}

impl Identified {
    /// As the front door and the audit log know it.
    pub fn caller(&self) -> Caller {
        let name = format!("{}/{}", self.tenant.name, self.fingerprint);
        Caller { name, scope: self.scope, tenant: Some(self.tenant.clone()) }
    }
}

/// Why a provider can't say whose a key is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the tenant provider can't be asked: {0}")]
pub struct Unavailable(pub String);

/// Who knows the tenants.
#[derive(Clone)]
pub enum Tenants {
    /// A file, which may change while the server runs.
    File(Arc<RwLock<Arc<TenantsFile>>>),
    /// A service that is asked about each key.
    Http(Arc<Provider>),
}

impl Tenants {
    /// The tenants of a file.
    pub fn file(file: TenantsFile) -> Self {
        Self::File(Arc::new(RwLock::new(Arc::new(file))))
    }

    /// Whose a key is; nothing when it is nobody's.
    pub async fn find(&self, key: &[u8]) -> Result<Option<Identified>, Unavailable> {
        match self {
            Self::File(file) => {
                let file = file.read().clone();
                Ok(file.find(key))
            }
            Self::Http(provider) => provider.find(key).await,
        }
    }

    /// The tenant of an object that bears this label.
    pub fn named(&self, name: &str, namespace: &str) -> Option<Arc<Tenant>> {
        match self {
            Self::File(file) => file.read().tenants().iter().find(|t| t.name == name).cloned(),
            Self::Http(_) => Some(Arc::new(Tenant {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                quota: Quota::default(),
                rate: None,
            })),
        }
    }

    /// The namespaces that are known beforehand.
    pub fn namespaces(&self) -> Vec<String> {
        let mut found: Vec<_> = match self {
            Self::File(file) => file.read().tenants().iter().map(|t| t.namespace.clone()).collect(),
            Self::Http(_) => Vec::new(),
        };
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "Tenants::File",
            Self::Http(_) => "Tenants::Http",
        })
    }
}
