//! Sessions: what stays from run to run, how runs end, and that nothing of it leaks into the output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use common::{DEADLINE, Execd, Run, alive, code};
use futures::StreamExt;
use serde_json::{Value, json};

struct Session<'e> {
    execd: &'e Execd,
    id: String,
}

impl<'e> Session<'e> {
    async fn new(execd: &'e Execd, body: &Value) -> Self {
        let answer = execd.post("/session", body).await;
        assert_eq!(answer.status(), 200);
        let created: Value = answer.json().await.unwrap();
        Self { execd, id: created["session_id"].as_str().unwrap().to_owned() }
    }

    async fn run(&self, command: &str) -> Run {
        self.ask(&json!({"command": command})).await
    }

    async fn ask(&self, body: &Value) -> Run {
        let answer = self.execd.post(&format!("/session/{}/run", self.id), body).await;
        assert_eq!(answer.status(), 200, "{body}");
        Run::of(&answer.bytes().await.unwrap())
    }

    async fn out(&self, command: &str) -> String {
        let run = self.run(command).await;
        assert_eq!(run.exit(), "0", "{command}: {:?} {:?}", run.stderr(), run.traceback());
        run.stdout().join("\n")
    }
}

#[tokio::test]
async fn state_stays_as_in_a_shell_that_stays() {
    let execd = Execd::open();
    let dir = execd.path("made/here");
    let s = Session::new(&execd, &json!({"cwd": dir})).await;
    assert_eq!(s.out("pwd").await, dir.to_str().unwrap());
    s.out("export A=\"it's \\$x \\`y\\` \\\\ é\n\ttab\"; B=plain; f() { echo \"f $1\"; }; alias l=ls; umask 027").await;
    for _ in 0..3 {
        assert_eq!(s.out("printf '%s|%s|' \"$A\" $B; f 1; umask").await, "it's $x `y` \\ é\n\ttab|plain|f 1\n0027");
    }
    s.out("cd /usr; unset A").await;
    assert_eq!(s.out("pwd; echo \"[$A]\"").await, "/usr\n[]");
    let long = "x".repeat(100 << 10);
    s.out(&format!("export LONG={long}")).await;
    assert_eq!(s.out("echo ${#LONG}").await, long.len().to_string());
    let status: Value = execd.get(&format!("/session/{}", s.id)).await.json().await.unwrap();
    assert_eq!(status, json!({"session_id": s.id, "cwd": "/usr"}));
}

#[tokio::test]
async fn each_run_tells_its_own_output_and_end() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({})).await;
    let run = s.run("echo out; echo err >&2; echo; printf 'a\\n\\nb'; sh -c 'exit 7'").await;
    assert_eq!((run.exit(), run.stdout(), run.stderr()), ("7", vec!["out", "\n", "a", "\n", "b"], vec!["err"]));
    // What was in-band elsewhere is plain text here.
    let run = s.run("echo __ENV_DUMP_START__; echo __EXIT_CODE__:3; echo __PWD__:/; echo __ENV_DUMP_END__").await;
    assert_eq!((run.exit(), run.stdout().len()), ("0", 4));
    let run = s.run("syntax error (").await;
    assert_ne!(run.exit(), "0");
    assert!(!run.stderr().is_empty());
    assert_eq!(s.out("cat; echo $0; readlink /proc/self/fd/0").await, "bash\n/dev/null");
    let descriptors = "ls /proc/self/fd | wc -l";
    assert_eq!(s.out(descriptors).await, execd.shell(descriptors).await.stdout()[0], "nothing of ours is inherited");
    let run = s.run("seq 1 20000; echo tail >&2; printf end").await;
    assert_eq!((run.stdout().len(), run.stdout()[20_000], run.stderr()), (20_001, "end", vec!["tail"]));
    // The run is an execution like any other.
    let status: Value = execd.get(&format!("/command/status/{}", run.id)).await.json().await.unwrap();
    assert_eq!((&status["running"], &status["exit_code"]), (&json!(false), &json!(0)));
    assert_ne!(run.id, s.id);
    let of_session: Value = execd.get(&format!("/command/status/{}", s.id)).await.json().await.unwrap();
    assert_eq!(of_session["content"], status["content"]);
}

