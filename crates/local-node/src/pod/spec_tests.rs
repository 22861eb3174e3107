use super::*;

fn pod() -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "host"}]}
    }))
    .unwrap()
}

fn container(value: serde_json::Value) -> Container {
    let mut base = serde_json::json!({"name": "c", "image": "host"});
    base.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}

fn image() -> ImageDefaults {
    ImageDefaults {
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into()],
        working_dir: Some("/srv".into()),
        ..ImageDefaults::default()
    }
}

fn spec_of(container: &Container, image: &ImageDefaults) -> Result<Spec, SpecError> {
    build(&Inputs {
        pod: &pod(),
        container,
        image,
        environment: &[("A".into(), "1".into())],
        binds: &[],
        cgroup: "osb/u/c",
        pid_namespace: None,
        pids_limit: 100,
        allow_privileged: false,
    })
}

#[test]
fn limits_and_requests_become_shares_quota_and_bytes() {
    let with = container(serde_json::json!({"resources": {
        "requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "256Mi"}}}));
    let spec = spec_of(&with, &image()).unwrap();
    let resources = spec.linux().clone().unwrap().resources().clone().unwrap();
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(102), Some(50_000), Some(100_000)));
    assert_eq!(resources.memory().unwrap().limit(), Some(256 << 20));
    assert_eq!(resources.pids().unwrap().limit(), 100);
    assert!(!resources.devices().clone().unwrap()[0].allow());

    let none = spec_of(&container(serde_json::json!({})), &image()).unwrap();
    let resources = none.linux().clone().unwrap().resources().clone().unwrap();
    assert!(resources.memory().is_none());
    assert_eq!(resources.cpu().clone().unwrap().quota(), None);
}

#[test]
fn capabilities_are_dropped_before_they_are_added() {
    let held = |value| {
        let spec = spec_of(&container(value), &image())?;
        let process = spec.process().clone().unwrap();
        let capabilities = process.capabilities().clone().unwrap();
        assert!(capabilities.ambient().as_ref().unwrap().is_empty());
        assert!(capabilities.inheritable().as_ref().unwrap().is_empty());
        Ok::<_, SpecError>(capabilities.permitted().clone().unwrap())
    };
    let plain = held(serde_json::json!({})).unwrap();
    assert_eq!(plain.len(), 14);
    let traced = held(serde_json::json!({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}})).unwrap();
    assert!(traced.contains(&Capability::SysPtrace) && traced.len() == 15);
    let one = held(serde_json::json!({"securityContext":
        {"capabilities": {"drop": ["ALL"], "add": ["CAP_NET_RAW"]}}}))
    .unwrap();
    assert_eq!(one, Capabilities::from([Capability::NetRaw]));
    let wrong = held(serde_json::json!({"securityContext": {"capabilities": {"add": ["FLY"]}}}));
    assert_eq!(wrong.unwrap_err(), SpecError::Capability("FLY".into()));
}

#[test]
fn what_the_node_does_not_give_is_refused_by_name() {
    let privileged = container(serde_json::json!({"securityContext": {"privileged": true}}));
    assert_eq!(spec_of(&privileged, &image()).unwrap_err(), SpecError::Privileged);
    assert_eq!(
        spec_of(&container(serde_json::json!({})), &ImageDefaults::default()).unwrap_err(),
        SpecError::NoCommand
    );
    let mut on_host = pod();
    on_host.spec.as_mut().unwrap().host_network = Some(true);
    let inputs = Inputs {
        pod: &on_host,
        container: &container(serde_json::json!({})),
        image: &image(),
        environment: &[],
        binds: &[],
        cgroup: "osb/u/c",
        pid_namespace: None,
        pids_limit: 1,
        allow_privileged: false,
    };
    assert_eq!(build(&inputs).unwrap_err(), SpecError::Unsupported("hostNetwork"));
}

#[test]
fn the_process_has_a_path_a_directory_and_its_environment_in_order() {
    let spec = spec_of(&container(serde_json::json!({})), &image()).unwrap();
    let process = spec.process().clone().unwrap();
    assert_eq!(process.env().clone().unwrap(), [format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web".into(), "A=1".into()]);
    assert_eq!(process.cwd().to_str(), Some("/srv"));
    assert_eq!(process.no_new_privileges(), Some(false));
    let strict = container(serde_json::json!({"securityContext":
        {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true}}));
    let spec = spec_of(&strict, &image()).unwrap();
    assert_eq!(spec.process().clone().unwrap().no_new_privileges(), Some(true));
    assert_eq!(spec.root().clone().unwrap().readonly(), Some(true));
}

#[test]
fn users_come_from_the_container_then_the_pod() {
    let mut pod = pod();
    pod.spec.as_mut().unwrap().security_context = Some(
        serde_json::from_value(serde_json::json!({"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3]}))
            .unwrap(),
    );
    let own = container(serde_json::json!({"securityContext": {"runAsUser": 5, "runAsNonRoot": true}}));
    let request = user(&pod, &own, &image()).unwrap();
    assert_eq!((request.uid, request.gid, request.non_root), (Some(5), None, true));
    assert_eq!(request.extra_groups, [3, 2000]);
    let negative = container(serde_json::json!({"securityContext": {"runAsUser": -1}}));
    assert_eq!(user(&pod, &negative, &image()).unwrap_err(), SpecError::Id("runAsUser"));
}
