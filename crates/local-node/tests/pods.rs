//! Real pods from the Kubernetes API in memory to their processes and back. Needs root; says so and ends where it is
//! missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

use std::path::PathBuf;
use std::time::Duration;

use std::panic::AssertUnwindSafe;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node as NodeObject, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use local_api::streams::{ExecOptions, LogOptions, PodRef};
use local_node::{Node, NodeConfig};
use tokio::io::AsyncReadExt;

type Test = for<'a> fn(&'a mut World) -> BoxFuture<'a, ()>;

/// Every wait has an end.
const PATIENCE: Duration = Duration::from_secs(40);

struct World {
    dir: tempfile::TempDir,
    client: kube::Client,
    node: Option<Node>,
}

fn main() {
    local_node::shim::main_if_asked();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: tests of pods need root");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let tests: [(&str, Test); 11] = [
        ("a_pod_runs_and_is_deleted_without_trace", |w| Box::pin(runs(w))),
        ("init_containers_and_a_shared_pid_namespace", |w| Box::pin(seedlike(w))),
        ("what_cannot_start_says_why", |w| Box::pin(refusals(w))),
        ("memory_exhaustion_and_fork_bombs_are_contained", |w| Box::pin(limits(w))),
        ("probes_and_restarts", |w| Box::pin(probes(w))),
        ("logs_and_exec", |w| Box::pin(streams(w))),
        ("a_terminal_is_one", |w| Box::pin(terminal(w))),
        ("pods_outlive_their_node", |w| Box::pin(outlive(w))),
        ("a_killed_shim_fails_its_pod_and_leaves_nothing", |w| Box::pin(killed(w))),
        ("a_pod_that_waits_for_its_image_can_be_deleted", |w| Box::pin(waits(w))),
        ("many_pods_come_and_go", |w| Box::pin(many(w))),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let begun = std::time::Instant::now();
        runtime.block_on(async {
            let mut world = World::new().await;
            let run = AssertUnwindSafe(test(&mut world)).catch_unwind();
            let result = tokio::time::timeout(Duration::from_secs(120), run).await;
            world.clean().await;
            match result.unwrap_or_else(|_| panic!("{name}: took too long")) {
                Ok(()) => {}
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
    }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let api = local_api::Api::in_memory();
        let client = api.client("default");
        let mut world = Self { dir, client, node: None };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let mut config = NodeConfig::new(self.dir.path(), self.client.clone(), "/nonexistent");
        config.pids_limit = 200;
        self.node = Some(Node::start(config).await.unwrap());
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn create(&self, name: &str, spec: serde_json::Value) -> Pod {
        let pod = serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    async fn wait(&self, name: &str, what: &str, condition: impl Condition<Pod>) -> Option<Pod> {
        let waited = tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, condition)).await;
        match waited {
            Ok(pod) => pod.unwrap(),
            Err(_) => {
                let pod = self.pods().get_opt(name).await.unwrap();
                let status = serde_json::to_string_pretty(&pod.map(|pod| pod.status)).unwrap();
                panic!("{name} did not become {what}: {status}\n{}", self.shim_logs());
            }
        }
    }

    fn shim_logs(&self) -> String {
        let dirs = std::fs::read_dir(self.dir.path().join("pods")).into_iter().flatten().flatten();
        dirs.map(|dir| std::fs::read_to_string(dir.path().join("shim.log")).unwrap_or_default()).collect()
    }

    async fn ready(&self, name: &str) -> Pod {
        self.wait(name, "ready", |pod: Option<&Pod>| pod.is_some_and(is_ready)).await.unwrap()
    }

    async fn gone(&self, name: &str) {
        self.wait(name, "gone", |pod: Option<&Pod>| pod.is_none()).await;
    }

    async fn delete(&self, name: &str, grace: u32) {
        self.pods().delete(name, &DeleteParams::default().grace_period(grace)).await.unwrap();
        self.gone(name).await;
    }

    async fn log(&self, pod: &Pod, container: &str) -> String {
        let options = LogOptions { container: container.into(), ..LogOptions::default() };
        let mut stream = self.node.as_ref().unwrap().streams().logs(&reference(pod), options).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn exec(&self, pod: &Pod, container: &str, command: &[&str]) -> (String, i32) {
        let options = ExecOptions {
            container: container.into(),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            stdout: true,
            ..ExecOptions::default()
        };
        let mut streams = self.node.as_ref().unwrap().streams().exec(&reference(pod), options).await.unwrap();
        let mut text = String::new();
        streams.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        (text, streams.exit.await.unwrap())
    }

    /// Waits until nothing of a pod is left on the machine.
    async fn traceless(&self, uid: &str) {
        let dir = self.dir.path().join("pods").join(uid);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while dir.exists() || left_behind(uid) {
            assert!(tokio::time::Instant::now() < deadline, "something of pod {uid} is left");
            tokio::task::yield_now().await;
        }
    }

    /// Ends everything and looks for what is left.
    async fn clean(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
        let uids: Vec<PathBuf> = std::fs::read_dir(self.dir.path().join("pods"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| PathBuf::from(entry.file_name()))
            .collect();
        Node::purge(self.dir.path()).await.unwrap();
        Node::purge(self.dir.path()).await.unwrap();
        for uid in uids {
            assert!(!left_behind(&uid.to_string_lossy()), "control groups of {uid:?} are left");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "{mounts}");
    }
}

fn left_behind(uid: &str) -> bool {
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    roots.chain([PathBuf::from("/sys/fs/cgroup")]).any(|root| root.join("osb").join(uid).exists())
}

fn reference(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone().unwrap(),
        name: pod.metadata.name.clone().unwrap(),
        uid: pod.metadata.uid.clone().unwrap(),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn container<'a>(pod: &'a Pod, name: &str) -> &'a ContainerStatus {
    let status = pod.status.as_ref().unwrap();
    status.container_statuses.iter().flatten().find(|status| status.name == name).unwrap()
}

fn sleeper() -> serde_json::Value {
    serde_json::json!({"shareProcessNamespace": true,
        "containers": [{"name": "c", "image": "host", "command": ["sleep", "1000"]}]})
}

async fn runs(world: &mut World) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 1);
    world.create("web", sleeper()).await;
    let pod = world.ready("web").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some() && status.host_ip.is_some());
    assert!(container(&pod, "c").container_id.as_ref().unwrap().starts_with("osb://"));
    assert!(!container(&pod, "c").image_id.is_empty());
    let uid = pod.metadata.uid.clone().unwrap();
    let begun = std::time::Instant::now();
    world.delete("web", 30).await;
    println!("  deleted in {} ms", begun.elapsed().as_millis());
    assert!(!world.dir.path().join("pods").join(&uid).exists());
    assert!(!left_behind(&uid));
    let events: Api<Event> = Api::default_namespaced(world.client.clone());
    let reasons: Vec<String> =
        events.list(&ListParams::default()).await.unwrap().items.into_iter().filter_map(|event| event.reason).collect();
    for expected in ["Scheduled", "Pulled", "Created", "Started"] {
        assert!(reasons.iter().any(|reason| reason == expected), "{expected}: {reasons:?}");
    }
}

