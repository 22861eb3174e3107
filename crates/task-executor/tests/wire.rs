//! The HTTP API: refusals, signatures, claims, and the hand-over to execd. Needs root.

mod pod;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use api_types::auth::Signer;
use pod::{Pod, Recipe, free_port, possible};
use serde_json::{Value, json};

const POD: &str = "11111111-2222-3333-4444-555555555555";

fn keyed() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.env.push(format!("OPENSANDBOX_DAEMON_KEY={}", Signer::from_seed(&[7; 32]).daemon_key()));
    recipe.env.push(format!("OPENSANDBOX_POD_UID={POD}"));
    recipe
}

#[test]
fn every_refusal_has_a_code_and_a_sentence() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    let long = json!([{"name": "s", "process": {"command": ["sleep", "1000"]}}]);
    let task = |name: &str| json!({"name": name, "process": {"command": ["true"]}});
    assert_eq!(pod.call("POST", "/tasks", &long[0]).0, 201);
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", Value::Null, 404, "ROUTE_NOT_FOUND"),
        ("GET", "/tasks", Value::Null, 405, "METHOD_NOT_ALLOWED"),
        ("PUT", "/setTasks", Value::Null, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/setTasks", json!("x"), 400, "INVALID_REQUEST_BODY"),
        ("POST", "/tasks", json!(null), 400, "INVALID_REQUEST_BODY"),
        ("POST", "/tasks", task(""), 400, "INVALID_TASK"),
        ("POST", "/tasks", task("../x"), 400, "INVALID_TASK"),
        ("POST", "/tasks", task("s"), 409, "TASK_EXISTS"),
        ("POST", "/tasks", task("t"), 429, "TOO_MANY_TASKS"),
        ("POST", "/tasks", json!({"name": "p", "podTemplateSpec": {}}), 501, "TASK_KIND_UNSUPPORTED"),
        ("GET", "/tasks/none", Value::Null, 404, "TASK_NOT_FOUND"),
        ("GET", "/getTasks?wait=soon", Value::Null, 400, "INVALID_REQUEST_BODY"),
    ] {
        let (got, answer) = pod.call(method, path, &body);
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{method} {path}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
    let (status, answer, head) = pod.try_call("GET", "/setTasks", b"", &[]).unwrap();
    assert!(status == 405 && head.contains("allow: post"), "{head} {answer}");
    let (status, answer, _) = pod.try_call("POST", "/setTasks", &vec![b' '; (4 << 20) + 1], &[]).unwrap();
    assert_eq!((status, &answer["code"]), (413, &json!("BODY_TOO_LARGE")));
    assert_eq!(pod.call("DELETE", "/tasks/none", &Value::Null).0, 204);
    let (_, tasks) = pod.call("GET", "/getTasks", &Value::Null);
    assert_eq!(tasks.as_array().unwrap().len(), 1, "no refusal did anything: {tasks}");
    assert_eq!(pod.try_call("POST", "/setTasks", b"null", &[]).unwrap().0, 200, "null is the empty set");
    pod.clear();
}

