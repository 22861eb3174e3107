//! The face: routes, verbs, the proxy, the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::process::{Command, Stdio};

use common::{DEADLINE, Execd, code};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn unknown_routes_wrong_verbs_and_empty_rooms() {
    let execd = Execd::open();
    assert_eq!(code(execd.get("/no/such").await).await, (404, "ROUTE_NOT_FOUND".into()));
    assert_eq!(code(execd.get("/command/x/stdin").await).await, (405, "METHOD_NOT_ALLOWED".into()));
    for path in ["/code", "/code/contexts", "/v1/isolated/session"] {
        assert_eq!(code(execd.post(path, &json!({})).await).await, (501, "NOT_SUPPORTED".into()), "{path}");
    }
    let answer = execd.client.get(execd.url("/ping")).header("X-Request-ID", "mine").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "mine");
    let metrics: Value = execd.get("/metrics").await.json().await.unwrap();
    for name in ["cpu_count", "cpu_used_pct", "mem_total_mib", "mem_used_mib", "timestamp"] {
        assert!(metrics[name].is_number(), "{name}");
    }
}

#[tokio::test]
async fn the_proxy_forwards_calls_and_upgrades() {
    let execd = Execd::open();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let serve = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in [
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        ] {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("101") {
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
            }
        }
        heads
    });
    let answer = execd.get(&format!("/proxy/{port}/a%2Fb?x=%20y")).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (403, "no"));
    let mut stream = TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
    let head = format!("GET /proxy/{port}/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"ping");
    let heads = serve.await.unwrap();
    assert!(heads[0].starts_with("GET /a%2Fb?x=%20y HTTP/1.1\r\n"), "{}", heads[0]);
    let refused = execd.get(&format!("/proxy/{port}/")).await;
    assert_eq!(code(refused).await, (502, "BACKEND_CONNECTION_FAILED".into()));
    let itself = execd.get(&format!("/proxy/{0}/proxy/{0}/ping", execd.port)).await;
    assert_eq!(itself.status(), 200);
}

