//! What `/readyz` and `/metrics` say.

use std::time::Duration;

use api_types::crd;
use controller::{Config, Controller, Metrics};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use local_api::Api as LocalApi;
use serde_json::json;
use telemetry::prometheus_client::encoding::text;
use telemetry::{Readiness, Registry};
use tokio_util::sync::CancellationToken;

use crate::platform::{Platform, Steady};

/// Waits, in the runtime's own time, until the checks say something.
async fn until(readiness: &Readiness, what: &str, look: impl Fn(bool, &str) -> bool) {
    let search = async {
        loop {
            let (ready, report) = readiness.report();
            if look(ready, &report) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(300), search).await;
    assert!(found.is_ok(), "never: {what}\n{}", readiness.report().1);
}

#[tokio::test(start_paused = true)]
async fn missing_crds_are_named_with_what_to_do_and_waited_for() {
    let api = LocalApi::in_memory();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let controller = Controller::new(api.client("default"), Config::new([1; 32], [2; 32])).with_clock(Steady::new());
    let controller = tokio::spawn(controller.with_readiness(readiness.clone()).run(stop.clone()));
    let named = |ready: bool, report: &str| {
        !ready
            && report.contains(
                "the CRD pools.sandbox.opensandbox.io is missing: install the CRDs of this version: kubectl apply",
            )
            && report.contains("the CRD batchsandboxes.sandbox.opensandbox.io is missing")
            && report.contains("[+] pods")
    };
    until(&readiness, "the CRDs are named", named).await;
    for definition in crd::all() {
        let crds: Api<CustomResourceDefinition> = Api::all(api.client("default"));
        crds.create(&PostParams::default(), &definition).await.unwrap();
    }
    until(&readiness, "ready", |ready, _| ready).await;
    stop.cancel();
    controller.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crd_that_would_drop_grants_is_told_and_nothing_is_given() {
    let platform = Platform::bare().await;
    let crds: Api<CustomResourceDefinition> = Api::all(platform.client.clone());
    let name = "batchsandboxes.sandbox.opensandbox.io";
    let mut old = serde_json::to_value(crds.get(name).await.unwrap()).unwrap();
    let status = &mut old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    assert!(status.as_object_mut().unwrap().remove("grants").is_some());
    let old: CustomResourceDefinition = serde_json::from_value(old).unwrap();
    crds.replace(name, &PostParams::default(), &old).await.unwrap();

    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let controller =
        Controller::new(platform.another_client(), Config::new([1; 32], [2; 32])).with_clock(Steady::new());
    let controller = controller.with_daemons(platform.daemons.clone()).with_readiness(readiness.clone());
    let controller = tokio::spawn(controller.run(stop.clone()));
    platform.pool("p", [1, 1, 0, 3]).await;
    platform.available("p", 1).await;
    let pod = platform.all_pods().await[0].metadata.uid.clone().unwrap();
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let told = |ready: bool, report: &str| {
        !ready && report.contains("[-] crds: the CRD batchsandboxes") && report.contains("status.grants")
    };
    until(&readiness, "the CRD is named", told).await;
    assert!(platform.daemons.of(&pod).claim.is_none(), "what is not durable is not given");

    let current = crd::all().into_iter().find(|c| c.metadata.name.as_deref() == Some(name)).unwrap();
    let version = crds.get(name).await.unwrap().metadata.resource_version;
    let mut current = current;
    current.metadata.resource_version = version;
    crds.replace(name, &PostParams::default(), &current).await.unwrap();
    until(&readiness, "ready again", |ready, _| ready).await;
    platform.ready("s", 1).await;
    stop.cancel();
    controller.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_time_of_a_create_is_told_in_parts() {
    let platform = Platform::bare().await;
    let mut registry = Registry::with_prefix("opensandbox");
    let metrics = Metrics::register(&mut registry);
    let stop = CancellationToken::new();
    let controller =
        Controller::new(platform.another_client(), Config::new([1; 32], [2; 32])).with_clock(Steady::new());
    let controller = controller.with_daemons(platform.daemons.clone()).with_metrics(metrics);
    let controller = tokio::spawn(controller.run(stop.clone()));
    platform.pool("p", [1, 1, 0, 3]).await;
    platform.available("p", 1).await;
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let status = platform.ready("s", 1).await.status.unwrap();
    let grant = &status.grants[0];
    let order = [&status.observed_at, &grant.granted_at, &grant.claimed_at, &grant.ready_at];
    let order: Vec<_> = order.into_iter().map(|t| t.as_ref().unwrap().0).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(grant.pod_ready_at.as_ref().unwrap().0 <= order[0], "the pod was warm");
    assert_eq!(grant.waited_for, None);
    platform.available("p", 1).await;
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    for line in [
        "opensandbox_controller_leader 1",
        "opensandbox_controller_sandbox_seconds_count{stage=\"ready\"} 1",
        "opensandbox_controller_sandbox_wait_seconds_count{stage=\"claim\"} 1",
        "opensandbox_controller_claims_total{outcome=\"accepted\"} 1",
        "opensandbox_controller_pool_idle{namespace=\"default\",pool=\"p\"} 1",
        "opensandbox_controller_pool_allocated{namespace=\"default\",pool=\"p\"} 1",
        "opensandbox_controller_sandboxes{phase=\"Succeed\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    stop.cancel();
    controller.await.unwrap().unwrap();
}
