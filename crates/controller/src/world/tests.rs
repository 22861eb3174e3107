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
    let snapshot =
        world.batch_snapshot(&ObjectName::new("d", batch), Timestamp::UNIX_EPOCH, tokio::time::Instant::now()).unwrap();
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

#[test]
fn a_standby_promises_nothing_until_it_leads() {
    let mut world = world();
    world.stand_by();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_batch(batch("x", 2, json!([])));
    assert!(reserved(&world, "x").is_empty());
    // The leader gives the pod to another.
    world.apply_batch(batch("y", 3, grant("a", "Granted")));
    world.lead();
    assert!(reserved(&world, "x").is_empty());
    world.apply_pod(pod("b", 4, |_| {}));
    assert_eq!(reserved(&world, "x"), ["b"]);
}

#[test]
fn a_promise_gives_way_to_a_durable_grant_of_another() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_batch(batch("x", 2, json!([])));
    assert_eq!(reserved(&world, "x"), ["a"]);
    world.apply_batch(batch("y", 3, grant("a", "Granted")));
    assert!(reserved(&world, "x").is_empty());
    assert_eq!(counts(&world).held, 1);
}

#[test]
fn a_namespaces_listing_says_nothing_about_others() {
    let mut world = World::of(&["d".to_owned(), "e".to_owned()]);
    let (d, e): (Scope, Scope) = (Some("d".into()), Some("e".into()));
    for kind in [Kind::Pod, Kind::Pool, Kind::Batch] {
        world.begin_list(kind, &d);
        world.end_list(kind, &d);
    }
    assert!(!world.is_synced(), "e is not listed yet");
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    for kind in [Kind::Pod, Kind::Pool, Kind::Batch] {
        world.begin_list(kind, &e);
        world.end_list(kind, &e);
    }
    assert!(world.is_synced());
    assert_eq!(counts(&world).ready, 1);
}

/// A BatchSandbox as an older controller left it.
fn old_batch(name: &str, version: u64, allocated: &str, released: &str) -> BatchSandbox {
    let mut batch = batch(name, version, json!([]));
    let annotations = [("alloc-status", allocated), ("alloc-released", released)];
    let annotations = annotations.iter().filter(|(_, text)| !text.is_empty());
    batch.metadata.annotations =
        Some(annotations.map(|(k, v)| (format!("sandbox.opensandbox.io/{k}"), (*v).to_owned())).collect());
    batch
}

fn heirs(world: &World, batch: &str) -> Vec<(String, api_types::crd::GrantState)> {
    let snapshot =
        world.batch_snapshot(&ObjectName::new("d", batch), Timestamp::UNIX_EPOCH, tokio::time::Instant::now()).unwrap();
    snapshot.inherited.unwrap().unwrap().into_iter().map(|i| (i.name, i.state)).collect()
}

