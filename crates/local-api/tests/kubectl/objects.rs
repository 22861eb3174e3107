//! Objects by kubectl: apply in all its forms, edit, diff, scale, wait, explain.

use serde_json::json;

use crate::{Kubectl, common};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_from_apply_to_delete() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    let definition = serde_json::to_string(&common::widget_crd()).expect("JSON");
    kubectl.ok("apply -f -", &definition).await;
    kubectl.ok("wait --for=condition=Established crd/widgets.test.example.com --timeout=10s", "").await;
    let widget = |size: i32| {
        json!({"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": size, "note": "n"}}).to_string()
    };
    assert!(kubectl.ok("apply -f -", &widget(1)).await.contains("widget.test.example.com/w created"));
    assert!(kubectl.ok("apply -f -", &widget(1)).await.contains("unchanged"));
    assert!(kubectl.ok("apply -f - --dry-run=server", &widget(2)).await.contains("configured (server dry run)"));
    assert!(kubectl.ok("apply -f -", &widget(2)).await.contains("configured"));
    assert!(kubectl.ok("apply --server-side --force-conflicts -f -", &widget(3)).await.contains("serverside-applied"));
    let wide = kubectl.ok("get wd -o wide", "").await;
    assert!(wide.starts_with("NAME   SIZE   NOTE   AGE\nw      3      n"), "{wide}");
    assert_eq!(kubectl.ok("get wd w -o jsonpath={.spec.color}", "").await, "red");
    assert_eq!(kubectl.ok("get widgets -o name", "").await, "widget.test.example.com/w\n");
    kubectl.fails("apply -f -", r#"{"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"sise": 1}}"#, "unknown field \"spec.sise\"").await;
    kubectl.fails("apply --validate=false -f -", r#"{"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"size": "a"}}"#, "spec.size").await;
    kubectl.ok("label wd w tier=web", "").await;
    kubectl.ok("annotate wd w a=b", "").await;
    assert!(kubectl.ok("get wd -l tier=web", "").await.contains("w      3"));
    kubectl.ok("patch wd w --type=merge -p {\"spec\":{\"size\":4}}", "").await;
    kubectl.ok("patch wd w --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/size\",\"value\":5}]", "").await;
    kubectl.ok("wait --for=jsonpath={.spec.size}=5 wd/w --timeout=10s", "").await;
    kubectl.ok("create configmap c --from-literal=a=b", "").await;
    kubectl.ok("create secret generic s --from-literal=a=b", "").await;
    kubectl.ok("create namespace team", "").await;
    assert_eq!(kubectl.ok("get secret s -o jsonpath={.data.a}", "").await, "Yg==");
    assert!(kubectl.ok("explain widget.spec", "").await.contains("size\t<integer> -required-"));
    assert!(kubectl.ok("api-resources", "").await.contains("widgets"));
    assert_eq!(kubectl.ok("auth can-i create pods", "").await, "yes\n");
    kubectl.ok("version", "").await;
    kubectl.ok("cluster-info", "").await;
    kubectl.ok("delete namespace team --timeout=15s", "").await;
    kubectl.ok("delete wd w --cascade=foreground --timeout=15s", "").await;
    kubectl.ok("delete crd widgets.test.example.com --timeout=15s", "").await;
    kubectl.fails("get wd", "", "could not find the requested resource").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_by_the_server_with_conflicts() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    let map = |key: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {key: value}}).to_string()
    };
    kubectl.ok("apply --server-side --field-manager=one -f -", &map("a", "1")).await;
    kubectl.ok("apply --server-side --field-manager=two -f -", &map("b", "1")).await;
    kubectl
        .fails("apply --server-side --field-manager=two -f -", &map("a", "2"), "conflict with \"one\": .data.a")
        .await;
    kubectl.ok("apply --server-side --field-manager=two --force-conflicts -f -", &map("a", "2")).await;
    // The second wanted `b` before and wants it no more.
    assert_eq!(kubectl.ok("get cm m -o jsonpath={.data}", "").await, r#"{"a":"2"}"#);
    let shown = kubectl.ok("get cm m -o yaml --show-managed-fields", "").await;
    assert!(shown.contains("manager: two") && !shown.contains("manager: one"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_diff_prune_and_scale() {
    let Some((mut kubectl, _api)) = Kubectl::start().await else { return };
    let map = |name: &str, value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"set": "x"}}, "data": {"k": value}});
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [map("a", "old"), map("b", "old")]}).to_string();
    kubectl.ok("apply -f -", &both).await;
    kubectl.editor = Some("sed -i s/old/new/".into());
    kubectl.ok("edit cm a", "").await;
    kubectl.editor = None;
    assert_eq!(kubectl.ok("get cm a -o jsonpath={.data.k}", "").await, "new");
    let (code, text) = kubectl.run(&["diff", "-f", "-"], &map("b", "newer").to_string()).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("+  k: newer"), "{text}");
    kubectl.ok("apply --prune -l set=x --prune-allowlist=core/v1/ConfigMap -f -", &map("a", "kept").to_string()).await;
    assert_eq!(kubectl.ok("get cm -l set=x -o name", "").await, "configmap/a\n");
    kubectl.ok("replace -f -", &map("a", "replaced").to_string()).await;
    kubectl.fails("create -f -", &map("a", "again").to_string(), "already exists").await;

    let mut definition = serde_json::to_value(common::widget_crd()).expect("JSON");
    definition["spec"]["versions"][0]["subresources"]["scale"] =
        json!({"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.ready"});
    kubectl.ok("apply -f -", &definition.to_string()).await;
    let widget =
        json!({"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}});
    kubectl.ok("apply -f -", &widget.to_string()).await;
    assert!(kubectl.ok("scale wd/w --replicas=3", "").await.contains("scaled"));
    assert_eq!(kubectl.ok("get wd w -o jsonpath={.spec.size}", "").await, "3");
    kubectl.ok("scale wd/w --current-replicas=3 --replicas=2", "").await;
    kubectl.fails("scale wd/w --current-replicas=3 --replicas=1", "", "Expected replicas to be 3, was 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_and_what_is_served() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    assert!(kubectl.ok("explain pod.spec.containers.ports", "").await.contains("containerPort"));
    assert!(kubectl.ok("explain lease.spec", "").await.contains("holderIdentity"));
    assert!(kubectl.ok("explain crd.spec.names", "").await.contains("plural"));
    assert!(kubectl.ok("explain event --api-version=events.k8s.io/v1", "").await.contains("regarding"));
    kubectl.fails("explain pod.spec.nothing", "", "does not exist").await;
    let served = kubectl.ok("api-resources --no-headers -o name", "").await;
    for name in ["pods", "configmaps", "leases.coordination.k8s.io", "events.events.k8s.io"] {
        assert!(served.lines().any(|l| l == name), "{name}: {served}");
    }
    assert!(kubectl.ok("api-versions", "").await.contains("coordination.k8s.io/v1"));
    assert_eq!(kubectl.ok("auth can-i delete pods --subresource=exec", "").await, "yes\n");
    assert!(kubectl.ok("auth whoami", "").await.contains("system:masters"));
    // What is not served says so.
    kubectl.fails("get deployments", "", "the server doesn't have a resource type \"deployments\"").await;
    kubectl.fails("top pods", "", "Metrics API not available").await;
}
