//! Real kubectl against a served API with a node that only pretends to run pods.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use common::DEADLINE;
use local_api::streams::{ByteStream, Duplex, ExecOptions, ExecStreams, LogOptions, PodRef, PodStreams, StreamError};
use local_api::{Api, Identity};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Answers logs with two lines, echoes standard input, and exits with what `exit N` says.
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

    async fn port_forward(&self, _pod: &PodRef, _port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        Err(StreamError::NoSuchPod("nowhere".into()))
    }
}

struct Kubectl {
    directory: tempfile::TempDir,
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
        Some((Self { directory }, api))
    }

    /// Runs kubectl with this input. Returns its exit code and both outputs together.
    async fn run(&self, arguments: &[&str], input: &str) -> (i32, String) {
        let mut child = tokio::process::Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl");
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
async fn objects_from_apply_to_delete() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    let definition = serde_json::to_string(&common::widget_crd()).expect("JSON");
    kubectl.ok("apply -f -", &definition).await;
    kubectl.ok("wait --for=condition=Established crd/widgets.test.example.com --timeout=10s", "").await;
    let widget = |size: i32| {
        json!({"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": size, "note": "n"}}).to_string()
    };
    assert!(kubectl.ok("apply -f -", &widget(1)).await.contains("widget.test.example.com/w created"));
    assert!(kubectl.ok("apply -f -", &widget(1)).await.contains("unchanged"));
    assert!(kubectl.ok("apply -f - --dry-run=server", &widget(2)).await.contains("configured (server dry run)"));
    assert!(kubectl.ok("apply -f -", &widget(2)).await.contains("configured"));
    assert!(kubectl.ok("apply --server-side --force-conflicts -f -", &widget(3)).await.contains("serverside-applied"));
    let wide = kubectl.ok("get wd -o wide", "").await;
    assert!(wide.starts_with("NAME   SIZE   NOTE   AGE\nw      3      n"), "{wide}");
    assert_eq!(kubectl.ok("get wd w -o jsonpath={.spec.color}", "").await, "red");
    assert_eq!(kubectl.ok("get widgets -o name", "").await, "widget.test.example.com/w\n");
    kubectl.fails("apply -f -", r#"{"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"sise": 1}}"#, "unknown field \"spec.sise\"").await;
    kubectl.fails("apply --validate=false -f -", r#"{"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"size": "a"}}"#, "spec.size").await;
    kubectl.ok("label wd w tier=web", "").await;
    kubectl.ok("annotate wd w a=b", "").await;
    assert!(kubectl.ok("get wd -l tier=web", "").await.contains("w      3"));
    kubectl.ok("patch wd w --type=merge -p {\"spec\":{\"size\":4}}", "").await;
    kubectl.ok("patch wd w --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/size\",\"value\":5}]", "").await;
    kubectl.ok("wait --for=jsonpath={.spec.size}=5 wd/w --timeout=10s", "").await;
    kubectl.ok("create configmap c --from-literal=a=b", "").await;
    kubectl.ok("create secret generic s --from-literal=a=b", "").await;
    kubectl.ok("create namespace team", "").await;
    assert_eq!(kubectl.ok("get secret s -o jsonpath={.data.a}", "").await, "Yg==");
    assert!(kubectl.ok("explain widget.spec", "").await.contains("size\t<integer> -required-"));
    assert!(kubectl.ok("api-resources", "").await.contains("widgets"));
    assert_eq!(kubectl.ok("auth can-i create pods", "").await, "yes\n");
    kubectl.ok("version", "").await;
    kubectl.ok("cluster-info", "").await;
    kubectl.ok("delete namespace team --timeout=15s", "").await;
    kubectl.ok("delete wd w --cascade=foreground --timeout=15s", "").await;
    kubectl.ok("delete crd widgets.test.example.com --timeout=15s", "").await;
    kubectl.fails("get wd", "", "could not find the requested resource").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_logs_and_commands() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    assert!(kubectl.ok("apply -f -", POD).await.contains("pod/web created"));
    kubectl.ok("create -f -", r#"{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "it began", "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "apiVersion": "v1"}, "count": 1}"#).await;
    let described = kubectl.ok("describe pod web", "").await;
    assert!(described.contains("Image:          nginx:1.2") || described.contains("nginx:1.2"), "{described}");
    assert!(kubectl.ok("get pods --field-selector spec.nodeName=here", "").await.contains("0/2     Pending"));
    assert!(kubectl.ok("get events", "").await.contains("it began"));
    assert_eq!(kubectl.ok("logs web -c side", "").await, "web side\nlast\n");
    assert!(kubectl.ok("logs -f web -c main", "").await.starts_with("web main"));
    kubectl.fails("logs web -c none", "", "container none is not valid for pod web").await;
    assert_eq!(kubectl.ok("exec web -c main -- exit 0", "").await, "done\n");
    let (code, text) = kubectl.run(&["exec", "web", "-c", "main", "--", "exit", "3"], "").await;
    assert_eq!(code, 3, "{text}");
    assert_eq!(kubectl.ok("exec -i web -c main -- cat", "hello\n").await, "hello\ndone\n");
    kubectl.fails("exec web -c main -- nothing", "", "cannot run nothing: no such file").await;
    kubectl.fails("exec none -- exit 0", "", "pods \"none\" not found").await;
    kubectl.ok("delete pod web --timeout=15s", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_token_nothing() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    kubectl.fails("--token=wrong get pods", "", "").await;
    let path = kubectl.directory.path().join("token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("the token").permissions());
    assert_eq!(mode & 0o777, 0o600);
}