async fn seedlike(world: &mut World) {
    world
        .create(
            "seed",
            serde_json::json!({
                "shareProcessNamespace": true,
                "initContainers": [{"name": "i", "image": "host", "command": ["sh", "-c", "echo made > /shared/file"],
                    "volumeMounts": [{"name": "v", "mountPath": "/shared"}]}],
                "containers": [
                    {"name": "a", "image": "host", "command": ["sh", "-c", "cat /shared/file; exec sleep 1000"],
                     "volumeMounts": [{"name": "v", "mountPath": "/shared", "readOnly": true}]},
                    {"name": "b", "image": "host", "command": ["sleep", "2000"],
                     "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}],
                "volumes": [{"name": "v", "emptyDir": {}}]
            }),
        )
        .await;
    let pod = world.ready("seed").await;
    let (text, code) = world.exec(&pod, "b", &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; hostname"]).await;
    assert_eq!(code, 0);
    assert!(text.contains("/pause") && text.contains("sleep 1000") && text.contains("seed"), "{text}");
    let options = LogOptions { container: "a".into(), limit_bytes: Some(5), ..LogOptions::default() };
    let mut log = world.node.as_ref().unwrap().streams().logs(&reference(&pod), options).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap(), "made\n");
    let (_, code) = world.exec(&pod, "a", &["sh", "-c", "echo no > /shared/file"]).await;
    assert_ne!(code, 0);
    world.delete("seed", 30).await;
}

async fn refusals(world: &mut World) {
    let waiting = |reason: &'static str| {
        move |pod: Option<&Pod>| {
            pod.and_then(|pod| pod.status.as_ref())
                .and_then(|status| status.container_statuses.as_ref())
                .and_then(|statuses| statuses.first())
                .and_then(|status| status.state.as_ref())
                .and_then(|state| state.waiting.as_ref())
                .is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
        }
    };
    let one = |value: serde_json::Value| serde_json::json!({"containers": [value]});
    world
        .create("never", one(serde_json::json!({"name": "c", "image": "no/such:1", "imagePullPolicy": "Never"})))
        .await;
    world.wait("never", "ErrImageNeverPull", waiting("ErrImageNeverPull")).await;
    world
        .create(
            "config",
            one(serde_json::json!({"name": "c", "image": "host", "command": ["true"],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]})),
        )
        .await;
    world.wait("config", "CreateContainerConfigError", waiting("CreateContainerConfigError")).await;
    let mut once = one(serde_json::json!({"name": "c", "image": "host", "command": ["no-such-program"]}));
    once["restartPolicy"] = "Never".into();
    world.create("start", once).await;
    let failed = |pod: Option<&Pod>| phase(pod) == Some("Failed");
    let pod = world.wait("start", "Failed", failed).await.unwrap();
    let ended = container(&pod, "c").state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("StartError"), 128));
    assert!(ended.message.unwrap().contains("executable file not found in $PATH"));
    let mut selective = one(serde_json::json!({"name": "c", "image": "host", "command": ["true"]}));
    selective["nodeSelector"] = serde_json::json!({"gpu": "yes"});
    world.create("elsewhere", selective).await;
    world
        .wait("elsewhere", "unschedulable", |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|list| list.iter().any(|c| c.reason.as_deref() == Some("Unschedulable")))
        })
        .await;
    for name in ["never", "config", "start"] {
        world.delete(name, 1).await;
    }
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

