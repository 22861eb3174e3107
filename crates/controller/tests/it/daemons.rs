//! The calls over HTTP, against the daemons themselves where they have been built.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api_types::auth::{Signer, TokenSecret};
use api_types::execd::{ClaimRequest, EntrypointState};
use api_types::names::env;
use api_types::tasks::{ProcessTask, Task};
use controller::SystemClock;
use controller::daemons::{DaemonAddress, DaemonError, Daemons, HttpDaemons};

const POD: &str = "pod-uid-1";
const DEADLINE: Duration = Duration::from_secs(30);

/// A daemon, ended with the test.
struct Daemon {
    child: Child,
    state: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(name: &str, arguments: impl FnOnce(u16, &str) -> Vec<String>) -> Option<(Daemon, DaemonAddress)> {
    let program = std::env::current_exe().unwrap().parent()?.parent()?.join(name);
    if !program.exists() {
        println!("skipped: {} is missing; `cargo build -p {name}` makes it", program.display());
        return None;
    }
    let port = free_port();
    let state = std::env::temp_dir().join(format!("controller-{name}-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&state).unwrap();
    let child = Command::new(program)
        .args(arguments(port, &state.to_string_lossy()))
        .env(env::DAEMON_KEY, Signer::from_seed(&[1; 32]).daemon_key())
        .env(env::POD_UID, POD)
        .env("OPENSANDBOX_STATE_DIR", &state)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some((Daemon { child, state }, DaemonAddress { ip: "127.0.0.1".into(), port, pod: POD.into() }))
}

fn client(seed: u8) -> HttpDaemons {
    HttpDaemons::new(Signer::from_seed(&[seed; 32]), Arc::new(SystemClock))
}

fn claim(owner: &str, entrypoint: &[&str]) -> ClaimRequest {
    ClaimRequest {
        sandbox_id: owner.into(),
        sandbox_uid: owner.into(),
        pod_uid: POD.into(),
        epoch: 1,
        token: TokenSecret::new([2; 32]).execd_token(&owner.into(), &POD.into()),
        env: [("A".to_owned(), "b".to_owned())].into(),
        entrypoint: entrypoint.iter().map(|w| (*w).to_owned()).collect(),
    }
}

/// Calls until the daemon listens.
async fn up<T, F: Future<Output = Result<T, DaemonError>>>(mut call: impl FnMut() -> F) -> Result<T, DaemonError> {
    let retry = async {
        loop {
            match call().await {
                Err(DaemonError::Unreachable(_)) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(DEADLINE, retry).await.unwrap()
}

#[tokio::test]
async fn execd_takes_one_owner_and_tells_how_its_entrypoint_ended() {
    let Some((_daemon, at)) = start("execd", |port, _| vec!["--port".into(), port.to_string()]) else { return };
    let ours = client(1);
    let request = claim("first", &["/bin/sh", "-c", "echo oops; exit 3"]);
    let wrong_key = up(|| async { client(9).claim(&at, &request).await }).await;
    assert!(matches!(&wrong_key, Err(DaemonError::Refused { code, .. }) if code == "BAD_SIGNATURE"), "{wrong_key:?}");
    let status = up(|| async { ours.claim(&at, &request).await }).await.unwrap();
    assert!(status.claimed);
    assert!(ours.claim(&at, &request).await.unwrap().claimed, "the same claim again is no other");
    let second = ours.claim(&at, &claim("second", &[])).await;
    assert!(matches!(&second, Err(DaemonError::Refused { code, .. }) if code == "CLAIMED_BY_ANOTHER"), "{second:?}");
    let ended = ours.entrypoint(&at, Duration::from_secs(20)).await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (EntrypointState::Exited, Some(3)));
    assert!(ended.message.unwrap().contains("oops"));
}

#[tokio::test]
async fn task_executor_runs_a_task_and_is_followed_to_its_end() {
    let arguments = |port: u16, state: &str| {
        let text =
            format!("--listen-addr 127.0.0.1:{port} --data-dir {state} --execd-port 0 --enable-sidecar-mode=false");
        text.split(' ').map(str::to_owned).collect()
    };
    let Some((_daemon, at)) = start("task-executor", arguments) else { return };
    let ours = client(1);
    up(|| async { ours.claim(&at, &claim("first", &[])).await.map(|_| ()) }).await.unwrap();
    let process =
        ProcessTask { command: ["/bin/sh", "-c", "exit 4"].map(str::to_owned).into(), ..ProcessTask::default() };
    let task = Task { name: "b-0".into(), process: Some(process), ..Task::default() };
    ours.set_tasks(&at, &[task]).await.unwrap();
    let follow = async {
        let mut list = ours.tasks(&at, None, Duration::ZERO).await.unwrap();
        loop {
            let status = list.tasks.first().and_then(|t| t.process_status.clone()).unwrap_or_default();
            if let Some(end) = status.terminated {
                return end.exit_code;
            }
            assert!(list.tag.is_some(), "it holds requests");
            list = ours.tasks(&at, list.tag.as_deref(), Duration::from_secs(20)).await.unwrap();
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, follow).await.unwrap(), 4);
}