#[test]
fn who_has_not_released_a_pod_inherits_it_in_whatever_order_they_are_seen() {
    use api_types::crd::GrantState::{Claimed, Released};
    let former = || old_batch("former", 2, r#"{"pods":["p-1"]}"#, r#"{"pods":["p-1"]}"#);
    let heir = || old_batch("heir", 3, r#"{"pods":["p-1"]}"#, "");
    let later = || old_batch("later", 4, r#"{"pods":["p-1"]}"#, "");
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let mut world = world();
        world.stand_by();
        world.apply_pool(pool("p", 9));
        for step in order {
            match step {
                0 => world.apply_pod(pod("p-1", 1, |_| {})),
                1 => world.apply_batch(former()),
                2 => world.apply_batch(heir()),
                _ => world.apply_batch(later()),
            }
        }
        world.lead();
        assert_eq!(heirs(&world, "heir"), [("p-1".to_owned(), Claimed)], "{order:?}");
        assert_eq!(heirs(&world, "former"), [("p-1".to_owned(), Released)], "{order:?}");
        assert_eq!(heirs(&world, "later"), [("p-1".to_owned(), api_types::crd::GrantState::Lost)], "{order:?}");
        assert_eq!((counts(&world).held, counts(&world).ready), (1, 0), "{order:?}");
    }
}

#[test]
fn an_inherited_pod_is_not_idle_and_a_keyed_one_is_never_inherited() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("p-1", 1, |_| {}));
    world.apply_pod(pod("p-2", 1, |p| p.keyed = true));
    world.apply_batch(old_batch("old", 2, r#"{"pods":["p-1","p-2"]}"#, ""));
    world.apply_batch(batch("x", 3, json!([])));
    world.apply_batch(batch("y", 4, json!([])));
    assert_eq!(reserved(&world, "x"), ["p-2"]);
    assert!(reserved(&world, "y").is_empty());
    world.remove_batch("old-uid");
    assert_eq!(counts(&world).spent, 1, "its pod was used");
    assert!(reserved(&world, "y").is_empty());
}

#[test]
fn a_record_that_cannot_be_read_keeps_the_pools_old_pods_where_they_are() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_batch(old_batch("broken", 2, "{", ""));
    world.apply_pod(pod("p-1", 1, |_| {}));
    world.apply_pod(pod("p-2", 1, |p| p.keyed = true));
    world.apply_batch(batch("x", 3, json!([])));
    assert_eq!(reserved(&world, "x"), ["p-2"]);
    assert_eq!((counts(&world).held, counts(&world).spent), (2, 0));
    assert!(
        world
            .batch_snapshot(&ObjectName::new("d", "broken"), Timestamp::UNIX_EPOCH, tokio::time::Instant::now())
            .unwrap()
            .inherited
            .unwrap()
            .is_err()
    );
    // Mended: only what it names is its.
    world.apply_batch(old_batch("broken", 5, r#"{"pods":["p-9"]}"#, ""));
    assert_eq!((counts(&world).held, counts(&world).ready), (1, 1));
}

#[test]
fn a_promise_given_back_is_asked_for_anew() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    world.apply_batch(batch("x", 2, json!([])));
    assert_eq!(reserved(&world, "x"), ["a"]);
    // It is not ready any more when its sandbox comes to take it.
    world.apply_pod(pod("a", 3, |p| p.ready_since = None));
    world.return_reserved(&"x-uid".into(), &["a".into()]);
    assert!(reserved(&world, "x").is_empty());
    world.apply_pod(pod("a", 4, |_| {}));
    assert_eq!(reserved(&world, "x"), ["a"]);
}

#[test]
fn pods_of_the_new_revision_are_given_first() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    let snapshot = world.pool_snapshot(&ObjectName::new("d", "p")).unwrap();
    let Template::Usable { revision, .. } = snapshot.template else { panic!("malformed") };
    world.apply_pod(pod("a", 1, |p| p.revision = Some("old".into())));
    world.apply_pod(pod("b", 2, |p| p.revision = Some(revision.to_string())));
    let snapshot = world.pool_snapshot(&ObjectName::new("d", "p")).unwrap();
    assert_eq!((snapshot.counts.outdated, snapshot.outdated.len()), (1, 1));
    world.apply_batch(batch("x", 3, json!([])));
    world.apply_batch(batch("y", 4, json!([])));
    assert_eq!(reserved(&world, "x"), ["b"]);
    assert_eq!(reserved(&world, "y"), ["a"]);
}

#[test]
fn a_pod_about_to_be_deleted_is_promised_to_nobody_and_a_promised_one_stays() {
    let mut world = world();
    world.apply_pool(pool("p", 9));
    world.apply_pod(pod("a", 1, |_| {}));
    assert!(world.doom("a"));
    world.apply_batch(batch("x", 2, json!([])));
    assert!(reserved(&world, "x").is_empty());
    world.apply_pod(pod("b", 3, |_| {}));
    assert_eq!(reserved(&world, "x"), ["b"]);
    assert!(!world.doom("b"));
}