#[tokio::test]
async fn a_shell_that_ends_is_told_and_replaced() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({"cwd": execd.path("d")})).await;
    s.out("export KEPT='a \"b\" $c'; mkdir sub; cd sub; plain=1").await;
    for (command, exit) in [
        ("exit 9", "9"),
        ("exit 0", "0"),
        ("set -e; false; echo no", "1"),
        ("kill -KILL $$", "-1"),
        ("exec sh -c 'exit 4'", "4"),
    ] {
        let run = s.run(command).await;
        assert_eq!((run.exit(), run.stdout().len()), (exit, 0), "{command}");
        let after = s.out("echo \"$KEPT|$plain|$PWD\"").await;
        assert_eq!(after, format!("a \"b\" $c||{}", execd.path("d/sub").display()), "{command}");
    }
}

#[tokio::test]
async fn a_directory_for_one_run_does_not_stick() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({"cwd": "/tmp"})).await;
    let run = s.ask(&json!({"command": "pwd", "cwd": "/var"})).await;
    assert_eq!(run.stdout(), ["/var"]);
    assert_eq!(s.out("pwd").await, "/tmp");
    s.ask(&json!({"command": "cd /usr", "cwd": "/var"})).await;
    assert_eq!(s.out("pwd").await, "/usr", "but where a command goes itself is kept");
    let missing = execd.post(&format!("/session/{}/run", s.id), &json!({"command": "pwd", "cwd": "/no/such"})).await;
    assert_eq!(code(missing).await, (400, "INVALID_REQUEST_BODY".into()));
}

#[tokio::test]
async fn the_file_of_variables_counts_in_sessions_too() {
    let execd = Execd::open();
    std::fs::write(execd.path("envs"), "ONE='1 $x'\n").unwrap();
    let s = Session::new(&execd, &json!({"envs": {"OWN": "o"}})).await;
    assert_eq!(s.out("echo \"$ONE|$TWO|$OWN\"").await, "1 $x||o");
    std::fs::write(execd.path("envs"), "ONE='1 $x'\nTWO=2\n").unwrap();
    assert_eq!(s.out("echo \"$ONE|$TWO|$OWN\"").await, "1 $x|2|o");
    s.out("TWO=mine").await;
    assert_eq!(s.out("echo $TWO").await, "mine", "what has not changed does not come back");
}

#[tokio::test]
async fn a_timeout_ends_the_run_and_all_it_started_but_not_the_session() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({})).await;
    let job: i32 = s.out("export V=1; sleep 1000 & echo $!").await.parse().unwrap();
    // A child that holds the pipe does not hold the run.
    let begun = std::time::Instant::now();
    let run = s.ask(&json!({"command": "sleep 1000 & echo $!; sleep 1001", "timeout": 300})).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    assert_eq!((run.exit(), run.traceback()[0].as_str()), ("-1", "signal: killed"));
    assert!(run.traceback()[1].contains("300 ms"));
    let child: i32 = run.stdout()[0].parse().unwrap();
    let gone = async {
        while alive(child) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("what the run started is gone");
    assert!(alive(job), "an older job lives on");
    assert_eq!(s.out("echo $V").await, "1");
    s.out(&format!("kill {job}")).await;
}

#[tokio::test]
async fn one_run_at_a_time_and_an_interrupt_keeps_the_session() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({})).await;
    s.out("export V=1").await;
    let url = format!("/session/{}/run", s.id);
    let first = execd.post(&url, &json!({"command": "echo ready; sleep 1000; echo after"})).await;
    let mut stream = first.bytes_stream();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        seen.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    let busy = code(execd.post(&url, &json!({"command": "true"})).await).await;
    assert_eq!(busy, (409, "SESSION_BUSY".into()));
    let interrupted = execd.client.delete(execd.url(&format!("/command?id={}", s.id))).send().await.unwrap();
    assert_eq!(interrupted.status(), 200);
    while let Some(bytes) = stream.next().await {
        seen.extend_from_slice(&bytes.unwrap());
    }
    let run = Run::of(&seen);
    assert_ne!(run.exit(), "0");
    assert_eq!(run.stdout(), ["ready"]);
    assert!(run.traceback().iter().any(|line| line.contains("interrupted")), "{:?}", run.traceback());
    assert_eq!(s.out("echo $V").await, "1");
}