fn execd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execd"));
    for name in ["OPENSANDBOX_DAEMON_KEY", "OPENSANDBOX_POD_UID", "EXECD_ACCESS_TOKEN"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_command_line_is_clear() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = execd().args(["--port", &port]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("cannot listen on") && text.contains(&port), "{text}");
    let output = execd()
        .env("OPENSANDBOX_DAEMON_KEY", "nonsense")
        .env("OPENSANDBOX_POD_UID", "x")
        .args(["-port=0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = execd().arg("version").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"execd "));
    drop(taken);
    let output = execd().args(["alive", "--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn run_ends_with_its_programs_code() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = execd();
        command.env("OPENSANDBOX_STATE_DIR", dir.path().join("s")).args(["-port=0", "run", "--"]).args(args);
        command.output().unwrap()
    };
    let output = run(&["sh", "-c", "echo out; exit 9"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"out\n"[..]));
    assert_eq!(run(&["sh", "-c", "kill -KILL $$"]).status.code(), Some(137));
    let missing = run(&["/no/such"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"));
}

#[test]
fn the_hook_before_the_program_comes_first_or_nothing_does() {
    let dir = tempfile::tempdir().unwrap();
    let run = |hook: &str, args: &[&str]| {
        let mut command = execd();
        command.env("OPENSANDBOX_STATE_DIR", dir.path().join("s")).env("OPENSANDBOX_LIFECYCLE", hook);
        command.current_dir(dir.path()).arg("-port=0").args(args).output().unwrap()
    };
    let hook = |command: &str| json!({"preStart": {"command": ["sh", "-c", command]}}).to_string();
    let output = run(&hook("echo hook > f"), &["run", "--", "cat", "f"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"hook\n"[..]));
    let output = run(&hook("echo because; exit 4"), &["run", "--", "touch", "never"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("preStart hook failed: exit status 4: because"));
    assert!(!dir.path().join("never").exists());
    assert_eq!(run(&hook("true"), &["pre-start"]).status.code(), Some(0));
    assert_eq!(run("nonsense", &["run", "--", "true"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_periodic_hook_runs_in_the_sandbox() {
    let hooks = json!({"periodic": [{"name": "n", "schedule": "@every 1s", "command": ["sh", "-c", "echo tick"]}]});
    let execd = Execd::with(&[("OPENSANDBOX_LIFECYCLE", &hooks.to_string())]);
    let ran = async {
        loop {
            let all: Value = execd.get("/command?running=false").await.json().await.unwrap();
            if let Some(first) = all.as_array().unwrap().first() {
                return first.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let first = tokio::time::timeout(DEADLINE, ran).await.unwrap();
    assert_eq!((&first["content"], &first["exit_code"]), (&json!("sh -c echo tick"), &json!(0)));
}

#[tokio::test]
async fn a_stop_lets_streams_tell_their_end() {
    let execd = Execd::with(&[("EXECD_API_GRACE_SHUTDOWN", "20s")]);
    let command = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut answer = execd.post("/command", &json!({"command": command})).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        seen.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    let pid = nix::unistd::Pid::from_raw(execd.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    while let Some(bytes) = answer.chunk().await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    let run = common::Run::of(&seen);
    assert_eq!((run.stdout(), run.exit()), (vec!["ready", "caught"], "7"));
    assert!(execd.client.get(execd.url("/ping")).send().await.is_err(), "and nobody new is let in");
}

#[tokio::test]
async fn a_stop_ends_what_runs_though_nobody_is_connected() {
    let mut execd = Execd::open();
    execd.client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let pid = execd.path("pid");
    let command = format!("echo $$ > {}; exec sleep 1000", pid.display());
    execd.run(&json!({"command": command, "background": true})).await;
    let written = async {
        loop {
            if let Ok(number) = std::fs::read_to_string(&pid).unwrap_or_default().trim().parse::<i32>() {
                return number;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let number = tokio::time::timeout(DEADLINE, written).await.unwrap();
    let daemon = nix::unistd::Pid::from_raw(execd.pid().cast_signed());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM).unwrap();
    let gone = async {
        while common::alive(number) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("it is ended with the daemon");
}

#[test]
fn as_pid_1_it_reaps_and_passes_signals_on() {
    let unshare = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--pid", "--mount-proc", env!("CARGO_BIN_EXE_execd"), "-port=0", "run", "--"])
            .args(args);
        command.stdin(Stdio::null()).env_remove("OPENSANDBOX_DAEMON_KEY").output()
    };
    match unshare(&["true"]) {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("skipped: needs unshare and the right to make a pid namespace: {other:?}");
            return;
        }
    }
    let orphans = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 3' & exec true) & done; wait; sleep 0.2; \
                   cat /proc/[0-9]*/stat | grep -c ' Z '; exit 6";
    let output = unshare(&["sh", "-c", orphans]).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(6), &b"0\n"[..]));
    let signalled =
        unshare(&["sh", "-c", "trap 'echo got; exit 5' USR1; kill -USR1 1; while :; do sleep 0.05; done"]).unwrap();
    assert_eq!((signalled.status.code(), signalled.stdout.as_slice()), (Some(5), &b"got\n"[..]));
}

#[tokio::test]
async fn every_known_variable_and_flag_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let execd = Execd::with(&[
        ("EXECD_API_GRACE_SHUTDOWN", "nonsense"),
        ("EXECD_JUPYTER_IDLE_POLL_INTERVAL", "200ms"),
        ("JUPYTER_HOST", "http://127.0.0.1:1"),
        ("JUPYTER_TOKEN", "jupyter-secret"),
        ("OPENSANDBOX_LOG_OUTPUT", &format!("stderr,{}", log.display())),
        ("OPENSANDBOX_EXECD_METRICS_EXTRA_ATTRS", "a=b"),
        ("EXECD_CLONE3_COMPAT", "1"),
        ("EXECD_ACCESS_TOKEN", "token-secret"),
    ]);
    let request =
        execd.client.post(execd.url("/command?x=query-secret")).header("X-EXECD-ACCESS-TOKEN", "token-secret");
    let body =
        json!({"command": "grep -c ^Seccomp:.2 /proc/self/status; echo command-secret", "envs": {"A": "env-secret"}});
    let text = request.json(&body).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"text\":\"1\""), "children have the filter: {text}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().count() > 0 && !log.contains("secret"), "{log}");
    for args in [
        &["--log-level", "7", "--jupyter-host", "x", "--jupyter-token=t", "version"][..],
        &["-access-token=x", "-graceful-shutdown-timeout", "3s", "version"],
    ] {
        assert!(self::execd().args(args).output().unwrap().status.success(), "{args:?}");
    }
    let wrong = self::execd().env("EXECD_CLONE3_COMPAT", "maybe").arg("version").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
}

#[tokio::test]
async fn nothing_secret_in_logs_at_any_level() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let execd = Execd::with_args(
        &["-log-level=7"],
        &[("EXECD_ACCESS_TOKEN", "token-secret"), ("OPENSANDBOX_LOG_OUTPUT", &format!("stderr,{}", log.display()))],
    );
    let get = |path: &str| execd.client.get(execd.url(path)).header("X-EXECD-ACCESS-TOKEN", "token-secret").send();
    assert_eq!(get("/files/info?path=/path-secret").await.unwrap().status(), 404);
    assert_eq!(execd.get("/metrics").await.status(), 401);
    let body = json!({"command": "echo output-secret", "envs": {"K": "env-secret"}});
    let request = execd.client.post(execd.url("/command")).header("X-EXECD-ACCESS-TOKEN", "token-secret").json(&body);
    request.send().await.unwrap().bytes().await.unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("/files/info") && log.contains("\"status\":401"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}
