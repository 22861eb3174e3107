//! Who reaches whom.

use serde_json::{Value, json};

use crate::helm;

/// The ports of the rule whose first peer is a component of ours.
fn ports_for(policy: &Value, component: &str) -> Vec<(u64, u64)> {
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let of_component =
        |rule: &&Value| rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component;
    let rule = rules.iter().find(of_component).unwrap_or_else(|| panic!("nothing for {component}"));
    assert_eq!(
        rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "opensandbox-system"
    );
    ports(rule)
}

fn ports(rule: &Value) -> Vec<(u64, u64)> {
    let range = |p: &Value| (p["port"].as_u64().unwrap(), p["endPort"].as_u64().or(p["port"].as_u64()).unwrap());
    rule["ports"].as_array().unwrap().iter().map(range).collect()
}

fn opens(ranges: &[(u64, u64)], port: u64) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

#[test]
fn only_the_controller_reaches_the_executor() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{}").unwrap();
    for (name, label) in [
        ("opensandbox-pool-pods", "sandbox.opensandbox.io/pool-name"),
        ("opensandbox-batch-pods", "batch-sandbox.sandbox.opensandbox.io/name"),
    ] {
        let policy = rendered.one("NetworkPolicy", name);
        assert_eq!(policy["metadata"]["namespace"], "default");
        assert_eq!(policy["spec"]["podSelector"]["matchExpressions"], json!([{"key": label, "operator": "Exists"}]));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy["spec"]["ingress"].as_array().unwrap().len(), 2);
        let controller = ports_for(policy, "controller");
        assert_eq!(controller, [(5758, 5758), (44772, 44772)]);
        let server = ports_for(policy, "server");
        assert!(!opens(&server, 5758) && opens(&server, 44772) && opens(&server, 80) && opens(&server, 65535));
    }
}

#[test]
fn others_reach_neither_daemon() {
    if helm::missing() {
        return;
    }
    let values =
        "networkPolicy: {sandboxes: {extraFrom: [{podSelector: {matchLabels: {app: probe}}}], egress: {mode: closed}}}";
    let rendered = helm::render(values).unwrap();
    let policy = rendered.one("NetworkPolicy", "opensandbox-pool-pods");
    let extra = ports(&policy["spec"]["ingress"][2]);
    assert!(!opens(&extra, 5758) && !opens(&extra, 44772) && opens(&extra, 8080));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let egress = policy["spec"]["egress"].as_array().unwrap();
    assert_eq!(egress.len(), 1, "DNS alone");
    assert_eq!(egress[0]["ports"][0]["port"], 53);
}

#[test]
fn the_internet_leaves_the_cluster_out() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("networkPolicy: {sandboxes: {egress: {mode: internet}}}").unwrap();
    let egress = &rendered.one("NetworkPolicy", "opensandbox-pool-pods")["spec"]["egress"][1]["to"];
    let block = |cidr: &str| {
        let blocks = egress.as_array().unwrap().iter().map(|to| &to["ipBlock"]);
        blocks.into_iter().find(|block| block["cidr"] == cidr).unwrap()["except"].to_string()
    };
    assert!(block("0.0.0.0/0").contains("169.254.0.0/16") && block("0.0.0.0/0").contains("10.0.0.0/8"));
    assert!(block("::/0").contains("fc00::/7") && !block("::/0").contains("10.0.0.0/8"));
}

#[test]
fn every_namespace_with_sandboxes_is_guarded() {
    if helm::missing() {
        return;
    }
    let values = "{sandboxes: {namespace: a}, rbac: {scope: namespaces, namespaces: [a, b]}}";
    let rendered = helm::render(values).unwrap();
    let mut namespaces: Vec<_> = rendered
        .all("NetworkPolicy")
        .filter(|p| p["metadata"]["name"] == "opensandbox-pool-pods")
        .map(|p| p["metadata"]["namespace"].as_str().unwrap())
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["a", "b"]);
}
