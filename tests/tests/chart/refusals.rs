//! Values that can't work are refused in words that say what to do.

use crate::helm;

#[test]
fn each_says_what_to_do() {
    if helm::missing() {
        return;
    }
    for (values, words) in [
        ("rbac: {scope: namespaces}", &["rbac.namespaces names none", "--set 'rbac.namespaces={default}'"][..]),
        ("rbac: {scope: namespaces, namespaces: [a]}", &["sandboxes.namespace is \"default\"", "(a)"]),
        (
            "{rbac: {scope: namespaces, namespaces: [a]}, sandboxes: {namespace: a}, pools: [{metadata: {name: p, namespace: b}, spec: {capacitySpec: {bufferMin: 0, bufferMax: 0, poolMin: 0, poolMax: 0}, template: {spec: {containers: [{name: c, image: i}]}}}}]}",
            &["pools[0] (p) is in namespace \"b\"", "nobody would fill it"],
        ),
        ("controller: {leaderElection: false}", &["controller.replicas is 2", "one pod to two sandboxes"]),
        ("server: {endpoints: direct}", &["networkPolicy.sandboxes.gatewayFrom", "server.endpoints=proxy"]),
        ("tls: {enabled: true, selfSigned: {enabled: false}}", &["tls.enabled needs a certificate"]),
        ("tls: {enabled: true, certManager: {enabled: true}}", &["tls.certManager.issuerRef.name"]),
        ("ingress: {enabled: true}", &["ingress.enabled needs ingress.hosts"]),
        ("gateway: {enabled: true}", &["gateway.enabled needs gateway.parentRefs"]),
    ] {
        let said = helm::refusal(values);
        for word in words {
            assert!(said.contains(word), "{values}: {word}\n{said}");
        }
    }
}

#[test]
fn an_old_kubernetes_is_told_why() {
    if helm::missing() {
        return;
    }
    let Err(said) = helm::render_as("{}", "1.24.0") else { panic!("1.24 was taken") };
    assert!(said.contains("Kubernetes v1.24.0 is too old: 1.25 is the first with"), "{said}");
    helm::render_as("{}", "1.25.0").unwrap();
}