async fn limits(world: &mut World) {
    world
        .create(
            "greedy",
            serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "host",
                "command": ["sh", "-c", "(tail /dev/zero); sleep 1000"],
                "resources": {"limits": {"memory": "32Mi"}}}]}),
        )
        .await;
    world
        .create(
            "bomb",
            serde_json::json!({"containers": [{"name": "c", "image": "host",
                "command": ["bash", "-c", "b() { b | b & }; b; sleep 1000"]}]}),
        )
        .await;
    let pod = world.wait("greedy", "Failed", |pod: Option<&Pod>| phase(pod) == Some("Failed")).await.unwrap();
    let ended = container(&pod, "c").state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("OOMKilled"), 137));
    world.create("neighbour", sleeper()).await;
    world.ready("neighbour").await;
    world.delete("bomb", 1).await;
    world.delete("neighbour", 30).await;
}

async fn probes(world: &mut World) {
    world
        .create(
            "probed",
            serde_json::json!({"containers": [{"name": "c", "image": "host",
                "command": ["sh", "-c", "sleep 1; touch /tmp/up; sleep 1000"],
                "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}}]}),
        )
        .await;
    world
        .create(
            "crashing",
            serde_json::json!({"containers": [{"name": "c", "image": "host", "command": ["sh", "-c", "exit 3"]}]}),
        )
        .await;
    let running = |pod: Option<&Pod>| phase(pod) == Some("Running");
    let pod = world.wait("probed", "Running", running).await.unwrap();
    assert!(!is_ready(&pod));
    world.ready("probed").await;
    let looping = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref())
            .and_then(|status| status.container_statuses.as_ref())
            .and_then(|statuses| statuses.first())
            .is_some_and(|status| {
                let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
                status.restart_count == 1
                    && waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
            })
    };
    let pod = world.wait("crashing", "CrashLoopBackOff", looping).await.unwrap();
    let last = container(&pod, "c").last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 3);
    world.delete("probed", 1).await;
    world.delete("crashing", 1).await;
}

async fn streams(world: &mut World) {
    world
        .create(
            "talker",
            serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "host",
                "command": ["sh", "-c",
                    "echo one; echo two >&2; until test -p /tmp/pipe; do sleep 0.05; done; read x < /tmp/pipe; echo $x"],
                "lifecycle": {"postStart": {"exec": {"command": ["mkfifo", "/tmp/pipe"]}}}}]}),
        )
        .await;
    let pod = world.wait("talker", "Running", |pod: Option<&Pod>| phase(pod) == Some("Running")).await.unwrap();
    let options = ExecOptions {
        container: "c".into(),
        command: ["sh", "-c", "until test -p /tmp/pipe; do sleep 0.1; done; cat > /tmp/pipe"]
            .map(str::to_owned)
            .to_vec(),
        stdin: true,
        ..ExecOptions::default()
    };
    let node = world.node.as_ref().unwrap();
    let mut command = node.streams().exec(&reference(&pod), options).await.unwrap();
    use tokio::io::AsyncWriteExt;
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(b"three\n").await.unwrap();
    drop(stdin);
    let options = LogOptions { container: "c".into(), follow: true, ..LogOptions::default() };
    let mut stream = node.streams().logs(&reference(&pod), options).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        text.extend_from_slice(&piece.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("one\n") && text.contains("two\n") && text.ends_with("three\n"), "{text}");
    world.wait("talker", "Succeeded", |pod: Option<&Pod>| phase(pod) == Some("Succeeded")).await;
    assert_eq!(world.log(&pod, "c").await, text);
    world.delete("talker", 1).await;
}

