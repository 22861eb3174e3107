//! Pods by kubectl: logs, commands, copies, ports.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::DEADLINE;
use crate::{Kubectl, POD};

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
async fn copies_there_and_back() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    kubectl.ok("apply -f -", POD).await;
    let here = kubectl.directory.path();
    let large = "0123456789abcdef".repeat(20_000);
    std::fs::write(here.join("sent"), &large).expect("written");
    std::fs::create_dir(here.join("pod")).expect("a directory");
    let (from, to) = (here.join("sent").display().to_string(), format!("web:{}/there", here.join("pod").display()));
    let (code, text) = kubectl.run(&["cp", "-c", "main", &from, &to], "").await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read_to_string(here.join("pod/there")).expect("it arrived"), large);
    let back = here.join("back").display().to_string();
    let (code, text) = kubectl.run(&["cp", "-c", "main", &to, &back], "").await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read_to_string(here.join("back")).expect("it came back"), large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_ports() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    kubectl.ok("apply -f -", POD).await;
    // kubectl forwards to running pods alone.
    kubectl.ok(r#"patch pod web --subresource=status --type=merge -p {"status":{"phase":"Running"}}"#, "").await;
    // Through a WebSocket, as kubectl does since 1.31, and over the connection itself, as before.
    forwards(&kubectl, "true").await;
    forwards(&kubectl, "false").await;
}

async fn forwards(kubectl: &Kubectl, websockets: &str) {
    let mut child = kubectl
        .command(&["port-forward", "web", ":80", ":81"])
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .spawn()
        .expect("kubectl");
    let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut ports = std::collections::HashMap::new();
    while ports.len() < 2 {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("a line");
        let line = line.expect("it says where it listens");
        if let Some((address, remote)) =
            line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split_once(" -> "))
        {
            ports.insert(remote.to_owned(), address.parse::<u16>().expect("a port"));
        }
    }
    let payload = "x".repeat(300_000);
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", ports["80"])).await.expect("connected");
        let (mut reader, mut writer) = stream.split();
        let send = async {
            writer.write_all(payload.as_bytes()).await.expect("sent");
            writer.shutdown().await.expect("ended");
        };
        let mut back = String::new();
        let both = async { tokio::join!(send, reader.read_to_string(&mut back)).1 };
        tokio::time::timeout(DEADLINE, both).await.expect("in time").expect("read");
        assert!(back == payload, "{} of {} bytes came back", back.len(), payload.len());
    }
    // Nobody listens there: kubectl says so and the connection ends.
    let mut refused = tokio::net::TcpStream::connect(("127.0.0.1", ports["81"])).await.expect("connected");
    let mut nothing = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, refused.read_to_end(&mut nothing)).await.expect("in time");
    assert!(nothing.is_empty());
    child.kill().await.expect("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_attaches_and_refuses_what_is_not_there() {
    let Some((kubectl, _api)) = Kubectl::start().await else { return };
    let mut child =
        kubectl.command(&["get", "pods", "-w", "-o", "name"]).stderr(Stdio::null()).spawn().expect("kubectl");
    let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("its output")).lines();
    kubectl.ok("apply -f -", POD).await;
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("a line");
    assert_eq!(line.as_deref(), Some("pod/web"));
    child.kill().await.expect("ended");
    assert!(kubectl.ok("attach -i web -c main", "hello\n").await.contains("hello"));
    kubectl.ok("logs web -c main --previous --since=1h --tail=5 --timestamps", "").await;
    kubectl.fails("debug web --image=x --target=main", "", "ephemeral containers are disabled for this cluster").await;
}
