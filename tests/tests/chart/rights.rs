//! The rights that are granted, verb by verb: a verb more is a decision to be made here too.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{self, Rendered};

/// `verb resource.group` of every rule.
fn granted(role: &Value) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for (group, resource) in list(&rule["apiGroups"])
            .iter()
            .flat_map(|g| list(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
        {
            for verb in list(&rule["verbs"]) {
                let name = list(&rule["resourceNames"]).first().map(|name| format!(" {name}")).unwrap_or_default();
                let dot = if group.is_empty() { "" } else { "." };
                granted.insert(format!("{verb} {resource}{dot}{group}{name}"));
            }
        }
    }
    granted
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines
        .iter()
        .flat_map(|line| {
            let (verbs, what) = line.split_once(' ').unwrap();
            verbs.split(',').map(move |verb| format!("{verb} {what}"))
        })
        .collect()
}

const CONTROLLER: [&str; 6] = [
    "get,list,watch pools.sandbox.opensandbox.io",
    "get,list,watch,patch,delete batchsandboxes.sandbox.opensandbox.io",
    "update pools/status.sandbox.opensandbox.io",
    "update batchsandboxes/status.sandbox.opensandbox.io",
    "get,list,watch,create,patch,delete pods",
    "create,patch events",
];

#[test]
fn the_controller_gets_these_and_no_more() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{}").unwrap();
    let role = rendered.one("ClusterRole", "opensandbox-system:opensandbox:controller");
    assert_eq!(granted(role), set(&CONTROLLER));
    let lease = rendered.one("Role", "opensandbox-leader-election");
    let wanted =
        ["create leases.coordination.k8s.io", "get,watch,update leases.coordination.k8s.io 2fa1c467.opensandbox.io"];
    assert_eq!(granted(lease), set(&wanted));
}

#[test]
fn the_server_works_in_one_namespace() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("sandboxes: {namespace: agents}").unwrap();
    let role = rendered.one("Role", "opensandbox-system:opensandbox:server");
    assert_eq!(role["metadata"]["namespace"], "agents");
    let wanted = [
        "get,list,watch,create,patch,delete batchsandboxes.sandbox.opensandbox.io",
        "get,list,watch,create,patch,delete pools.sandbox.opensandbox.io",
        "get,list pods",
        "get pods/log",
        "list events",
    ];
    assert_eq!(granted(role), set(&wanted));
    assert!(!cluster_wide(&rendered).iter().any(|name| name.ends_with(":server")));
}

#[test]
fn named_namespaces_need_nothing_cluster_wide() {
    if helm::missing() {
        return;
    }
    let values = std::fs::read_to_string(helm::chart().join("ci/namespaces-values.yaml")).unwrap();
    let rendered = helm::render(&values).unwrap();
    assert_eq!(cluster_wide(&rendered), Vec::<String>::new());
    let mut wanted = set(&CONTROLLER);
    wanted.extend(set(&[
        "update pools/finalizers.sandbox.opensandbox.io",
        "update batchsandboxes/finalizers.sandbox.opensandbox.io",
    ]));
    let roles: Vec<_> =
        rendered.all("Role").filter(|r| r["metadata"]["name"] == "opensandbox-system:opensandbox:controller").collect();
    assert_eq!(roles.len(), 2);
    for role in roles {
        assert_eq!(granted(role), wanted);
    }
    let arguments = rendered.arguments("opensandbox-controller-manager");
    assert!(arguments.contains(&"--namespaces=team-a,team-b".to_owned()), "{arguments:?}");
}

/// Names of objects without a namespace.
fn cluster_wide(rendered: &Rendered) -> Vec<String> {
    let kinds = ["ClusterRole", "ClusterRoleBinding", "Namespace", "FlowSchema", "PriorityLevelConfiguration"];
    let of = |kind| rendered.all(kind).map(|object| object["metadata"]["name"].as_str().unwrap().to_owned());
    kinds.into_iter().flat_map(of).collect()
}
