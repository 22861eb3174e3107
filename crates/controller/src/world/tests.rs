//! The world, event by event.

use serde_json::json;

use super::*;

fn world() -> World {
    let mut world = World::new();
    for kind in [Kind::Pod, Kind::Pool, Kind::Batch] {
        world.begin_list(kind, &None);
        world.end_list(kind, &None);
    }
    world
}

fn pool(name: &str, pool_max: i32) -> Pool {
    serde_json::from_value(json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool",
        "metadata": {"name": name, "namespace": "d", "uid": format!("{name}-uid"), "resourceVersion": "1", "generation": 1},
        "spec": {"template": {"spec": {"containers": [{"name": "c"}]}},
            "capacitySpec": {"bufferMin": 0, "bufferMax": 9, "poolMin": 0, "poolMax": pool_max}}}))
    .unwrap()
}

fn pod(uid: &str, version: u64, change: impl FnOnce(&mut PodView)) -> PodView {
    let object = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": version.to_string(),
            "ownerReferences": [{"apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "name": "p", "uid": "p-uid", "controller": true}]},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}))
    .unwrap();
    let mut view = PodView::of(&object).unwrap();
    change(&mut view);
    view
}

fn batch(name: &str, version: u64, grants: serde_json::Value) -> BatchSandbox {
    serde_json::from_value(json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
        "metadata": {"name": name, "namespace": "d", "uid": format!("{name}-uid"), "resourceVersion": version.to_string(),
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", version % 60)},
        "spec": {"poolRef": "p", "replicas": 1}, "status": {"replicas": 0, "grants": grants}}))
    .unwrap()
}

fn grant(pod: &str, state: &str) -> serde_json::Value {
    json!([{"index": 0, "pod": pod, "podUID": pod, "epoch": 1, "state": state}])
}

fn counts(world: &World) -> crate::planner::pool::Counts {
    world.pool_snapshot(&ObjectName::new("d", "p")).unwrap().counts
}

fn reserved(world: &World, batch: &str) -> Vec<String> {
    let snapshot = world.batch_snapshot(&ObjectName::new("d", batch), Timestamp::UNIX_EPOCH).unwrap();
    snapshot.reserved.iter().map(ToString::to_string).collect()
}

#[test]
fn old_news_does_not_undo_newer_and_the_dead_stay_dead() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 5, |p| p.deleting = true));
    world.apply_pod(pod("a", 3, |_| {}));
    assert_eq!(counts(&world).terminating, 1);
    world.remove_pod("a");
    world.apply_pod(pod("a", 4, |_| {}));
    assert_eq!(counts(&world).existing(), 0);
}

#[test]
fn a_promise_is_made_once_and_becomes_a_grant() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_batch(batch("x", 2, json!([])));
    world.apply_batch(batch("y", 3, json!([])));
    assert_eq!(reserved(&world, "x"), ["a"]);
    assert!(reserved(&world, "y").is_empty());
    world.apply_batch(batch("x", 4, grant("a", "Granted")));
    assert!(reserved(&world, "x").is_empty());
    assert_eq!(counts(&world).held, 1);
    world.apply_pod(pod("b", 5, |_| {}));
    assert_eq!(reserved(&world, "y"), ["b"]);
}

#[test]
fn a_promise_whose_pod_goes_is_made_anew() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_batch(batch("x", 2, json!([])));
    world.remove_pod("a");
    assert!(reserved(&world, "x").is_empty());
    world.apply_pod(pod("b", 3, |_| {}));
    assert_eq!(reserved(&world, "x"), ["b"]);
}

#[test]
fn used_pods_are_never_ready_again() {
    for (name, change) in [
        (
            "marked for an unknown owner",
            Box::new(|p: &mut PodView| p.claimed_by = Some("gone".into())) as Box<dyn FnOnce(&mut PodView)>,
        ),
        ("restarted", Box::new(|p: &mut PodView| p.restarts = 1)),
        ("evicted", Box::new(|p: &mut PodView| p.evict = true)),
        ("ended", Box::new(|p: &mut PodView| p.phase = Phase::Failed)),
    ] {
        let mut world = world();
        world.apply_pool(pool("p", 9));
        world.apply_pod(pod("a", 1, change));
        assert_eq!((counts(&world).ready, counts(&world).spent), (0, 1), "{name}");
    }
    // Released, or of a BatchSandbox that is gone.
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_pod(pod("b", 1, |_| {}));
    world.apply_batch(batch("x", 2, grant("a", "Released")));
    world.apply_batch(batch("y", 3, grant("b", "Claimed")));
    assert_eq!((counts(&world).ready, counts(&world).spent, counts(&world).held), (0, 1, 1));
    world.remove_batch("y-uid");
    assert_eq!((counts(&world).ready, counts(&world).spent), (0, 2));
}

#[test]
fn who_holds_what_does_not_depend_on_the_order_of_the_news() {
    for pods_first in [true, false] {
        let mut world = world();
        type Step = Box<dyn Fn(&mut World)>;
        let mut steps: Vec<Step> = vec![
            Box::new(|w| w.apply_pool(pool("p", 9))),
            Box::new(|w| w.apply_pod(pod("a", 1, |p| p.claimed_by = Some("x-uid".into())))),
            Box::new(|w| w.apply_batch(batch("x", 2, grant("a", "Claimed")))),
        ];
        if !pods_first {
            steps.reverse();
        }
        steps.iter().for_each(|step| step(&mut world));
        assert_eq!((counts(&world).held, counts(&world).existing()), (1, 1));
    }
}

#[test]
fn a_listing_buries_what_it_does_not_name() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.begin_list(Kind::Pod, &None);
    world.apply_pod(pod("b", 2, |_| {}));
    world.end_list(Kind::Pod, &None);
    assert_eq!(counts(&world).existing(), 1);
    assert!(world.pod("a").is_none() && world.pod("b").is_some());
}