async fn outlive(world: &mut World) {
    world.create("survivor", sleeper()).await;
    world
        .create(
            "mortal",
            serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "host",
                "command": ["sh", "-c", "until test -e /tmp/go; do sleep 0.1; done; exit 5"]}]}),
        )
        .await;
    world.create("orphan", sleeper()).await;
    let survivor = world.ready("survivor").await;
    let mortal = world.ready("mortal").await;
    let orphan = world.ready("orphan").await;
    world.exec(&mortal, "c", &["touch", "/tmp/go"]).await;
    // Dropped, not stopped: no word is said to anybody.
    drop(world.node.take());
    world.pods().delete("orphan", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.start().await;
    let pod = world.wait("mortal", "Failed", |pod: Option<&Pod>| phase(pod) == Some("Failed")).await.unwrap();
    assert_eq!(container(&pod, "c").state.clone().unwrap().terminated.unwrap().exit_code, 5);
    let (text, code) = world.exec(&survivor, "c", &["echo", "alive"]).await;
    assert_eq!((text.as_str(), code), ("alive\n", 0));
    let again = world.pods().get("survivor").await.unwrap();
    assert_eq!(container(&again, "c").container_id, container(&survivor, "c").container_id);
    assert_eq!(container(&again, "c").restart_count, 0);
    world.traceless(&orphan.metadata.uid.unwrap()).await;
    world.delete("survivor", 30).await;
    world.delete("mortal", 30).await;
}

async fn many(world: &mut World) {
    const COUNT: usize = 30;
    let begun = std::time::Instant::now();
    for index in 0..COUNT {
        world.create(&format!("p{index}"), sleeper()).await;
    }
    for index in 0..COUNT {
        world.ready(&format!("p{index}")).await;
    }
    println!("  {COUNT} pods ready in {} ms", begun.elapsed().as_millis());
    let begun = std::time::Instant::now();
    for index in 0..COUNT {
        world.pods().delete(&format!("p{index}"), &DeleteParams::default()).await.unwrap();
    }
    for index in 0..COUNT {
        world.gone(&format!("p{index}")).await;
    }
    println!("  {COUNT} pods gone in {} ms", begun.elapsed().as_millis());
    assert!(std::fs::read_dir(world.dir.path().join("pods")).unwrap().next().is_none());
}

async fn killed(world: &mut World) {
    world.create("victim", sleeper()).await;
    let pod = world.ready("victim").await;
    let uid = pod.metadata.uid.clone().unwrap();
    let dir = world.dir.path().join("pods").join(&uid);
    let shims = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mine = line.split(|byte| *byte == 0).nth(2)? == dir.as_os_str().as_encoded_bytes();
        mine.then(|| entry.file_name().to_string_lossy().parse::<i32>().unwrap())
    });
    for pid in shims.collect::<Vec<_>>() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let pod = world.wait("victim", "Failed", |pod: Option<&Pod>| phase(pod) == Some("Failed")).await.unwrap();
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("SandboxLost"));
    let ended = container(&pod, "c").state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.reason.as_deref(), Some("ContainerStatusUnknown"));
    world.delete("victim", 30).await;
    // The API lets the object of a finished pod go at once; the node clears up after it.
    world.traceless(&uid).await;
}

async fn waits(world: &mut World) {
    // Nobody answers at this address: the pull would take its whole patience.
    let container = serde_json::json!({"name": "c", "image": "192.0.2.1:5000/none:1"});
    world.create("waiting", serde_json::json!({"containers": [container]})).await;
    let pending = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some()));
    world.wait("waiting", "in its sandbox", pending).await;
    let begun = std::time::Instant::now();
    world.delete("waiting", 30).await;
    println!("  deleted in {} ms", begun.elapsed().as_millis());
}

async fn terminal(world: &mut World) {
    use tokio::io::AsyncWriteExt;
    world.create("shell", sleeper()).await;
    let pod = world.ready("shell").await;
    let options = ExecOptions {
        container: "c".into(),
        command: ["sh", "-c", "read x; stty size; echo got $x; read y; exit 4"].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        tty: true,
        ..ExecOptions::default()
    };
    let mut command = world.node.as_ref().unwrap().streams().exec(&reference(&pod), options).await.unwrap();
    let resize = command.resize.take().unwrap();
    resize.send(local_api::streams::TerminalSize { width: 132, height: 43 }).await.unwrap();
    // The channel has taken the size once its queue of one task is empty again.
    while resize.capacity() < resize.max_capacity() {
        tokio::task::yield_now().await;
    }
    let (mut stdin, mut stdout) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
    stdin.write_all(b"me\n").await.unwrap();
    let mut text = String::new();
    while !text.contains("got me") {
        let mut buffer = [0u8; 256];
        let count = stdout.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(text.contains("43 132"), "{text}");
    stdin.shutdown().await.unwrap();
    assert_eq!(command.exit.await.unwrap(), 4);
    stdout.read_to_string(&mut text).await.unwrap();
    world.delete("shell", 30).await;
}