#[test]
fn a_keyed_pod_obeys_signed_calls_only() {
    if !possible() {
        return;
    }
    let pod = Pod::start(keyed());
    let body = serde_json::to_vec(&json!([{"name": "x", "process": {"command": ["true"]}}])).unwrap();
    let foreign = Signer::from_seed(&[8; 32]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let wrong = foreign.sign(&POD.into(), api_types::auth::Verb::SetTasks, &body, now, 60);
    for (method, path, body) in [
        ("POST", "/setTasks", &body[..]),
        ("POST", "/tasks", &body[..]),
        ("GET", "/getTasks", b""),
        ("GET", "/tasks/x", b""),
        ("DELETE", "/tasks/x", b""),
        ("POST", "/v1/claim", b"{}"),
        ("GET", "/v1/claim/entrypoint", b""),
        ("POST", "/v1/reset", b""),
    ] {
        for headers in [vec![], vec![("x-opensandbox-signature", wrong.clone())]] {
            let (status, answer, _) = pod.try_call(method, path, body, &headers).unwrap();
            assert_eq!((status, &answer["code"]), (401, &json!("BAD_SIGNATURE")), "{method} {path}");
        }
    }
    assert_eq!(pod.try_call("GET", "/health", b"", &[]).unwrap().1, json!({"status": "healthy"}));
    assert_eq!(pod.call("GET", "/getTasks", &Value::Null), (200, json!([])), "nothing was started");
    let (status, _) = pod.run("mine", "exit 2");
    assert_eq!(status["terminated"]["exitCode"], 2);
    pod.set(json!([{"name": "d", "process": {"command": ["sleep", "1000"]}}]));
    assert_eq!(pod.call("DELETE", "/tasks/d", &Value::Null).0, 204);
}

fn claim(sandbox: &str, epoch: u64, entrypoint: &[&str]) -> Value {
    json!({"sandboxId": sandbox, "sandboxUid": sandbox, "podUid": POD, "epoch": epoch, "token": "t",
           "env": {"CLAIMED": "yes"}, "entrypoint": entrypoint})
}

#[test]
fn a_claim_gives_one_owner_its_env_and_its_entrypoint() {
    if !possible() {
        return;
    }
    let pod = Pod::start(keyed());
    let script = "echo $CLAIMED:$OPENSANDBOX_ID >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3";
    let first = claim("a", 5, &["sh", "-c", script]);
    let (status, answer) = pod.call("POST", "/v1/claim", &first);
    assert_eq!((status, &answer["entrypoint"]["state"]), (200, &json!("Running")), "{answer}");
    pod.restart_executor();
    let (status, answer) = pod.call("POST", "/v1/claim", &first);
    assert_eq!((status, &answer["entrypoint"]["state"]), (200, &json!("Running")), "{answer}");
    for (request, code) in [
        (claim("b", 6, &[]), "CLAIMED_BY_ANOTHER"),
        (claim("a", 4, &[]), "STALE_CLAIM"),
        (
            {
                let mut other = claim("a", 5, &[]);
                other["podUid"] = json!("other");
                other
            },
            "WRONG_POD",
        ),
    ] {
        let (status, answer) = pod.call("POST", "/v1/claim", &request);
        assert_eq!((status, &answer["code"]), (409, &json!(code)), "{answer}");
    }
    let open = pod.try_call("GET", "/v1/claim", b"", &[]).unwrap();
    assert_eq!(open.1, json!({"claimed": true, "sandboxUid": "a", "epoch": 5}));
    let (_, output) = pod.run("env", "echo $CLAIMED:$OPENSANDBOX_ID");
    assert_eq!(output, "yes:a\n");
    assert_eq!(pod.call("GET", "/v1/claim/entrypoint", &Value::Null).1["state"], "Running", "setTasks leaves it alone");
    let sandbox = pod.pid_with("FROM_SANDBOX=yes").unwrap();
    std::fs::write(format!("/proc/{sandbox}/root/tmp/go"), "").unwrap();
    let (_, ended) = pod.call("GET", "/v1/claim/entrypoint?wait=50", &Value::Null);
    assert_eq!((&ended["state"], &ended["exitCode"]), (&json!("Exited"), &json!(3)), "{ended}");
    assert!(ended["message"].as_str().unwrap().ends_with("yes:a"), "{ended}");
    assert_eq!(pod.call("POST", "/v1/reset", &Value::Null).1, json!({"claimed": false}));
    let (status, answer) = pod.call("POST", "/v1/claim", &claim("b", 6, &["no-such-program"]));
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["entrypoint"]["exitCode"], &answer["sandboxUid"]), (&json!(127), &json!("b")), "{answer}");
}

#[test]
fn what_listens_on_execds_port_but_takes_no_tasks_is_passed_over() {
    if !possible() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 18\r\n\r\n404 page not found");
        }
    });
    let env = vec!["STOP_GRACE_SECONDS=1".into(), format!("EXECD_HANDOVER_PORT={port}")];
    let pod = Pod::start(Recipe { env, ..Recipe::default() });
    assert_eq!(pod.run("x", "exit 4").0["injection"], "executorCgroup");
}

/// The execd built beside this test, if there is one.
fn execd() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_task-executor")).with_file_name("execd");
    if !path.exists() {
        eprintln!("skipped: this test needs {}, which `cargo build -p execd` makes", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn a_task_is_handed_to_execd_and_found_again() {
    let (true, Some(execd)) = (possible(), execd()) else { return };
    // execd must be in the sandbox container, whose root has the machine's /usr only: it runs beside it here.
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(&execd)
        .args(["--port", &port.to_string(), "--state-dir", dir.path().to_str().unwrap()])
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .env("OPENSANDBOX_DAEMON_KEY", Signer::from_seed(&[7; 32]).daemon_key())
        .env("OPENSANDBOX_POD_UID", POD)
        .spawn()
        .unwrap();
    let mut recipe = keyed();
    recipe.env.retain(|e| !e.starts_with("EXECD_HANDOVER_PORT="));
    recipe.env.push(format!("EXECD_HANDOVER_PORT={port}"));
    let pod = Pod::start(recipe);
    pod.wait_for("execd", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let go = dir.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 6", go.display());
    let answer = pod.set(json!([{"name": "h", "process": {"command": ["sh", "-c", script]}}]));
    assert_eq!(answer[0]["processStatus"]["injection"], "execd", "{answer}");
    pod.restart_executor();
    std::fs::write(&go, "").unwrap();
    let status = pod.ended("h");
    assert_eq!((&status["terminated"]["exitCode"], &status["injection"]), (&json!(6), &json!("execd")), "{status}");
    pod.clear();
    pod.set(json!([{"name": "l", "process": {"command": ["sleep", "8765"]}}]));
    pod.clear();
    let (status, _) = pod.run("none", "exec no-such-program");
    assert_eq!(status["terminated"]["exitCode"], 127, "{status}");
    let _ = child.kill();
    let _ = child.wait();
}
