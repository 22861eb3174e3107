//! Real containers through the shim alone. Needs root; says so and ends where it is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use local_node::images::ImageDefaults;
use local_node::pod::spec::{self, Bind, Inputs};
use local_node::shim::client::{Shim, ShimError};
use local_node::shim::proto::{
    FailureKind, LogSettings, PodState, Reply, Request, Root, Run, Sandbox, StartContainer, UserRequest,
};

type Test = fn(&mut World) -> futures::future::BoxFuture<'_, ()>;

struct World {
    dir: tempfile::TempDir,
    uid: String,
    lower: PathBuf,
    pod: Pod,
}

fn main() {
    local_node::shim::main_if_asked();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: the shim's tests need root");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tests: BTreeMap<&str, Test> = BTreeMap::from([
        ("runs_and_tells_how_it_ended", (|w| Box::pin(runs(w))) as Test),
        ("shares_one_pid_namespace", |w| Box::pin(shares(w))),
        ("a_missing_program_is_a_start_error", |w| Box::pin(missing(w))),
        ("memory_exhaustion_is_told", |w| Box::pin(oom(w))),
        ("a_fork_bomb_is_stopped", |w| Box::pin(bomb(w))),
        ("commands_run_inside", |w| Box::pin(exec(w))),
        ("the_default_filter_refuses_namespaces", |w| Box::pin(seccomp(w))),
        ("a_shim_whose_directory_goes_ends_its_pod", |w| Box::pin(homeless(w))),
    ]);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let begun = std::time::Instant::now();
        let mut world = World::new();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), test(&mut world)).await.expect(name);
        });
        world.clean(&runtime);
        println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        // The machine's own programs, the rest empty.
        let lower = dir.path().join("image");
        for name in ["proc", "dev", "sys", "tmp", "etc", "usr"] {
            std::fs::create_dir_all(lower.join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            let target = std::fs::read_link(Path::new("/").join(name)).unwrap();
            std::os::unix::fs::symlink(target, lower.join(name)).unwrap();
        }
        std::fs::write(lower.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n")
            .unwrap();
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "pod-under-test", "namespace": "default"},
            "spec": {"containers": [{"name": "c"}]}
        }))
        .unwrap();
        Self { uid: uuid::Uuid::new_v4().to_string(), dir, lower, pod }
    }

    fn pod_dir(&self) -> PathBuf {
        self.dir.path().join("pod")
    }

    async fn shim(&self, share: bool) -> Shim {
        let sandbox = Sandbox {
            pod_uid: self.uid.clone(),
            hostname: "pod-under-test".into(),
            share_process_namespace: share,
            cgroup: format!("osb/{}", self.uid),
            pids_limit: 64,
            sysctls: Vec::new(),
        };
        Shim::start(&self.pod_dir(), &sandbox).await.unwrap()
    }

    fn start(&self, value: serde_json::Value, pause: Option<i32>) -> Request {
        let container: Container = serde_json::from_value(value).unwrap();
        let image = ImageDefaults::default();
        let cgroup = format!("osb/{}/{}", self.uid, container.name);
        let spec = spec::build(&Inputs {
            pod: &self.pod,
            container: &container,
            image: &image,
            environment: &[("GREETING".into(), "hello".into())],
            binds: &[Bind { source: "/usr".into(), target: "/usr".into(), read_only: true }],
            cgroup: &cgroup,
            pid_namespace: pause.map(|pid| format!("/proc/{pid}/ns/pid").into()),
            pids_limit: 64,
            allow_privileged: false,
        })
        .unwrap();
        Request::Start(Box::new(StartContainer {
            image: String::new(),
            tty: false,
            stdin: false,
            name: container.name.clone(),
            attempt: 0,
            id: uuid::Uuid::new_v4().simple().to_string(),
            spec,
            root: Root { lower: vec![self.lower.clone()] },
            user: spec::user(&self.pod, &container, &image).unwrap(),
            log: LogSettings {
                path: self.pod_dir().join(format!("logs/{}/0.log", container.name)),
                max_bytes: 1 << 20,
                max_files: 2,
            },
            termination_message: None,
            message_from_log: true,
            seccomp: false,
            tmpfs: Vec::new(),
            sub_paths: Vec::new(),
        }))
    }

    fn log(&self, container: &str) -> String {
        std::fs::read_to_string(self.pod_dir().join(format!("logs/{container}/0.log"))).unwrap_or_default()
    }

    /// Ends the shim and looks for what is left.
    fn clean(self, runtime: &tokio::runtime::Runtime) {
        let shim = Shim::at(&self.pod_dir());
        runtime.block_on(async {
            let _ = shim.order(&Request::Shutdown).await;
        });
        for hierarchy in ["pids", "memory", "cpu"] {
            assert!(!Path::new(&format!("/sys/fs/cgroup/{hierarchy}/osb/{}", self.uid)).exists());
        }
    }
}

