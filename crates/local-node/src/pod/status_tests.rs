use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1000 + second).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn run(attempt: u32, outcome: Option<Outcome>) -> Run {
    Run { attempt, id: format!("id{attempt}"), pid: 1, started_at: at(0), image: String::new(), user: None, outcome }
}

fn exit(exit_code: i32, oom_killed: bool) -> Option<Outcome> {
    Some(Outcome { exit_code, oom_killed, ..Outcome::at(at(1)) })
}

fn status(pod: &Pod, runs: &[(&str, Run)], memory: &Memory, sandbox: SandboxPhase, now: i64) -> PodStatus {
    let mut state = PodState::default();
    for (name, run) in runs {
        state.containers.entry((*name).to_owned()).or_default().push(run.clone());
    }
    build(&View {
        pod,
        state: &state,
        memory,
        sandbox,
        pod_ip: Some("10.0.0.2".into()),
        host_ip: "10.0.0.1",
        now: at(now),
    })
}

fn ready_memory(name: &str, id: &str) -> Memory {
    let mut memory = Memory::default();
    let of = memory.of(name);
    (of.probed, of.started, of.ready) = (id.to_owned(), true, true);
    memory
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn ready_moves_only_when_it_changes() {
    let mut pod = pod(serde_json::json!({"containers": [{"name": "a"}]}));
    let pending = status(&pod, &[], &Memory::default(), SandboxPhase::Ready, 0);
    assert_eq!(pending.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&pending, "Ready").status, "False");
    let waiting = pending.container_statuses.as_ref().unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    pod.status = Some(pending);

    let memory = ready_memory("a", "id0");
    let running = status(&pod, &[("a", run(0, None))], &memory, SandboxPhase::Ready, 5);
    assert_eq!(running.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&running, "Ready").last_transition_time, Some(Time(at(5))));
    assert_eq!(condition(&running, "Initialized").last_transition_time, Some(Time(at(0))));
    assert_eq!(running.container_statuses.as_ref().unwrap()[0].container_id.as_deref(), Some("osb://id0"));
    pod.status = Some(running.clone());
    let later = status(&pod, &[("a", run(0, None))], &memory, SandboxPhase::Ready, 50);
    assert!(same(Some(&running), &later));
}

#[test]
fn phases_follow_the_containers() {
    let cases = [
        ("Always", exit(1, false), "Running"),
        ("OnFailure", exit(1, false), "Running"),
        ("OnFailure", exit(0, false), "Succeeded"),
        ("Never", exit(0, false), "Succeeded"),
        ("Never", exit(1, false), "Failed"),
    ];
    for (policy, outcome, expected) in cases {
        let pod = pod(serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let status = status(&pod, &[("a", run(0, outcome))], &Memory::default(), SandboxPhase::Ready, 2);
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy}");
    }
    let pod = pod(serde_json::json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let failed = status(&pod, &[("i", run(0, exit(1, false)))], &Memory::default(), SandboxPhase::Ready, 2);
    assert_eq!(failed.phase.as_deref(), Some("Failed"));
    let pending = status(&pod, &[("i", run(0, None))], &Memory::default(), SandboxPhase::Ready, 2);
    assert_eq!(pending.phase.as_deref(), Some("Pending"));
    let waiting = pending.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
}

#[test]
fn a_crash_loop_and_memory_exhaustion_are_told() {
    let pod = pod(serde_json::json!({"containers": [{"name": "a"}]}));
    let mut memory = Memory::default();
    memory.of("a").backoff.restarted(at(0), at(1));
    let status =
        status(&pod, &[("a", run(0, exit(1, false))), ("a", run(1, exit(137, true)))], &memory, SandboxPhase::Ready, 2);
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 1);
    let waiting = container.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_n(u)"));
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.reason.as_deref(), last.exit_code), (Some("OOMKilled"), 137));
}

#[test]
fn a_lost_sandbox_fails_the_pod_and_says_that_more_is_not_known() {
    let pod = pod(serde_json::json!({"containers": [{"name": "a"}]}));
    let status = status(&pod, &[("a", run(0, None))], &Memory::default(), SandboxPhase::Lost, 2);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("SandboxLost")));
    let terminated = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(terminated.reason.as_deref(), Some("ContainerStatusUnknown"));
}

#[test]
fn conditions_of_others_stay() {
    let mut pod = pod(serde_json::json!({"containers": [{"name": "a"}],
        "readinessGates": [{"conditionType": "example.com/ok"}]}));
    pod.status = Some(PodStatus {
        conditions: Some(vec![PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
    let status = status(&pod, &[("a", run(0, None))], &ready_memory("a", "id0"), SandboxPhase::Ready, 2);
    assert_eq!(condition(&status, "PodScheduled").status, "True");
    assert_eq!(condition(&status, "ContainersReady").status, "True");
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
}

#[test]
fn quality_of_service_is_kubernetes_own() {
    let class = |resources: serde_json::Value| {
        qos_class(&pod(serde_json::json!({"containers": [{"name": "a", "resources": resources}]})))
    };
    assert_eq!(class(serde_json::json!({})), "BestEffort");
    assert_eq!(class(serde_json::json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(
        class(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
        "Burstable"
    );
}