#[tokio::test]
async fn a_background_job_of_a_run_writes_into_that_run_alone() {
    let execd = Execd::open();
    let s = Session::new(&execd, &json!({})).await;
    let go = execd.path("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let first = s.run(&format!("(read x < {}; echo late) & echo now", go.display())).await;
    assert_eq!(first.stdout(), ["now"]);
    assert_eq!(s.out("echo second").await, "second");
    tokio::fs::write(&go, "x\n").await.unwrap();
    let late = async {
        while execd.get(&format!("/command/{}/logs", first.id)).await.text().await.unwrap() != "now\nlate\n" {}
    };
    tokio::time::timeout(DEADLINE, late).await.unwrap();
}

#[tokio::test]
async fn deletion_ends_what_runs_and_is_once() {
    let execd = Execd::open();
    let s = Session::new(&execd, &Value::Null).await;
    let mut answer = execd.post(&format!("/session/{}/run", s.id), &json!({"command": "echo ready; sleep 1000"})).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        seen.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    let delete = || execd.client.delete(execd.url(&format!("/session/{}", s.id))).send();
    assert_eq!(delete().await.unwrap().status(), 200);
    while let Some(bytes) = answer.chunk().await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    assert_eq!(Run::of(&seen).exit(), "-1");
    assert_eq!(code(delete().await.unwrap()).await, (404, "CONTEXT_NOT_FOUND".into()));
    let run = execd.post(&format!("/session/{}/run", s.id), &json!({"command": "true"})).await;
    assert_eq!(code(run).await, (404, "CONTEXT_NOT_FOUND".into()));
}

#[tokio::test]
async fn bodies_as_clients_send_them() {
    let execd = Execd::open();
    let empty =
        execd.client.post(execd.url("/session")).header("content-type", "application/json").send().await.unwrap();
    let created: Value = empty.json().await.unwrap();
    let url = format!("/session/{}/run", created["session_id"].as_str().unwrap());
    let old = execd.post(&url, &json!({"code": "echo x", "timeout_ms": 1000, "cwd": null})).await;
    assert_eq!(Run::of(&old.bytes().await.unwrap()).stdout(), ["x"]);
    for body in [json!({}), json!({"command": ""}), json!({"command": 1}), json!({"command": "x", "timeout": -1})] {
        assert_eq!(code(execd.post(&url, &body).await).await.0, 400, "{body}");
    }
    assert_eq!(code(execd.post("/session", &json!({"cwd": 1})).await).await.0, 400);
}

#[tokio::test]
async fn where_bash_is_missing_sh_does() {
    let dir = tempfile::tempdir().unwrap();
    for tool in ["sh", "sleep", "cat"] {
        let found = ["/bin", "/usr/bin"].iter().map(|d| std::path::Path::new(d).join(tool)).find(|p| p.exists());
        let Some(found) = found else {
            eprintln!("skipped: no {tool} on this machine");
            return;
        };
        std::os::unix::fs::symlink(found, dir.path().join(tool)).unwrap();
    }
    let execd = Execd::with(&[("PATH", dir.path().to_str().unwrap())]);
    let s = Session::new(&execd, &json!({"cwd": "/tmp"})).await;
    s.out("export A=\"x'y\"; B=2; f() { echo f; }; cd /usr").await;
    assert_eq!(s.out("echo \"$A|$B\"; f; pwd").await, "x'y|2\nf\n/usr");
    assert_eq!(s.run("exit 5").await.exit(), "5");
    assert_eq!(s.out("echo \"$A|$B|$PWD\"").await, "x'y||/usr");
    let run = s.run("if (").await;
    assert_ne!(run.exit(), "0");
    assert_eq!(s.out("echo \"$A\"").await, "x'y");
}
