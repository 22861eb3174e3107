//! What runs of ours is restricted, and no secret is where it can be read.

use serde_json::{Value, json};

use crate::helm::{self, Rendered};

fn everything() -> Rendered {
    helm::render(&std::fs::read_to_string(helm::chart().join("ci/everything-values.yaml")).unwrap()).unwrap()
}

/// Every pod of ours: those of Deployments, of the Job before an uninstall, and that of the test.
fn pods(rendered: &Rendered) -> Vec<(&Value, &Value)> {
    let of = |object: &'_ Value| object["metadata"]["name"].clone();
    let templates = rendered.all("Deployment").chain(rendered.all("Job"));
    let templates = templates.map(|object| (object, &object["spec"]["template"]["spec"]));
    let pods: Vec<_> = templates.chain(rendered.all("Pod").map(|p| (p, &p["spec"]))).collect();
    assert_eq!(pods.len(), 4, "{:?}", pods.iter().map(|(o, _)| of(o)).collect::<Vec<_>>());
    pods
}

#[test]
fn our_pods_keep_pod_security_restricted() {
    if helm::missing() {
        return;
    }
    for (object, spec) in pods(&everything()) {
        let name = &object["metadata"]["name"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec.get(host).is_none(), "{name}");
        }
        let containers = ["initContainers", "containers"].iter().flat_map(|k| spec[k].as_array().into_iter().flatten());
        for container in containers {
            let security = &container["securityContext"];
            let wanted = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(security, &wanted, "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        }
        for volume in spec["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none(), "{name}");
        }
    }
}

#[test]
fn tokens_go_only_where_the_api_is_called() {
    if helm::missing() {
        return;
    }
    let rendered = everything();
    for account in rendered.all("ServiceAccount") {
        assert_eq!(account["automountServiceAccountToken"], false);
    }
    for (object, spec) in pods(&rendered) {
        assert_eq!(spec["automountServiceAccountToken"], object["kind"] == "Deployment");
    }
}

#[test]
fn secrets_stay_in_secrets() {
    if helm::missing() {
        return;
    }
    let rendered = everything();
    let mut known = Vec::new();
    for secret in rendered.all("Secret") {
        for (key, value) in secret["data"].as_object().unwrap() {
            if !key.ends_with(".crt") {
                known.push((key.clone(), value.as_str().unwrap().to_owned()));
            }
        }
    }
    assert_eq!(known.len(), 4, "api-key, signer-seed, token-secret, tls.key");
    for object in rendered.objects().iter().filter(|object| object["kind"] != "Secret") {
        let text = object.to_string();
        for (key, value) in &known {
            assert!(!text.contains(value), "{key} is in {}", object["kind"]);
        }
        // Nor by a reference that ends in an environment, which every child inherits and every crash dump shows.
        assert!(!text.contains("secretKeyRef") && !text.contains("secretRef"), "{}", object["kind"]);
    }
}

#[test]
fn each_component_gets_only_the_keys_it_needs() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{}").unwrap();
    let keys = |deployment: &str| {
        let volumes = rendered.one("Deployment", deployment)["spec"]["template"]["spec"]["volumes"].clone();
        let volume = volumes.as_array().unwrap().iter().find(|v| v["name"] == "keys").unwrap().clone();
        let mut keys: Vec<_> = volume["secret"]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["key"].as_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("opensandbox-controller-manager"), ["signer-seed", "token-secret"]);
    assert_eq!(keys("opensandbox-server"), ["api-key", "token-secret"]);
}

#[test]
fn made_keys_are_random_and_of_the_right_size() {
    if helm::missing() {
        return;
    }
    let key = |name: &str| helm::render("{}").unwrap().one("Secret", "opensandbox-keys")["data"][name].clone();
    for name in ["signer-seed", "token-secret"] {
        // 32 bytes in base64.
        assert_eq!(key(name).as_str().unwrap().len(), 44);
    }
    for name in ["api-key", "signer-seed", "token-secret"] {
        assert_ne!(key(name), key(name), "{name}");
    }
}
