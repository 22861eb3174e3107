//! Alerts and dashboard ask for metrics that somebody counts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm;

/// Every metric of ours that a text names, without what a histogram or counter adds.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in text.match_indices("opensandbox_") {
        let name: String = text[start..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let bare = ["_bucket", "_count", "_sum", "_total"].iter().find_map(|end| name.strip_suffix(end));
        // The gauge of a pool's pods is called total, and is no counter.
        names
            .insert(if name == "opensandbox_controller_pool_total" { &name } else { bare.unwrap_or(&name) }.to_owned());
    }
    names
}

/// The sources in which a component's metrics are named.
fn sources(component: &str) -> String {
    [format!("crates/{component}/src/metrics.rs"), "crates/telemetry/src/api_requests.rs".to_owned()]
        .iter()
        .map(|path| std::fs::read_to_string(helm::root().join(path)).unwrap())
        .collect()
}

fn assert_counted(text: &str) {
    let names = named(text);
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let rest = name.strip_prefix("opensandbox_").unwrap();
        let (component, metric) = rest.split_once('_').unwrap();
        assert!(sources(component).contains(&format!("\"{metric}\"")), "nobody counts {name}");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_counted() {
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        assert_counted(&std::fs::read_to_string(helm::chart().join(file)).unwrap());
    }
}

#[test]
fn rules_and_dashboard_are_rendered_whole() {
    if helm::missing() {
        return;
    }
    let values = "monitoring: {serviceMonitor: {enabled: true, labels: {release: p}}, dashboard: {enabled: true}, \
        prometheusRule: {enabled: true, alertLabels: {team: t}, extraRules: [{record: x, expr: vector(1)}]}}";
    let rendered = helm::render(values).unwrap();
    let rules = rendered.one("PrometheusRule", "opensandbox")["spec"]["groups"][0]["rules"].clone();
    let rules = rules.as_array().unwrap();
    let alerts: Vec<_> = rules.iter().filter(|rule| rule.get("alert").is_some()).collect();
    assert_eq!((rules.len(), alerts.len()), (alerts.len() + 1, alerts.len()));
    for alert in &alerts {
        assert!(alert["labels"]["severity"].is_string() && alert["labels"]["team"] == "t", "{alert}");
        assert!(alert["annotations"]["description"].is_string(), "{alert}");
    }
    let dashboard = &rendered.one("ConfigMap", "opensandbox-dashboard")["data"]["opensandbox.json"];
    let dashboard: Value = serde_json::from_str(dashboard.as_str().unwrap()).unwrap();
    assert_eq!(dashboard["title"], "OpenSandbox");
    for component in ["controller-manager", "server"] {
        let monitor = rendered.one("ServiceMonitor", &format!("opensandbox-{component}"));
        let service = rendered.one("Service", &format!("opensandbox-{component}-metrics"));
        assert_eq!(monitor["metadata"]["labels"]["release"], "p");
        for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&service["metadata"]["labels"][key], value);
        }
        let port = &service["spec"]["ports"][0]["targetPort"];
        let pod = &rendered.one("Deployment", &format!("opensandbox-{component}"))["spec"]["template"];
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|p| &p["name"] == port), "{component}");
    }
}
