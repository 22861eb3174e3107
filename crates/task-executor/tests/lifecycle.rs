//! What becomes of a task: its end, its deadline, its stop, and its executor's death. Needs root.

mod pod;

use std::time::{Duration, Instant};

use pod::{DEADLINE, Pod, Recipe, possible};
use serde_json::{Value, json};

fn shell(name: &str, script: &str) -> Value {
    json!([{"name": name, "process": {"command": ["sh", "-c", script]}}])
}

#[test]
fn ends_are_told_as_they_were() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    let (status, _) = pod.run("three", "exit 3");
    assert_eq!((&status["terminated"]["exitCode"], &status["terminated"]["reason"]), (&json!(3), &json!("Failed")));
    assert!(status["terminated"]["startedAt"].is_string() && status["terminated"]["finishedAt"].is_string());
    let (status, _) = pod.run("killed", "kill -9 $$");
    assert_eq!((&status["terminated"]["exitCode"], &status["terminated"]["signal"]), (&json!(137), &json!(9)));
    for (name, process, code, word) in [
        ("gone", json!({"command": ["no-such-program"]}), 127, "not found along PATH"),
        ("path", json!({"command": ["/no/such"]}), 127, "no such file"),
        ("dir", json!({"command": ["/work"]}), 126, "not executable"),
        ("torn", json!({"command": ["./torn"]}), 126, "interpreter"),
        ("cwd", json!({"command": ["true"], "workingDir": "/no/dir"}), 126, "/no/dir"),
    ] {
        pod.set(json!([{"name": name, "process": process}]));
        let status = pod.ended(name);
        let ended = &status["terminated"];
        assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(code), &json!("StartError")), "{name}: {status}");
        assert!(ended["message"].as_str().unwrap().contains(word), "{name}: {status}");
        assert_eq!(status["injection"], "executorCgroup", "{name}: {status}");
        pod.clear();
    }
    let process = json!({"command": ["/usr/bin/printenv"], "args": ["OVER"], "workingDir": "/tmp",
                         "env": [{"name": "OVER", "value": "a"}, {"name": "OVER", "value": "last"}]});
    pod.set(json!([{"name": "env", "process": process}]));
    assert_eq!(pod.ended("env")["terminated"]["exitCode"], 0);
    assert_eq!(pod.output("env"), "last\n");
}

#[test]
fn a_deadline_ends_the_whole_group_even_one_that_will_not() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    let script = "trap '' TERM; (trap '' TERM; sleep 4321) & setsid sleep 5432 & while :; do sleep 1; done";
    pod.set(json!([{"name": "t", "process": {"command": ["sh", "-c", script], "timeoutSeconds": 1}}]));
    let status = pod.ended("t");
    let ended = &status["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("TaskTimeout")), "{status}");
    assert_eq!(ended["signal"], 9, "{status}");
    for left in ["sleep 4321", "sleep 5432"] {
        pod.wait_for(left, || pod.pids_running(left).is_empty());
    }
}

#[test]
fn a_stop_ends_what_the_task_left_behind_too() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    pod.set(shell("d", "sleep 6543 & exit 0"));
    assert_eq!(pod.ended("d")["terminated"]["exitCode"], 0);
    assert_eq!(pod.pids_running("sleep 6543").len(), 1, "a daemon outlives the task that started it");
    pod.clear();
    assert!(pod.pids_running("sleep 6543").is_empty(), "and not the task's removal");
    assert!(!pod.data.path().join("tasks/n.d").exists());
}

#[test]
fn a_new_task_waits_until_the_old_one_is_gone() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    pod.set(shell("a", "trap 'exit 5' TERM; while :; do sleep 0.1; done"));
    let answer = pod.set(shell("b", "echo $$"));
    let b = answer.as_array().unwrap().iter().find(|t| t["name"] == "b").unwrap();
    assert!(answer[0]["name"] == "b" && !b["processStatus"].is_null(), "{answer}");
    assert_eq!(pod.ended("b")["terminated"]["exitCode"], 0);
    let (_, tasks) = pod.call("GET", "/getTasks", &Value::Null);
    assert_eq!(tasks.as_array().unwrap().len(), 1, "{tasks}");
    let (_, again) = pod.call("POST", "/setTasks", &shell("b", "exit 9"));
    assert_eq!(again[0]["processStatus"]["terminated"]["exitCode"], 0, "a known task is left alone: {again}");
}

