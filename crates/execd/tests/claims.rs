//! Who owns the pod: claims, tokens, the entrypoint, restarts, tasks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use api_types::auth::Verb;
use common::{DEADLINE, Execd, POD, alive, code, eventually, now, signer};
use serde_json::{Value, json};

fn claim(sandbox: &str, epoch: u64, token: &str) -> Value {
    json!({"sandboxId": "sbx", "sandboxUid": sandbox, "podUid": POD, "epoch": epoch, "token": token, "env": {"AGENT": "a1"}})
}

fn keyed_env() -> [(&'static str, String); 2] {
    [("OPENSANDBOX_DAEMON_KEY", signer().daemon_key()), ("OPENSANDBOX_POD_UID", POD.to_owned())]
}

#[tokio::test]
async fn a_warm_pod_is_ready_and_nothing_else() {
    let execd = Execd::keyed();
    assert_eq!(execd.get("/ping").await.status(), 200);
    let status: Value = execd.get("/v1/claim").await.json().await.unwrap();
    assert_eq!(status, json!({"claimed": false}));
    for path in ["/command/status/x", "/files/info", "/metrics", "/proxy/80/", "/nope", "/session"] {
        assert_eq!(code(execd.get(path).await).await, (403, "NOT_CLAIMED".into()), "{path}");
    }
    assert_eq!(code(execd.post("/command", &json!({"command": "id"})).await).await.1, "NOT_CLAIMED");
    let inside = format!("/proxy/{}/metrics", execd.port);
    assert_eq!(code(execd.get(&inside).await).await.1, "NOT_CLAIMED");
}

#[tokio::test]
async fn only_the_platform_claims() {
    let execd = Execd::keyed();
    let body = claim("a", 1, "token-a");
    assert_eq!(code(execd.post("/v1/claim", &body).await).await, (401, "BAD_SIGNATURE".into()));
    let bytes = serde_json::to_vec(&body).unwrap();
    for signature in [
        signer().sign(&"other-pod".into(), Verb::Claim, &bytes, now(), 30),
        signer().sign(&POD.into(), Verb::SetTasks, &bytes, now(), 30),
        signer().sign(&POD.into(), Verb::Claim, b"other", now(), 30),
        signer().sign(&POD.into(), Verb::Claim, &bytes, now() - 1000, 30),
    ] {
        let request = execd.client.post(execd.url("/v1/claim")).header("X-OpenSandbox-Signature", signature);
        assert_eq!(code(request.body(bytes.clone()).send().await.unwrap()).await.0, 401);
    }
    let mut wrong = body.clone();
    wrong["podUid"] = json!("another");
    assert_eq!(code(execd.claim(&wrong).await).await, (409, "WRONG_POD".into()));
    let mut bad = body;
    bad["env"] = json!({"OK": "1", "BAD=NAME": "2"});
    let answer = execd.claim(&bad).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("BAD=NAME"));
    assert_eq!(execd.get("/v1/claim").await.json::<Value>().await.unwrap(), json!({"claimed": false}));
}

#[tokio::test]
async fn one_owner_with_one_token() {
    let execd = Execd::keyed();
    let first: Value = execd.claim(&claim("a", 5, "token-a")).await.json().await.unwrap();
    assert_eq!(first, json!({"claimed": true, "sandboxUid": "a", "epoch": 5}));
    let again: Value = execd.claim(&claim("a", 5, "token-a")).await.json().await.unwrap();
    assert_eq!(again, first);
    assert_eq!(code(execd.claim(&claim("b", 9, "token-b")).await).await, (409, "CLAIMED_BY_ANOTHER".into()));
    assert_eq!(code(execd.claim(&claim("a", 4, "token-a")).await).await, (409, "STALE_CLAIM".into()));

    let with = |path: &str, token: &str| execd.client.get(execd.url(path)).header("X-EXECD-ACCESS-TOKEN", token).send();
    assert_eq!(execd.get("/ping").await.status(), 200);
    assert_eq!(with("/ping", "token-a").await.unwrap().status(), 200);
    assert_eq!(code(with("/ping", "old").await.unwrap()).await, (401, "INVALID_ACCESS_TOKEN".into()));
    assert_eq!(code(execd.get("/metrics").await).await.0, 401);
    assert_eq!(code(with("/metrics", "token-b").await.unwrap()).await.0, 401);
    assert_eq!(with("/metrics", "token-a").await.unwrap().status(), 200);
    let inside = format!("/proxy/{}/metrics", execd.port);
    assert_eq!(with(&inside, "token-a").await.unwrap().status(), 200);

    let run = execd.client.post(execd.url("/command")).header("X-EXECD-ACCESS-TOKEN", "token-a");
    let text =
        run.json(&json!({"command": "echo $AGENT $OPENSANDBOX_ID; env"})).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"a1 sbx\""), "{text}");
    assert!(!text.contains("token-a") && !text.contains("DAEMON_KEY"));
}

