//! Readiness: the two memories are filled and the rights are there. What is missing is named, with what to do.

use std::sync::Weak;
use std::time::Duration;

use telemetry::chain;
use telemetry::kubernetes::{self, Rule};
use telemetry::{Check, Readiness};

use crate::app::Shared;

/// Group of the platform's own objects.
const GROUP: &str = api_types::names::GROUP;
/// While rights are missing they are asked about again after this.
const AGAIN: Duration = Duration::from_secs(15);

/// Rights without which the server can't do its work.
const NEEDED: [Rule; 2] = [
    Rule::of_all(GROUP, "batchsandboxes", &["get", "list", "watch", "create", "patch", "delete"]),
    Rule::of_all(GROUP, "pools", &["get", "list", "watch"]),
];

/// The checks of a server.
pub struct Health {
    /// All of them.
    pub readiness: Readiness,
    /// Memory of sandboxes.
    pub sandboxes: Check,
    /// Memory of pools.
    pub pools: Check,
    /// Rights.
    pub access: Check,
    /// Fails from the stop on.
    pub serving: Check,
}

impl Default for Health {
    fn default() -> Self {
        let readiness = Readiness::default();
        let serving = readiness.check("serving", "");
        serving.pass();
        Self {
            sandboxes: readiness.check("batchsandboxes", "not read from Kubernetes yet"),
            pools: readiness.check("pools", "not read from Kubernetes yet"),
            access: readiness.check("access", "not asked about yet"),
            readiness,
            serving,
        }
    }
}

/// Asks which of the needed rights are missing, until none is.
pub async fn watch_access(app: Weak<Shared>) {
    loop {
        let Some(shared) = app.upgrade() else { return };
        let stop = shared.stop.clone();
        let asked = tokio::select! {
            asked = missing(&shared) => asked,
            () = stop.cancelled() => return,
        };
        let access = shared.health.access.clone();
        match asked {
            Ok(missing) if missing.is_empty() => {
                access.pass();
                return;
            }
            Ok(missing) => {
                let message = format!("missing: {}; install the chart's RBAC", missing.join("; "));
                tracing::warn!(message, "rights");
                access.fail(message);
            }
            Err(error) => access.fail(format!("the API server can't be reached: {}", chain(&error))),
        }
        drop(shared);
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The rights that are missing in every namespace that is known.
async fn missing(app: &Shared) -> kube::Result<Vec<String>> {
    let namespaces = match &app.config.tenants {
        None => vec![app.config.namespace.clone()],
        Some(tenants) => tenants.namespaces(),
    };
    let asked = namespaces.iter().map(|namespace| kubernetes::missing(&app.client, Some(namespace), &NEEDED));
    Ok(futures::future::try_join_all(asked).await?.concat())
}
