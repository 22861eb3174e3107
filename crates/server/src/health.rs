//! Readiness: the two memories are filled and the rights are there. What is missing is named, with what to do.

use std::sync::Weak;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use telemetry::{Check, Readiness};

use crate::app::Shared;
use crate::error::chain;

/// Group of the platform's own objects.
const GROUP: &str = api_types::names::GROUP;
/// While rights are missing they are asked about again after this.
const AGAIN: Duration = Duration::from_secs(15);

/// Rights without which the server can't do its work: verb, group, resource.
pub const NEEDED: [(&str, &str, &str); 9] = [
    ("get", GROUP, "batchsandboxes"),
    ("list", GROUP, "batchsandboxes"),
    ("watch", GROUP, "batchsandboxes"),
    ("create", GROUP, "batchsandboxes"),
    ("patch", GROUP, "batchsandboxes"),
    ("delete", GROUP, "batchsandboxes"),
    ("get", GROUP, "pools"),
    ("list", GROUP, "pools"),
    ("watch", GROUP, "pools"),
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

/// What is wrong with a watch, and whether waiting alone may mend it.
#[derive(Debug, PartialEq, Eq)]
pub struct WatchTrouble {
    /// One sentence with what to do.
    pub message: String,
    /// Somebody has to do something.
    pub lasting: bool,
}

/// Reads the error of a watch.
pub fn watch_trouble(error: &watcher::Error, plural: &str, namespace: &str) -> WatchTrouble {
    let kube = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => Some(error),
        watcher::Error::WatchFailed(error) => Some(error),
        _ => None,
    };
    let code = match (error, kube) {
        (watcher::Error::WatchError(status), _) => Some(status.code),
        (_, Some(kube::Error::Api(status))) => Some(status.code),
        _ => None,
    };
    let lasting = |message: String| WatchTrouble { message, lasting: true };
    match code {
        Some(404) => lasting(format!(
            "the resource {plural}.{GROUP} is not known to the API server: install the CustomResourceDefinitions (Helm value crds.install)"
        )),
        Some(403) => lasting(format!(
            "not allowed to list and watch {plural}.{GROUP} in namespace {namespace}: grant both verbs to the server's service account"
        )),
        Some(401) => {
            lasting("the API server does not take our credentials: check the service account's token".to_owned())
        }
        Some(code) => {
            WatchTrouble { message: format!("the API server answers {code}: {}", chain(error)), lasting: false }
        }
        None => WatchTrouble { message: format!("the API server can't be reached: {}", chain(error)), lasting: false },
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
                let message = format!("missing in namespace {}: {}", shared.config.namespace, missing.join(", "));
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

/// The rights that are missing, as `verb resource`.
async fn missing(app: &Shared) -> kube::Result<Vec<String>> {
    let api: Api<SelfSubjectAccessReview> = Api::all(app.client.clone());
    let reviews = NEEDED.map(|(verb, group, resource)| {
        let api = api.clone();
        let attributes = ResourceAttributes {
            namespace: Some(app.config.namespace.clone()),
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        async move {
            let asked = tokio::time::timeout(AGAIN, api.create(&PostParams::default(), &review)).await;
            let allowed = match asked {
                Ok(Ok(answer)) => answer.status.is_none_or(|status| status.allowed),
                // An API that answers no such question has no rights to lack.
                Ok(Err(kube::Error::Api(_))) => true,
                Ok(Err(error)) => return Err(error),
                Err(_) => false,
            };
            Ok((!allowed).then(|| format!("{verb} {resource}.{group}")))
        }
    });
    let answers = futures::future::try_join_all(reviews).await?;
    Ok(answers.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> WatchTrouble {
        let mut status = kube::core::Status::failure("words of Kubernetes", "");
        status.code = code;
        let error = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        watch_trouble(&error, "pools", "team-a")
    }

    #[test]
    fn what_is_missing_is_named() {
        let crd = refused(404);
        assert!(crd.lasting && crd.message.contains("pools.sandbox.opensandbox.io"), "{crd:?}");
        let right = refused(403);
        assert!(right.lasting && right.message.contains("namespace team-a"), "{right:?}");
        assert!(!refused(500).lasting);
    }
}
