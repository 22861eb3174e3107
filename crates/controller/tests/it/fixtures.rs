//! Creates the objects of a YAML file, as `tests/fixtures/upstream/README.md` says.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

const OBJECTS: &str = include_str!("../fixtures/upstream/objects.yaml");
const TERMINATING: &str = include_str!("../fixtures/upstream/terminating.yaml");

/// Creates everything; the answer is the UIDs by `Kind/name`.
pub async fn upstream(client: &Client) -> BTreeMap<String, String> {
    let mut uids = BTreeMap::new();
    create(client, OBJECTS, &mut uids).await;
    for name in create(client, TERMINATING, &mut uids).await {
        let (api, name) = (api(client, "BatchSandbox"), name.strip_prefix("BatchSandbox/").map(str::to_owned));
        if let Some(name) = name {
            api.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }
    uids
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let (group, version) = if kind == "Pod" { ("", "v1") } else { ("sandbox.opensandbox.io", "v1alpha1") };
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    resource.plural = kind.to_lowercase() + if kind.ends_with('x') { "es" } else { "s" };
    Api::namespaced_with(client.clone(), "default", &resource)
}

async fn create(client: &Client, text: &str, uids: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut created = Vec::new();
    for document in text.split("\n---\n").skip(1) {
        let mut document = document.to_owned();
        for (name, uid) in &*uids {
            document = document.replace(&format!("@uid({name})@"), uid);
        }
        let mut value: Value = serde_saphyr::from_str(&document).unwrap();
        let status = value.as_object_mut().unwrap().remove("status");
        let kind = value["kind"].as_str().unwrap().to_owned();
        let api = api(client, &kind);
        let object: DynamicObject = serde_json::from_value(value).unwrap();
        let name = object.name_any();
        let object = api.create(&PostParams::default(), &object).await.unwrap();
        if let Some(status) = status {
            let patch = serde_json::json!({"status": status});
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        }
        uids.insert(format!("{kind}/{name}"), object.uid().unwrap());
        created.push(format!("{kind}/{name}"));
    }
    created
}
