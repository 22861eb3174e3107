//! What a sandbox needs beside its object: the account of a private registry as a pull secret, and claims.
//!
//! Such a sandbox is written with no replicas first, so that what is made for it can name it as its owner and goes with
//! it, whatever fails in between; only then it is given its replica.

use std::collections::BTreeMap;

use api_types::crd::BatchSandbox;
use api_types::lifecycle::ImageAuth;
use api_types::names::labels;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::validate::{Create, ImageSource, Source};
use crate::app::App;
use crate::error::{ApiError, from_kube, within};

/// Name of the pull secret of a sandbox.
pub fn secret_name(id: &str) -> String {
    format!("opensandbox-image-auth-{id}")
}

/// Whether a create needs anything beside its object.
pub fn needed(create: &Create) -> bool {
    image(create).is_some_and(|i| i.auth.is_some() || i.volumes.iter().any(|v| v.new_claim().is_some()))
}

fn image(create: &Create) -> Option<&ImageSource> {
    match &create.source {
        Source::Image(image) => Some(image),
        Source::Pool(_) => None,
    }
}

/// Makes it. What is there already, of an earlier try or by somebody's hand, is left as it is.
pub async fn make(app: &App, create: &Create, object: &BatchSandbox) -> Result<(), ApiError> {
    let Some(image) = image(create) else { return Ok(()) };
    let namespace = &app.space().namespace;
    if let Some(auth) = &image.auth {
        let api = Api::<Secret>::namespaced(app.client.clone(), namespace);
        put(app, &api, &pull_secret(object, &image.uri, auth), "creating the pull secret").await?;
    }
    let api = Api::<PersistentVolumeClaim>::namespaced(app.client.clone(), namespace);
    for (mut claim, goes_with_sandbox) in image.volumes.iter().filter_map(super::volumes::Volume::new_claim) {
        if goes_with_sandbox {
            claim.metadata.owner_references = owner(object).map(|owner| vec![owner]);
        }
        let doing = format!("creating the claim {}", claim.name_any());
        put(app, &api, &claim, &doing).await?;
    }
    Ok(())
}

async fn put<K>(app: &App, api: &Api<K>, object: &K, doing: &str) -> Result<(), ApiError>
where
    K: Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let params = PostParams::default();
    match within(app.config.limits.kube_timeout, doing, api.create(&params, object)).await? {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(from_kube(&error, doing)),
    }
}

fn owner(object: &BatchSandbox) -> Option<OwnerReference> {
    object.owner_ref(&())
}

fn pull_secret(object: &BatchSandbox, image: &str, auth: &ImageAuth) -> Secret {
    let both = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    let account = json!({"username": auth.username, "password": auth.password, "auth": both});
    let content = json!({"auths": {registry(image): account}}).to_string();
    let id = object.name_any();
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&id)),
            labels: Some(BTreeMap::from([(labels::SANDBOX_ID.to_owned(), id)])),
            owner_references: owner(object).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(content.into_bytes()))])),
        ..Secret::default()
    }
}

/// The registry of a reference, under the name that kubelet looks for.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "https://index.docker.io/v1/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::state::tests::object;

    #[test]
    fn the_pull_secret_is_owned_by_the_sandbox_and_for_its_registry() {
        let auth = ImageAuth { username: "u".to_owned(), password: "p".to_owned() };
        let secret = pull_secret(&object(serde_json::Value::Null), "r.example:5000/a/b:1", &auth);
        assert_eq!(secret.metadata.name.as_deref(), Some("opensandbox-image-auth-s"));
        assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, "u");
        let content: serde_json::Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
        assert_eq!(content["auths"]["r.example:5000"]["auth"], "dTpw");
        for (image, expected) in [
            ("busybox", "https://index.docker.io/v1/"),
            ("team/app:1", "https://index.docker.io/v1/"),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/x", "localhost"),
        ] {
            assert_eq!(registry(image), expected);
        }
    }
}
