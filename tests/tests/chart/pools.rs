//! Pools in values: whole objects, with our daemons' images filled in where they are left out.

use serde_json::Value;

use crate::helm;

/// The production pool as a value.
fn production(change: impl Fn(&mut Value)) -> String {
    let text = std::fs::read_to_string(helm::root().join("examples/pool-agent-production.yaml")).unwrap();
    let mut pool: Value = serde_saphyr::from_str(&text).unwrap();
    change(&mut pool);
    serde_json::json!({"pools": [pool]}).to_string()
}

fn image<'a>(pool: &'a Value, containers: &str, name: &str) -> &'a Value {
    let containers = pool["spec"]["template"]["spec"][containers].as_array().unwrap();
    &containers.iter().find(|container| container["name"] == name).unwrap()["image"]
}

#[test]
fn a_manifest_fits_in_as_it_is() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render(&production(|_| {})).unwrap();
    let pool = rendered.one("Pool", "agent-pool");
    assert_eq!(pool["apiVersion"], "sandbox.opensandbox.io/v1alpha1");
    assert_eq!(pool["metadata"]["namespace"], "default");
    assert_eq!(pool["metadata"]["labels"]["component"], "agent-pool");
    let text = std::fs::read_to_string(helm::root().join("examples/pool-agent-production.yaml")).unwrap();
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(pool["spec"], manifest["spec"]);
    assert_eq!(pool["metadata"]["annotations"], manifest["metadata"]["annotations"]);
}

#[test]
fn images_of_our_daemons_are_filled_in() {
    if helm::missing() {
        return;
    }
    let bare = production(|pool| {
        pool.as_object_mut().unwrap().retain(|key, _| key == "metadata" || key == "spec");
        pool["metadata"].as_object_mut().unwrap().remove("namespace");
        let spec = &mut pool["spec"]["template"]["spec"];
        spec["initContainers"][0].as_object_mut().unwrap().remove("image");
        for key in ["image", "imagePullPolicy"] {
            spec["containers"][1].as_object_mut().unwrap().remove(key);
        }
    });
    let mut values: Value = serde_json::from_str(&bare).unwrap();
    values["sandboxes"] = serde_json::json!({"namespace": "agents", "imagePullSecrets": [{"name": "regcred"}]});
    values["global"] = serde_json::json!({"imageRegistry": "registry.example.com"});
    let digest = format!("sha256:{}", "0".repeat(64));
    values["taskExecutor"] = serde_json::json!({"image": {"tag": "1.2.3", "digest": digest, "pullPolicy": "Never"}});
    let rendered = helm::render(&values.to_string()).unwrap();
    let pool = rendered.one("Pool", "agent-pool");
    assert_eq!(pool["kind"], "Pool");
    assert_eq!(pool["metadata"]["namespace"], "agents");
    let execd = format!("registry.example.com/opensandbox/execd:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(image(pool, "initContainers", "execd-installer"), execd.as_str());
    let executor = format!("registry.example.com/opensandbox/task-executor:1.2.3@{digest}");
    assert_eq!(image(pool, "containers", "task-executor"), executor.as_str());
    assert_eq!(pool["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"], "Never");
    assert_eq!(image(pool, "containers", "sandbox-container"), "nginx:latest");
    assert_eq!(pool["spec"]["template"]["spec"]["imagePullSecrets"][0]["name"], "regcred");
}

#[test]
fn what_is_wrong_with_an_entry_is_named() {
    if helm::missing() {
        return;
    }
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (|p| drop(p["metadata"].as_object_mut().unwrap().remove("name")), "pools[0] has no metadata.name"),
        (|p| drop(p.as_object_mut().unwrap().remove("spec")), "has no spec.template.spec.containers"),
        (|p| drop(p["spec"].as_object_mut().unwrap().remove("capacitySpec")), "has no spec.capacitySpec"),
        (|p| p["spec"]["capacitySpec"]["bufferMin"] = 60.into(), "capacitySpec.bufferMin is 60, above bufferMax, 50"),
        (|p| p["spec"]["capacitySpec"]["bufferMin"] = (-1).into(), "/pools/0/spec/capacitySpec/bufferMin"),
        (|p| p["spec"]["capacitySpecs"] = 1.into(), "'capacitySpecs' not allowed"),
        (|p| p["kind"] = "Pod".into(), "is a Pod of"),
        (
            |p| drop(p["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("image")),
            "\"sandbox-container\" of pool \"agent-pool\" names no image",
        ),
    ];
    for (change, words) in cases {
        let said = helm::refusal(&production(change));
        assert!(said.contains(words), "{words}\n{said}");
    }
    let mut twice: Value = serde_json::from_str(&production(|_| {})).unwrap();
    let again = twice["pools"][0].clone();
    twice["pools"].as_array_mut().unwrap().push(again);
    let said = helm::refusal(&twice.to_string());
    assert!(said.contains("pools[1]: pool \"agent-pool\" is there twice"), "{said}");
}
