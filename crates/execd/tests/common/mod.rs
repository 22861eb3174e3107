//! Drives the real binary over TCP.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api_types::auth::{Signer, Verb};
use api_types::execd::{EventType, StreamEvent};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing in these tests takes longer.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The UID of the pod that keyed daemons serve.
pub const POD: &str = "pod-uid-1";

/// The binary that is tested: the one that was built beside the test, or that of `EXECD_BINARY`.
pub fn binary() -> PathBuf {
    std::env::var_os("EXECD_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_execd").into(), PathBuf::from)
}

/// A running execd; ended when dropped.
pub struct Execd {
    child: Child,
    pub base: String,
    pub port: u16,
    pub client: Client,
    pub dir: TempDir,
}

impl Drop for Execd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signer() -> Signer {
    Signer::from_seed(&[9; 32])
}

pub fn now() -> u64 {
    jiff::Timestamp::now().as_second().cast_unsigned()
}

impl Execd {
    /// An open one, as in a pod made by hand.
    pub fn open() -> Self {
        Self::with(&[])
    }

    /// One in a pod of the platform.
    pub fn keyed() -> Self {
        Self::with(&[("OPENSANDBOX_DAEMON_KEY", &signer().daemon_key()), ("OPENSANDBOX_POD_UID", POD)])
    }

    pub fn with(env: &[(&str, &str)]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), env)
    }

    pub fn start(dir: TempDir, env: &[(&str, &str)]) -> Self {
        Self::launch(dir, &["-log-level=6"], env)
    }

    pub fn with_args(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch(tempfile::tempdir().unwrap(), args, env)
    }

    fn launch(dir: TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        // The client wants a provider even for plain HTTP; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(DEADLINE).build().unwrap();
        let mut command = Command::new(binary());
        command.arg("-port=0").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for name in ["OPENSANDBOX_DAEMON_KEY", "OPENSANDBOX_POD_UID", "EXECD_ACCESS_TOKEN", "OPENSANDBOX_ID"] {
            command.env_remove(name);
        }
        command.env("OPENSANDBOX_STATE_DIR", dir.path().join("state")).env("EXECD_ENVS", dir.path().join("envs"));
        command.current_dir(dir.path()).envs(env.iter().copied());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 && !line.contains("execd serves") {
            line.clear();
        }
        let told: Value = serde_json::from_str(&line).expect("execd tells its port");
        let port = u16::try_from(told["fields"]["port"].as_u64().unwrap()).unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, base: format!("http://127.0.0.1:{port}"), port, client, dir }
    }

    /// Ends it as a crash does, and starts another in the same container.
    pub fn crash_and_restart(mut self, env: &[(&str, &str)]) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start(dir, env)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(self.url(path)).json(body).send().await.unwrap()
    }

    /// The raw bytes of a command's stream.
    pub async fn raw(&self, body: &Value) -> Vec<u8> {
        let answer = self.post("/command", body).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.bytes().await.unwrap().to_vec()
    }

    /// The events of a command.
    pub async fn run(&self, body: &Value) -> Run {
        Run::of(&self.raw(body).await)
    }

    pub async fn shell(&self, command: &str) -> Run {
        self.run(&json!({"command": command})).await
    }

    /// A claim, signed.
    pub async fn claim(&self, body: &Value) -> Response {
        let body = serde_json::to_vec(body).unwrap();
        let signature = signer().sign(&POD.into(), Verb::Claim, &body, now(), 30);
        let request = self.client.post(self.url("/v1/claim")).header("X-OpenSandbox-Signature", signature);
        request.body(body).send().await.unwrap()
    }

    /// The entrypoint of the claim, waited for.
    pub async fn entrypoint(&self, wait: u64) -> Value {
        let signature = signer().sign(&POD.into(), Verb::EntrypointStatus, b"", now(), 30);
        let request = self.client.get(self.url(&format!("/v1/claim/entrypoint?wait={wait}")));
        let answer = request.header("X-OpenSandbox-Signature", signature).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

/// What a command's stream said.
#[derive(Debug)]
pub struct Run {
    pub id: String,
    pub events: Vec<StreamEvent>,
}

impl Run {
    pub fn of(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let frames = text.strip_suffix("\n\n").expect("ends with two line feeds").split("\n\n");
        let events: Vec<StreamEvent> = frames.map(|frame| serde_json::from_str(frame).expect(frame)).collect();
        assert_eq!(events[0].event, EventType::Init);
        let terminal = |e: &&StreamEvent| matches!(e.event, EventType::Error | EventType::ExecutionComplete);
        assert_eq!(events.iter().filter(terminal).count(), 1, "exactly one terminal event");
        assert!(terminal(&events.last().unwrap()), "and it is the last");
        Self { id: events[0].text.clone().unwrap(), events }
    }

    fn texts(&self, kind: EventType) -> Vec<&str> {
        self.events.iter().filter(|e| e.event == kind).filter_map(|e| e.text.as_deref()).collect()
    }

    pub fn stdout(&self) -> Vec<&str> {
        self.texts(EventType::Stdout)
    }

    pub fn stderr(&self) -> Vec<&str> {
        self.texts(EventType::Stderr)
    }

    pub fn exit(&self) -> &str {
        let last = self.events.last().unwrap();
        last.error.as_ref().map_or("0", |e| e.evalue.as_str())
    }

    pub fn traceback(&self) -> &[String] {
        self.events.last().unwrap().error.as_ref().map_or(&[], |e| e.traceback.as_slice())
    }
}

pub async fn code(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("an error has a JSON body");
    assert!(body["message"].is_string());
    (status, body["code"].as_str().expect("an error has a code").to_owned())
}

/// Completes when a file has this content; the writer is another process, so it is asked again and again.
pub async fn eventually(path: &Path, want: &str) {
    let wait = async {
        while std::fs::read_to_string(path).ok().as_deref() != Some(want) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{} never was {want:?}", path.display()));
}

pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