async fn ended(shim: &Shim, container: &str) -> Run {
    let mut session = shim.connect().await.unwrap();
    session.send(&Request::Watch, &[]).await.unwrap();
    loop {
        let Reply::State(state) = session.receive().await.unwrap() else { panic!("not a state") };
        if let Some(run) = state.current(container).filter(|run| !run.running()) {
            return run.clone();
        }
    }
}

async fn runs(world: &mut World) {
    let shim = world.shim(false).await;
    let script = "echo $GREETING from $(hostname) pid $$$$ as $(id -u):$(id -g) in $HOME; ls /; echo err >&2; exit 3";
    let request = world.start(
        serde_json::json!({"name": "c", "command": ["/bin/sh", "-c", script],
            "securityContext": {"runAsUser": 101}}),
        None,
    );
    shim.order(&request).await.unwrap();
    let run = ended(&shim, "c").await;
    let outcome = run.outcome.unwrap();
    let log = world.log("c");
    assert_eq!((outcome.exit_code, outcome.signal, outcome.oom_killed), (3, None, false), "{log}");
    assert!(log.contains("stdout F hello from pod-under-test pid 1 as 101:102 in /srv"), "{log}");
    assert!(log.contains("stderr F err"), "{log}");
    let replayed: PodState = local_node::shim::journal::replay(&world.pod_dir()).unwrap();
    assert_eq!(replayed.current("c").unwrap().outcome.as_ref().unwrap().exit_code, 3);
}

async fn shares(world: &mut World) {
    let shim = world.shim(true).await;
    let pause = shim.state().await.unwrap().pause_pid.unwrap();
    shim.order(&world.start(serde_json::json!({"name": "a", "command": ["/bin/sleep", "1000"]}), Some(pause)))
        .await
        .unwrap();
    shim.order(&world.start(
        serde_json::json!({"name": "b", "command": ["/bin/sh", "-c",
        "for p in /proc/[0-9]*; do cat $p/cmdline | tr '\\0' ' '; echo; done; ls -la /proc/1/root/"]}),
        Some(pause),
    ))
    .await
    .unwrap();
    ended(&shim, "b").await;
    let log = world.log("b");
    assert!(log.contains("F /pause"), "{log}");
    assert!(log.contains("F /bin/sleep 1000"), "{log}");
    // Signals reach a program that does not handle them, because it is not the namespace's first process.
    shim.order(&Request::Signal { container: "a".into(), signal: 15 }).await.unwrap();
    assert_eq!(ended(&shim, "a").await.outcome.unwrap().exit_code, 143);
}

async fn missing(world: &mut World) {
    let shim = world.shim(false).await;
    let request = world.start(serde_json::json!({"name": "c", "command": ["no-such-program"]}), None);
    match shim.order(&request).await {
        Err(ShimError::Failed { kind: FailureKind::Start, message }) => assert_eq!(
            message,
            "unable to start container process: exec: \"no-such-program\": executable file not found in $PATH"
        ),
        other => panic!("{other:?}"),
    }
    let run = ended(&shim, "c").await;
    assert!(run.outcome.unwrap().start_failed);
    let request = world.start(serde_json::json!({"name": "d", "command": ["/etc/passwd"]}), None);
    assert!(matches!(shim.order(&request).await, Err(ShimError::Failed { kind: FailureKind::Start, .. })));
    let request = world.start(
        serde_json::json!({"name": "e", "command": ["true"],
        "securityContext": {"runAsNonRoot": true}}),
        None,
    );
    assert!(matches!(shim.order(&request).await, Err(ShimError::Failed { kind: FailureKind::Config, .. })));
    let _ = UserRequest::default();
}

