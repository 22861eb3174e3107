use super::*;
use crate::shim::proto::Outcome;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1000 + second).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec,
        "status": {"startTime": "1970-01-01T00:16:40Z"}}))
    .unwrap()
}

fn simple() -> serde_json::Value {
    serde_json::json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]})
}

fn run(attempt: u32, exit: Option<i32>) -> Run {
    Run {
        attempt,
        id: format!("{attempt}"),
        pid: 1,
        started_at: at(0),
        image: String::new(),
        user: None,
        outcome: exit.map(|exit_code| Outcome { exit_code, ..Outcome::at(at(1)) }),
    }
}

struct World {
    pod: Pod,
    state: PodState,
    memory: Memory,
    sandbox: SandboxPhase,
    ending: bool,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        Self {
            pod: pod(spec),
            state: PodState::default(),
            memory: Memory::default(),
            sandbox: SandboxPhase::Ready,
            ending: false,
        }
    }

    fn with(mut self, name: &str, run: Run) -> Self {
        self.state.containers.insert(name.to_owned(), vec![run]);
        self
    }

    fn decide(&self, now: i64) -> Decision {
        decide(&View {
            pod: &self.pod,
            state: &self.state,
            memory: &self.memory,
            sandbox: self.sandbox,
            starting: false,
            ending: self.ending,
            now: at(now),
        })
    }
}

fn start(container: &str, attempt: u32) -> Action {
    Action::Start { container: container.into(), attempt }
}

#[test]
fn a_pod_comes_up_in_order_and_one_container_at_a_time() {
    let mut world = World::new(simple());
    world.sandbox = SandboxPhase::Absent;
    assert_eq!(world.decide(0).actions, [Action::MakeSandbox]);
    world.sandbox = SandboxPhase::Ready;
    assert_eq!(world.decide(0).actions, [start("i", 0)]);
    let world = world.with("i", run(0, None));
    assert_eq!(world.decide(0).actions, []);
    let world = world.with("i", run(0, Some(0)));
    assert_eq!(world.decide(2).actions, [start("a", 0)]);
    let world = world.with("a", run(0, None));
    assert_eq!(world.decide(2).actions, [start("b", 0)]);
    let world = world.with("b", run(0, None));
    assert_eq!(world.decide(2), Decision::default());
}

#[test]
fn restarts_follow_the_policy_and_the_backoff() {
    for (policy, exit, expected) in [
        ("Always", 0, vec![start("a", 1)]),
        ("OnFailure", 0, vec![Action::StopSandbox]),
        ("OnFailure", 3, vec![start("a", 1)]),
        ("Never", 3, vec![Action::StopSandbox]),
    ] {
        let world = World::new(serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a"}]}))
            .with("a", run(0, Some(exit)));
        assert_eq!(world.decide(1).actions, expected, "{policy} {exit}");
    }
    let mut world = World::new(serde_json::json!({"containers": [{"name": "a"}]})).with("a", run(1, Some(3)));
    world.memory.of("a").backoff.restarted(at(0), at(1));
    let decision = world.decide(2);
    assert_eq!((decision.actions, decision.wake), (vec![], Some(at(11))));
    assert_eq!(world.decide(11).actions, [start("a", 2)]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut spec = simple();
    spec["restartPolicy"] = "Never".into();
    assert_eq!(World::new(spec).with("i", run(0, Some(1))).decide(1).actions, [Action::StopSandbox]);
    assert_eq!(World::new(simple()).with("i", run(0, Some(1))).decide(1).actions, [start("i", 1)]);
}

#[test]
fn a_deleted_pod_is_ended_and_then_removed_and_nothing_starts() {
    let mut world = World::new(simple()).with("i", run(0, Some(0))).with("a", run(0, None));
    world.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(30)));
    assert_eq!(world.decide(2).actions, [Action::End]);
    world.ending = true;
    assert_eq!(world.decide(2).actions, []);
    world.ending = false;
    let world = world.with("a", run(0, Some(143)));
    assert_eq!(world.decide(3).actions, [Action::Remove]);
}

#[test]
fn the_active_deadline_ends_the_pod_and_wakes_the_node() {
    let world = World::new(serde_json::json!({"activeDeadlineSeconds": 5, "containers": [{"name": "a"}]}))
        .with("a", run(0, None));
    assert_eq!(world.decide(2).wake, Some(at(5)));
    assert_eq!(world.decide(5).actions, [Action::End]);
}

#[test]
fn a_container_whose_probe_fails_is_restarted_once_for_each_run() {
    let mut world = World::new(serde_json::json!({"containers": [{"name": "a"}]})).with("a", run(0, None));
    let memory = world.memory.of("a");
    (memory.probed, memory.unhealthy) = ("0".into(), Some("liveness".into()));
    assert_eq!(world.decide(1).actions, [Action::Restart { container: "a".into(), reason: "liveness".into() }]);
    let world = world.with("a", run(1, None));
    assert_eq!(world.decide(1).actions, []);
}

#[test]
fn a_lost_sandbox_is_left_as_it_is() {
    let mut world = World::new(simple()).with("a", run(0, None));
    world.sandbox = SandboxPhase::Lost;
    assert_eq!(world.decide(1), Decision::default());
}