#[test]
fn the_executors_death_loses_neither_task_nor_exit_code() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    pod.set(shell("s", "echo start; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo end; exit 7"));
    pod.restart_executor();
    let (_, tasks) = pod.call("GET", "/getTasks", &Value::Null);
    assert!(tasks[0]["processStatus"]["running"]["startedAt"].is_string(), "{tasks}");
    let executor = pod.executor();
    Pod::kill(executor);
    let sandbox = pod.pid_with("FROM_SANDBOX=yes").unwrap();
    std::fs::write(format!("/proc/{sandbox}/root/tmp/go"), "").unwrap();
    pod.wait_for("the task's end", || pod.output("s").contains("end"));
    pod.wait_healthy();
    let status = pod.ended("s");
    assert_eq!((&status["terminated"]["exitCode"], &status["injection"]), (&json!(7), &json!("executorCgroup")));
    assert_eq!(pod.output("s"), "start\nend\n", "it ran once");
    pod.restart_executor();
    assert_eq!(pod.ended("s")["terminated"]["exitCode"], 7, "and is known after another death");
    pod.clear();
}

#[test]
fn a_stop_that_was_asked_for_goes_on_after_a_death() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    pod.set(shell("s", "trap '' TERM; while :; do sleep 0.1; done"));
    pod.call("DELETE", "/tasks/s", &Value::Null);
    pod.restart_executor();
    let end = Instant::now() + DEADLINE;
    while pod.call("GET", "/getTasks?wait=10", &Value::Null).1 != json!([]) {
        assert!(Instant::now() < end);
    }
    assert_eq!(pod.run("next", "exit 0").0["terminated"]["exitCode"], 0);
}

#[test]
fn the_death_of_a_supervisor_is_told_and_takes_the_task_with_it() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    pod.set(shell("s", "sleep 7654"));
    let supervisor = pod.pids_running("__supervise");
    assert_eq!(supervisor.len(), 1);
    let memory = std::fs::read_to_string(format!("/proc/{}/status", supervisor[0])).unwrap();
    eprintln!("supervisor: VmRSS {}, RssAnon {}", pod::field(&memory, "VmRSS:"), pod::field(&memory, "RssAnon:"));
    Pod::kill(supervisor[0]);
    let status = pod.ended("s");
    assert_eq!(status["terminated"]["reason"], "ProcessCrashed", "{status}");
    pod.wait_for("the task's end", || pod.pids_running("sleep 7654").is_empty());
}

#[test]
fn output_is_bounded() {
    if !possible() {
        return;
    }
    let mut recipe = Recipe::default();
    recipe.env.push("OUTPUT_MAX_MIB=1".into());
    let pod = Pod::start(recipe);
    pod.set(shell("o", "head -c 5000000 /dev/zero | tr '\\0' x; echo the-end"));
    assert_eq!(pod.ended("o")["terminated"]["exitCode"], 0);
    let dir = pod.data.path().join("tasks/n.o");
    let sizes: Vec<u64> =
        ["stdout.log", "stdout.log.1"].iter().map(|f| dir.join(f).metadata().unwrap().len()).collect();
    assert!(sizes.iter().all(|s| *s <= (1 << 20) + 100), "{sizes:?}");
    let text = std::fs::read_to_string(dir.join("stdout.log")).unwrap();
    assert!(text.starts_with('[') && text.contains("bytes of this stream are lost]") && text.ends_with("the-end\n"));
}

#[test]
fn a_long_poll_ends_with_the_change() {
    if !possible() {
        return;
    }
    let pod = Pod::start(Recipe::default());
    assert_eq!(pod.call("GET", "/getTasks?wait=50", &Value::Null).1, json!([]), "nothing can change: at once");
    pod.set(shell("s", "sleep 0.3; exit 4"));
    let before = Instant::now();
    let (_, tasks) = pod.call("GET", "/getTasks?wait=50", &Value::Null);
    assert!(before.elapsed() < Duration::from_secs(40));
    assert_eq!(tasks[0]["processStatus"]["terminated"]["exitCode"], 4, "{tasks}");
    let (_, _, head) = pod.try_call("GET", "/getTasks", b"", &[]).unwrap();
    let tag = head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
    let stale = pod.try_call("GET", "/getTasks?wait=50", b"", &[("if-none-match", "\"1\"".into())]);
    assert_eq!(stale.unwrap().0, 200, "news since then: at once");
    let fresh = pod.try_call("GET", "/getTasks?wait=1", b"", &[("if-none-match", tag.clone())]).unwrap();
    assert!(fresh.2.contains(&tag), "none: after the wait");
}