#[tokio::test]
async fn an_unkeyed_pod_works_as_it_always_did() {
    let execd = Execd::with(&[("EXECD_ACCESS_TOKEN", "static")]);
    assert_eq!(code(execd.get("/metrics").await).await.0, 401);
    assert_eq!(code(execd.post("/v1/claim", &claim("a", 1, "t")).await).await.0, 401);
    let answer = execd.client.get(execd.url("/metrics")).header("x-execd-access-token", "static").send().await.unwrap();
    assert_eq!(answer.status(), 200);

    let open = Execd::open();
    assert_eq!(open.get("/metrics").await.status(), 200);
    assert_eq!(open.post("/v1/claim", &claim("a", 1, "t")).await.status(), 200);
    assert_eq!(code(open.get("/metrics").await).await.0, 401);
    assert_eq!(code(open.post("/v1/claim", &claim("a", 2, "mine")).await).await.0, 409);
}

#[tokio::test]
async fn the_entrypoint_is_started_once_and_told() {
    let execd = Execd::keyed();
    let (count, go) = (execd.path("count"), execd.path("go"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut body = claim("a", 1, "t");
    let script = format!("echo $AGENT >> {}; read x < {}; echo last words; exit 3", count.display(), go.display());
    body["entrypoint"] = json!(["/bin/sh", "-c", script]);
    let (one, two) = tokio::join!(execd.claim(&body), execd.claim(&body));
    for answer in [one, two] {
        let status: Value = answer.json().await.unwrap();
        assert_eq!(status["entrypoint"]["state"], "Running");
    }
    assert_eq!(execd.entrypoint(0).await["state"], "Running");
    tokio::fs::write(&go, "x\n").await.unwrap();
    let end = execd.entrypoint(50).await;
    assert_eq!((&end["state"], &end["exitCode"]), (&json!("Exited"), &json!(3)));
    assert_eq!(end["message"], "exit status 3: last words");
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "a1\n");
    let unsigned = execd.get("/v1/claim/entrypoint").await;
    assert_eq!(code(unsigned).await.0, 401);
}

#[tokio::test]
async fn an_entrypoint_that_is_no_program() {
    for (program, want) in [("/no/such", 127), ("/etc/passwd", 126), ("no-such-name", 127)] {
        let execd = Execd::keyed();
        let mut body = claim("a", 1, "t");
        body["entrypoint"] = json!([program]);
        let status: Value = execd.claim(&body).await.json().await.unwrap();
        assert_eq!((&status["claimed"], &status["entrypoint"]["state"]), (&json!(true), &json!("Exited")), "{program}");
        let end = execd.entrypoint(50).await;
        assert_eq!(end["exitCode"], want, "{program}");
        assert!(end["message"].as_str().unwrap().contains(program));
    }
}

#[tokio::test]
async fn a_crash_forgets_neither_owner_nor_entrypoint() {
    let env = keyed_env();
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let execd = Execd::with(&env);
    let pid_file = execd.path("pid");
    let mut body = claim("a", 3, "token-a");
    body["entrypoint"] = json!(["/bin/sh", "-c", format!("echo $$ > {}; exec sleep 1000", pid_file.display())]);
    assert_eq!(execd.claim(&body).await.status(), 200);
    let written = async {
        while std::fs::read_to_string(&pid_file).map_or(0, |t| t.len()) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let execd = execd.crash_and_restart(&env);
    assert_eq!(code(execd.get("/metrics").await).await, (401, "INVALID_ACCESS_TOKEN".into()));
    assert_eq!(code(execd.claim(&claim("b", 9, "token-b")).await).await.1, "CLAIMED_BY_ANOTHER");
    let again: Value = execd.claim(&body).await.json().await.unwrap();
    assert_eq!(again["entrypoint"]["state"], "Running");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid, "it was not started again");
    let pid: i32 = pid.trim().parse().unwrap();
    assert!(alive(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let end = execd.entrypoint(50).await;
    assert_eq!(end["state"], "Exited");
    // Kernels from 6.15 on tell it of processes that are not ours.
    if !end["exitCode"].is_null() {
        assert_eq!((&end["exitCode"], &end["message"]), (&json!(137), &json!("signal: killed")));
    } else {
        eprintln!("this kernel does not tell the end of other processes");
    }
    let mark = std::fs::read_to_string(execd.path("state/claim.json")).unwrap();
    assert!(!mark.contains("token-a"));
}

#[tokio::test]
async fn tasks_are_the_platforms_and_known_by_their_handle() {
    let execd = Execd::keyed();
    let done = execd.path("done");
    let task = json!({"name": "t", "process": {"command": ["/bin/sh", "-c"], "args": [format!("echo $A > {}; exit 5", done.display())], "env": [{"name": "A", "value": "v"}]}});
    let body = json!([task]).to_string();
    let signature = signer().sign(&POD.into(), Verb::SetTasks, body.as_bytes(), now(), 30);
    let handle = "0123456789abcdef0123456789abcdef";
    let over =
        |signature: Option<&str>| json!({"name": "t", "handle": handle, "signedBody": body, "signature": signature});
    assert_eq!(code(execd.post("/v1/tasks", &over(None)).await).await, (401, "BAD_SIGNATURE".into()));
    assert_eq!(execd.post("/v1/tasks", &over(Some(&signature))).await.status(), 200);
    let end: Value = execd.get(&format!("/v1/tasks/{handle}?wait=50")).await.json().await.unwrap();
    assert_eq!((&end["terminated"]["exitCode"], &end["terminated"]["reason"]), (&json!(5), &json!("Failed")));
    assert_eq!(end["injection"], "execd");
    eventually(&done, "v\n").await;
    std::fs::remove_file(&done).unwrap();
    assert_eq!(execd.post("/v1/tasks", &over(Some(&signature))).await.status(), 200);
    assert!(!done.exists(), "the same handle is the same task");
    assert_eq!(
        code(execd.get("/v1/tasks/ffffffffffffffffffffffffffffffff").await).await,
        (404, "TASK_NOT_FOUND".into())
    );
}

#[tokio::test]
async fn a_task_is_stopped_with_its_group_and_its_timeout_told() {
    let execd = Execd::open();
    let start = async |handle: &str, script: &str, timeout: i64| {
        let task = json!({"name": "t", "process": {"command": ["/bin/sh", "-c", script], "timeoutSeconds": timeout}});
        let over = json!({"name": "t", "handle": handle, "signedBody": task.to_string()});
        assert_eq!(execd.post("/v1/tasks", &over).await.status(), 200);
    };
    let (one, two) = ("1".repeat(32), "2".repeat(32));
    let pids = execd.path("pids");
    // A child that will not hear TERM: the group is killed after the grace.
    start(&one, &format!("sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' & wait", pids.display()), 0)
        .await;
    let written = async {
        while std::fs::read_to_string(&pids).map_or(0, |t| t.len()) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    let stopped = execd.client.delete(execd.url(&format!("/v1/tasks/{one}?grace=1"))).send().await.unwrap();
    let stopped: Value = stopped.json().await.unwrap();
    assert_eq!((&stopped["terminated"]["exitCode"], &stopped["terminated"]["signal"]), (&json!(143), &json!(15)));
    let pid: i32 = std::fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("the group is gone");
    start(&two, "sleep 1000", 1).await;
    let end: Value = execd.get(&format!("/v1/tasks/{two}?wait=50")).await.json().await.unwrap();
    assert_eq!((&end["terminated"]["exitCode"], &end["terminated"]["reason"]), (&json!(137), &json!("TaskTimeout")));
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let execd = Execd::keyed();
    let count = execd.path("count");
    let claims = (0..24u64).map(|number| {
        let mut body = claim(&format!("owner-{}", number % 8), 1 + number / 8, &format!("token-{}", number % 8));
        body["entrypoint"] = json!(["/bin/sh", "-c", format!("echo {} >> {}", number % 8, count.display())]);
        body
    });
    let bodies: Vec<Value> = claims.collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| execd.claim(body))).await;
    let status: Value = execd.get("/v1/claim").await.json().await.unwrap();
    let owner = status["sandboxUid"].as_str().unwrap().to_owned();
    for (body, answer) in bodies.iter().zip(answers) {
        let (won, status) = (body["sandboxUid"] == owner.as_str(), answer.status().as_u16());
        let refused = if status == 200 { String::new() } else { code(answer).await.1 };
        assert!(
            if won { status == 200 || refused == "STALE_CLAIM" } else { refused == "CLAIMED_BY_ANOTHER" },
            "{body} {refused}"
        );
    }
    assert_eq!(execd.entrypoint(50).await["exitCode"], 0);
    let started = std::fs::read_to_string(&count).unwrap();
    assert_eq!(started, format!("{}\n", owner.strip_prefix("owner-").unwrap()), "one entrypoint, the owner's");
    let token = format!("token-{}", owner.strip_prefix("owner-").unwrap());
    for number in 0..8 {
        let other = format!("token-{number}");
        let answer =
            execd.client.get(execd.url("/metrics")).header("X-EXECD-ACCESS-TOKEN", &other).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), if other == token { 200 } else { 401 });
    }
}
