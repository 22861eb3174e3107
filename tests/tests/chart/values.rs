//! Values: strict, documented, and lasting over upgrades.

use crate::helm;

#[test]
fn a_slip_of_the_pen_is_named() {
    if helm::missing() {
        return;
    }
    for (values, words) in [
        ("controler: {}", "'controler' not allowed"),
        ("controller: {replica: 1}", "'replica' not allowed"),
        ("server: {service: {typ: NodePort}}", "'typ' not allowed"),
        ("server: {service: {type: Nodeport}}", "'/server/service/type'"),
        ("server: {endpoints: proxied}", "'/server/endpoints'"),
        ("controller: {replicas: two}", "'/controller/replicas'"),
        ("controller: {replicas: 0}", "'/controller/replicas'"),
        ("execd: {image: {digest: sha256:abc}}", "'/execd/image/digest'"),
        ("sandboxes: {namespace: Agents}", "'/sandboxes/namespace'"),
        ("controller: {resources: {limit: {cpu: 1}}}", "'limit' not allowed"),
        ("networkPolicy: {sandboxes: {egress: {mode: off}}}", "'/networkPolicy/sandboxes/egress/mode'"),
        ("pools: [{metadat: {name: x}}]", "'metadat' not allowed"),
    ] {
        let said = helm::refusal(values);
        assert!(said.contains(words), "{values}: {words}\n{said}");
    }
}

#[test]
fn the_examples_render() {
    if helm::missing() {
        return;
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(helm::chart().join("ci")).unwrap() {
        let path = entry.unwrap().path();
        let rendered = helm::render(&std::fs::read_to_string(&path).unwrap());
        let rendered = rendered.unwrap_or_else(|said| panic!("{}: {said}", path.display()));
        for object in rendered.objects() {
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "opensandbox", "{object}");
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn an_older_charts_values_get_what_is_new() {
    if helm::missing() {
        return;
    }
    // `helm upgrade --reuse-values`: the sections of later charts are not there.
    let older = "{valuesRevision: 0, monitoring: null, checks: null, networkPolicy: null, priorityAndFairness: null, \
        gateway: null, tests: null, tls: null, server: {service: null}, crds: null, controller: {replicas: 3}}";
    let rendered = helm::render(older).unwrap();
    assert!(rendered.has("NetworkPolicy", "opensandbox-server"));
    assert_eq!(rendered.one("Deployment", "opensandbox-controller-manager")["spec"]["replicas"], 3);
}

#[test]
fn a_default_set_to_null_stays_away() {
    if helm::missing() {
        return;
    }
    let rendered =
        helm::render("{controller: {resources: {limits: null}}, podSecurityContext: {runAsUser: null}}").unwrap();
    let pod = &rendered.one("Deployment", "opensandbox-controller-manager")["spec"]["template"]["spec"];
    assert!(pod["containers"][0]["resources"].get("limits").is_none());
    assert!(pod["securityContext"].get("runAsUser").is_none());
    assert_eq!(pod["securityContext"]["fsGroup"], 65532);
}

#[test]
fn names_do_not_hang_on_the_release() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{namespaceOverride: elsewhere, fullnameOverride: mine}").unwrap();
    for name in ["mine-controller-manager", "mine-server"] {
        assert_eq!(rendered.one("Deployment", name)["metadata"]["namespace"], "elsewhere");
    }
    assert!(rendered.has("Secret", "mine-keys"));
    assert!(rendered.has("ClusterRole", "elsewhere:mine:controller"));
}
