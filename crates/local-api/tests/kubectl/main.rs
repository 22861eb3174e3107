//! Real kubectl against a served API with a node that only pretends to run pods.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod objects;
mod streams;

use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use common::DEADLINE;
use local_api::streams::{ByteStream, Duplex, ExecOptions, ExecStreams, LogOptions, PodRef, PodStreams, StreamError};
use local_api::{Api, Identity};
use tokio::io::AsyncWriteExt as _;

/// Answers logs with two lines, echoes standard input and what comes to port 80, exits with what `exit N` says, and runs
/// `tar` and `test` on this machine for `kubectl cp`.
struct Pretender;

#[async_trait::async_trait]
impl PodStreams for Pretender {
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<ByteStream, StreamError> {
        let text = format!("{} {}\nlast\n", pod.name, options.container);
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(text))])))
    }

    async fn exec(&self, _pod: &PodRef, options: ExecOptions) -> Result<ExecStreams, StreamError> {
        let code = match options.command.as_slice() {
            [verb, code] if verb == "exit" => code.parse().unwrap_or(1),
            [verb, ..] if verb == "cat" => 0,
            // Attached to the container's own process.
            [] => 0,
            [verb, ..] if verb == "tar" || verb == "test" => return on_this_machine(&options),
            other => return Err(StreamError::CannotRun { program: other.join(" "), reason: "no such file".into() }),
        };
        let (inward, mut stdin) = tokio::io::duplex(1 << 16);
        let (mut stdout, outward) = tokio::io::duplex(1 << 16);
        let echo = options.stdin;
        let exit = Box::pin(async move {
            if echo {
                tokio::io::copy(&mut stdin, &mut stdout).await?;
            }
            stdout.write_all(b"done\n").await?;
            Ok(code)
        });
        Ok(ExecStreams {
            stdin: options.stdin.then(|| Box::pin(inward) as _),
            stdout: options.stdout.then(|| Box::pin(outward) as _),
            stderr: None,
            resize: None,
            exit,
        })
    }

    async fn port_forward(&self, _pod: &PodRef, port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        if port != 80 {
            return Err(StreamError::Io(std::io::ErrorKind::ConnectionRefused.into()));
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (mut reader, mut writer) = tokio::io::split(theirs);
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
        Ok(Box::new(ours))
    }
}

fn on_this_machine(options: &ExecOptions) -> Result<ExecStreams, StreamError> {
    let mut child = tokio::process::Command::new(&options.command[0])
        .args(&options.command[1..])
        .stdin(if options.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(ExecStreams {
        stdin: child.stdin.take().map(|s| Box::pin(s) as _),
        stdout: child.stdout.take().filter(|_| options.stdout).map(|s| Box::pin(s) as _),
        stderr: child.stderr.take().filter(|_| options.stderr).map(|s| Box::pin(s) as _),
        resize: None,
        exit: Box::pin(async move { Ok(child.wait().await?.code().unwrap_or(1)) }),
    })
}

struct Kubectl {
    directory: tempfile::TempDir,
    editor: Option<String>,
}

impl Kubectl {
    /// Serves an API; nothing when there is no kubectl.
    async fn start() -> Option<(Self, Api)> {
        if tokio::process::Command::new("kubectl").arg("version").arg("--client").output().await.is_err() {
            println!("skipped: there is no kubectl in PATH");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let identity = Identity::load_or_generate(directory.path()).expect("an identity");
        let api = Api::in_memory();
        api.set_pod_streams(Arc::new(Pretender));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        std::fs::write(directory.path().join("kubeconfig"), identity.kubeconfig(address, "default")).expect("written");
        let served = api.clone();
        tokio::spawn(async move { served.serve(listener, &identity, std::future::pending()).await });
        Some((Self { directory, editor: None }, api))
    }

    /// kubectl with these arguments, not yet run.
    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(editor) = &self.editor {
            command.env("EDITOR", editor).env("KUBE_EDITOR", editor);
        }
        command
    }

    /// Runs kubectl with this input. Returns its exit code and both outputs together.
    async fn run(&self, arguments: &[&str], input: &str) -> (i32, String) {
        let mut child = self.command(arguments).spawn().expect("kubectl");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).await.expect("written");
        drop(stdin);
        let output =
            tokio::time::timeout(DEADLINE * 2, child.wait_with_output()).await.expect("in time").expect("ended");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }

    async fn ok(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (code, text) = self.run(&arguments, input).await;
        assert_eq!(code, 0, "kubectl {line}: {text}");
        text
    }

    async fn fails(&self, line: &str, input: &str, with: &str) {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (code, text) = self.run(&arguments, input).await;
        assert_ne!(code, 0, "kubectl {line}: {text}");
        assert!(text.contains(with), "kubectl {line}: {text}");
    }
}

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"nodeName": "here", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "nginx:1.2"}, {"name": "side", "image": "side:1"}]}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_token_nothing() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    kubectl.fails("--token=wrong get pods", "", "").await;
    let path = kubectl.directory.path().join("token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("the token").permissions());
    assert_eq!(mode & 0o777, 0o600);
}
