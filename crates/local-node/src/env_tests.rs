use super::*;
use serde_json::json;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1",
            "labels": {"app": "web", "x": "say \"hi\""}, "annotations": {"a/b": "c"}
        },
        "spec": {"containers": [
            {"name": "main", "resources": {
                "limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"memory": "10M"}
            }},
            {"name": "other", "resources": {"limits": {"cpu": "250m"}}}
        ]}
    }))
    .unwrap()
}

fn facts() -> NodeFacts {
    NodeFacts {
        node_name: "local".into(),
        host_ip: "10.0.0.1".into(),
        pod_ip: "10.0.0.9".into(),
        cpu_milli: 4000,
        memory: 1 << 30,
        ephemeral_storage: 1 << 40,
    }
}

fn objects() -> Objects {
    let mut objects = Objects::new("shop");
    let data =
        |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect());
    objects.insert(ObjectKind::ConfigMap, "settings", data(&[("COLOR", "blue"), ("SIZE", "4")]));
    objects.insert(ObjectKind::Secret, "keys", data(&[("TOKEN", "t0p"), ("COLOR", "red")]));
    objects.insert(ObjectKind::ConfigMap, "absent", None);
    objects
}

fn resolved(container: serde_json::Value, image: &[&str]) -> Result<Vec<(String, String)>, EnvError> {
    let mut value = json!({"name": "main", "resources": {
        "limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"memory": "10M"}
    }});
    value.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let container: Container = serde_json::from_value(value).unwrap();
    let image: Vec<String> = image.iter().map(|s| (*s).to_owned()).collect();
    resolve(&pod(), &container, &image, &objects(), &facts())
}

fn values(container: serde_json::Value, image: &[&str]) -> Vec<String> {
    resolved(container, image).unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect()
}

#[test]
fn later_sources_win_and_names_stay_unique() {
    let container = json!({
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "keys"}},
            {"prefix": "P_", "configMapRef": {"name": "settings"}},
            {"configMapRef": {"name": "absent", "optional": true}}
        ],
        "env": [{"name": "SIZE", "value": "9"}]
    });
    assert_eq!(
        values(container, &["PATH=/bin", "COLOR=grey"]),
        ["PATH=/bin", "COLOR=red", "SIZE=9", "TOKEN=t0p", "P_COLOR=blue", "P_SIZE=4"]
    );
}

#[test]
fn references_expand_against_what_came_before() {
    let container = json!({"env": [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$$(A)-$(LATER)-$(PATH)-$-$(open"},
        {"name": "LATER", "value": "x"},
        {"name": "EMPTY"}
    ]});
    let found = values(container, &["PATH=/bin"]);
    assert_eq!(found, ["PATH=/bin", "A=1", "B=1-$(A)-$(LATER)-$(PATH)-$-$(open", "LATER=x", "EMPTY="]);
}

#[test]
fn every_field_reference() {
    let table = [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", "c"),
        ("spec.nodeName", "local"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.0.0.9"),
        ("status.hostIP", "10.0.0.1"),
    ];
    for (path, expected) in table {
        let container = json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]});
        assert_eq!(values(container, &[]), [format!("V={expected}")], "{path}");
    }
    for path in ["status.phase", "metadata.labels", "metadata.name['x']"] {
        let container = json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]});
        assert_eq!(resolved(container, &[]), Err(EnvError::Field(path.to_owned())));
    }
    assert_eq!(field(&pod(), "metadata.labels", &facts()).unwrap(), "app=\"web\"\nx=\"say \\\"hi\\\"\"");
}

#[test]
fn every_resource_reference() {
    let table = [
        (json!({"resource": "limits.cpu"}), "2"),
        (json!({"resource": "limits.cpu", "divisor": "1m"}), "1500"),
        (json!({"resource": "limits.memory", "divisor": "1Mi"}), "64"),
        (json!({"resource": "requests.memory"}), "10000000"),
        (json!({"resource": "requests.cpu", "divisor": "1m"}), "1500"),
        (json!({"resource": "limits.ephemeral-storage", "divisor": "1Gi"}), "1024"),
        (json!({"resource": "limits.cpu", "containerName": "other", "divisor": "1m"}), "250"),
        (json!({"resource": "limits.memory", "containerName": "other"}), "1073741824"),
    ];
    for (selector, expected) in table {
        let container = json!({"env": [{"name": "V", "valueFrom": {"resourceFieldRef": selector}}]});
        assert_eq!(values(container, &[]), [format!("V={expected}")], "{selector}");
    }
    let container = json!({"env": [{"name": "V", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]});
    assert_eq!(resolved(container, &[]), Err(EnvError::Resource("limits.gpu".into())));
}

#[test]
fn missing_objects_say_what_kubernetes_says() {
    let of = |kind: &str, name: &str, key: &str, optional: bool| json!({"env": [{"name": "V", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
    let said = |container| resolved(container, &[]).unwrap_err().to_string();
    assert_eq!(said(of("configMapKeyRef", "absent", "k", false)), "configmap \"absent\" not found");
    assert_eq!(said(of("secretKeyRef", "nowhere", "k", false)), "secret \"nowhere\" not found");
    assert_eq!(said(of("configMapKeyRef", "settings", "k", false)), "couldn't find key k in ConfigMap shop/settings");
    assert_eq!(values(of("configMapKeyRef", "settings", "k", true), &[]), Vec::<String>::new());
    assert_eq!(values(of("secretKeyRef", "keys", "TOKEN", false), &[]), ["V=t0p"]);
    let bad = json!({"env": [{"name": "A=B", "value": "x"}]});
    assert_eq!(resolved(bad, &[]), Err(EnvError::Name("A=B".into())));
}

#[test]
fn command_and_arguments() {
    let list = |items: &[&str]| -> Vec<String> { items.iter().map(|s| (*s).to_owned()).collect() };
    let environment = vec![("N".to_owned(), "7".to_owned())];
    let table = [
        (json!({}), vec!["/entry", "-d"]),
        (json!({"args": ["$(N)"]}), vec!["/entry", "7"]),
        (json!({"command": ["run", "$$(N)"]}), vec!["run", "$(N)"]),
        (json!({"command": ["run"], "args": ["a$(N)b"]}), vec!["run", "a7b"]),
    ];
    for (extra, expected) in table {
        let mut value = json!({"name": "main"});
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let container: Container = serde_json::from_value(value).unwrap();
        assert_eq!(arguments(&container, &list(&["/entry"]), &list(&["-d"]), &environment), list(&expected));
    }
}