async fn oom(world: &mut World) {
    let shim = world.shim(false).await;
    let request = world.start(
        serde_json::json!({"name": "c", "resources": {"limits": {"memory": "20Mi"}},
            "command": ["/bin/sh", "-c", "(tail /dev/zero); echo survived; sleep 1000"]}),
        None,
    );
    shim.order(&request).await.unwrap();
    let outcome = ended(&shim, "c").await.outcome.unwrap();
    assert_eq!((outcome.exit_code, outcome.oom_killed), (137, true));
}

async fn bomb(world: &mut World) {
    let shim = world.shim(false).await;
    let request = world.start(
        serde_json::json!({"name": "c", "command": ["/bin/bash", "-c", "b() { b | b & }; b; sleep 1000"]}),
        None,
    );
    shim.order(&request).await.unwrap();
    // The neighbour in the same pod may be starved of processes; the shim is not, and ends the bomb.
    shim.order(&Request::Kill { container: "c".into() }).await.unwrap();
    assert_eq!(ended(&shim, "c").await.outcome.unwrap().exit_code, 137);
}

async fn exec(world: &mut World) {
    use std::io::Read;
    let shim = world.shim(false).await;
    shim.order(&world.start(serde_json::json!({"name": "c", "command": ["/bin/sleep", "1000"]}), None)).await.unwrap();
    let (mut out, out_end) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut session = shim.connect().await.unwrap();
    let command = ["sh", "-c", "echo $GREETING; cat /proc/1/comm; exit 7"].map(str::to_owned).to_vec();
    use std::os::fd::AsRawFd;
    session
        .send(
            &Request::Exec(local_node::shim::proto::ExecProcess { container: "c".into(), command, tty: false }),
            &[null.as_raw_fd(), out_end.as_raw_fd(), out_end.as_raw_fd()],
        )
        .await
        .unwrap();
    assert!(matches!(session.receive().await.unwrap(), Reply::Running { .. }));
    drop(out_end);
    assert!(matches!(session.receive().await.unwrap(), Reply::Exited { code: 7 }));
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\nsleep\n");

    let mut session = shim.connect().await.unwrap();
    let command = ["sh", "-c", "tty; exit 0"].map(str::to_owned).to_vec();
    session
        .send(&Request::Exec(local_node::shim::proto::ExecProcess { container: "c".into(), command, tty: true }), &[])
        .await
        .unwrap();
    assert!(matches!(session.receive().await.unwrap(), Reply::Running { .. }));
    let terminal = session.take_fds().pop().unwrap();
    assert!(matches!(session.receive().await.unwrap(), Reply::Exited { code: 0 }));
    let mut buffer = [0u8; 64];
    let count = nix::unistd::read(&terminal, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"/dev/pts/0\r\n");
}

async fn seccomp(world: &mut World) {
    let shim = world.shim(false).await;
    let script = "unshare -m true && echo made; mount -t tmpfs x /tmp && echo mounted; (echo forked)";
    let admin = serde_json::json!({"name": "c", "command": ["/bin/sh", "-c", script],
        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}});
    let mut request = world.start(admin.clone(), None);
    if let Request::Start(start) = &mut request {
        start.seccomp = true;
    }
    shim.order(&request).await.unwrap();
    ended(&shim, "c").await;
    let log = world.log("c");
    assert!(log.contains("F forked") && !log.contains("F made") && !log.contains("F mounted"), "{log}");
}

async fn homeless(world: &mut World) {
    let shim = world.shim(false).await;
    shim.order(&world.start(serde_json::json!({"name": "c", "command": ["/bin/sleep", "1000"]}), None)).await.unwrap();
    let pid = shim.state().await.unwrap().shim_pid;
    let mut session = shim.connect().await.unwrap();
    session.send(&Request::Watch, &[]).await.unwrap();
    std::fs::remove_file(world.pod_dir().join("shim.sock")).unwrap();
    while session.receive().await.is_ok() {}
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::task::yield_now().await;
    }
}
