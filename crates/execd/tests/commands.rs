//! Commands: framing, ends, timeouts, background children, logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use common::{DEADLINE, Execd, Run, alive, code, eventually};
use futures::StreamExt;
use serde_json::{Value, json};

#[tokio::test]
async fn the_stream_is_bare_json_with_two_line_feeds() {
    let execd = Execd::open();
    let raw = execd
        .raw(&json!({"command": "printf 'a\\n\\nb\\n\\n\\nc\\n'; printf '\\302\\205x\\342\\200\\250y\\n\\377'"}))
        .await;
    let text = String::from_utf8(raw.clone()).unwrap();
    assert!(!text.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']));
    assert!(text.starts_with('{') && text.ends_with("}\n\n") && !text.contains("\n\n\n"));
    let run = Run::of(&raw);
    assert_eq!(run.stdout(), ["a", "\n", "b", "\n", "\n", "c", "\u{85}x\u{2028}y", "\u{FFFD}"]);
    assert_eq!(run.id.len(), 32);
}

#[tokio::test]
async fn ends_are_told_as_they_are() {
    let execd = Execd::open();
    for (command, exit, words) in [
        ("true", "0", None),
        ("exit 3", "3", Some("exit status 3")),
        ("kill -TERM $$", "-1", Some("signal: terminated")),
        ("kill -KILL $$", "-1", Some("signal: killed")),
        ("no-such-program", "127", Some("exit status 127")),
    ] {
        let run = execd.shell(command).await;
        assert_eq!((run.exit(), run.traceback().first().map(String::as_str)), (exit, words), "{command}");
    }
    let missing = execd.run(&json!({"argv": ["/no/such/program"]})).await;
    assert_eq!(missing.exit(), "127");
    assert!(missing.traceback()[0].contains("/no/such/program"));
    let denied = execd.run(&json!({"argv": ["/etc/passwd"]})).await;
    assert_eq!(denied.exit(), "126");
}

#[tokio::test]
async fn output_that_was_written_before_the_end_always_comes() {
    let execd = Execd::open();
    for _ in 0..20 {
        let run = execd.shell("seq 1 5000; echo err >&2; printf tail").await;
        assert_eq!(run.stdout().len(), 5001);
        assert_eq!((run.stdout()[5000], run.stderr()), ("tail", vec!["err"]));
    }
}

#[tokio::test]
async fn environment_directory_and_arguments() {
    let execd = Execd::open();
    std::fs::write(execd.path("envs"), "FROM_FILE='a $b'\nOVER=file\n").unwrap();
    std::fs::create_dir(execd.path("sub")).unwrap();
    let cwd = execd.path("sub");
    let run = execd
        .run(&json!({
            "command": "pwd; echo \"$FROM_FILE|$OVER|$OWN\"", "cwd": "$WHERE", "gid": null, "uid": null,
            "envs": {"OWN": "x=y", "OVER": "request", "WHERE": cwd},
        }))
        .await;
    assert_eq!(run.stdout(), [cwd.to_str().unwrap(), "a $b|request|x=y"]);
    std::fs::write(execd.path("envs"), "OVER=again\n").unwrap();
    assert_eq!(execd.shell("echo $OVER").await.stdout(), ["again"]);
    let argv = execd.run(&json!({"argv": ["printf", "%s|", "a b", "$HOME", "*"]})).await;
    assert_eq!(argv.stdout(), ["a b|$HOME|*|"]);
    assert_eq!(execd.shell("env | grep -c -e DAEMON_KEY -e ACCESS_TOKEN -e STATE_DIR").await.stdout(), ["0"]);
    assert_eq!(execd.shell("readlink /proc/self/fd/0").await.stdout(), ["/dev/null"]);
}

#[tokio::test]
async fn what_cannot_run_is_refused_before_the_stream() {
    let execd = Execd::open();
    for body in [
        json!({}),
        json!({"command": ""}),
        json!({"command": "x", "argv": ["x"]}),
        json!({"command": 5}),
        json!({"command": "x", "timeout": -1}),
        json!({"command": "x", "uid": -1}),
        json!({"command": "x", "gid": 5}),
        json!({"command": "x", "cwd": "/no/such"}),
        json!({"command": "x", "cwd": "/etc/passwd"}),
        json!({"command": "x", "envs": {"A=B": "c"}}),
        json!({"command": "a\0b"}),
    ] {
        let refused = code(execd.post("/command", &body).await).await;
        assert_eq!(refused, (400, "INVALID_REQUEST_BODY".into()), "{body}");
    }
    let large = format!("{{\"command\":\"{}\"}}", "x".repeat(5 << 20));
    let answer = execd.client.post(execd.url("/command")).body(large).send().await.unwrap();
    assert_eq!(code(answer).await, (413, "BODY_TOO_LARGE".into()));
}

#[tokio::test]
async fn another_identity() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to change the user");
        return;
    }
    let execd = Execd::open();
    let run = execd.run(&json!({"command": "id -u; id -g; id -G", "uid": 54321, "cwd": "/"})).await;
    assert_eq!(run.stdout(), ["54321", "54321", "54321"]);
    let run = execd.run(&json!({"command": "id -u; id -g; id -G", "uid": 54321, "gid": 77, "cwd": "/"})).await;
    assert_eq!(run.stdout(), ["54321", "77", "77"]);
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let execd = Execd::open();
    let file = execd.path("pids");
    let command = format!("sleep 1000 & echo $! $$ > {}; echo started; wait", file.display());
    let run = execd.run(&json!({"command": command, "timeout": 500})).await;
    assert_eq!((run.exit(), run.stdout()), ("-1", vec!["started"]));
    assert_eq!(run.traceback()[0], "signal: killed");
    assert!(run.traceback()[1].contains("500 ms"));
    let pids = std::fs::read_to_string(file).unwrap();
    for pid in pids.split_whitespace() {
        let pid: i32 = pid.parse().unwrap();
        let gone = async {
            while alive(pid) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.expect("the group is gone");
    }
}

#[tokio::test]
async fn background_children_hold_no_stream_and_lose_nothing() {
    let execd = Execd::open();
    let (go, done) = (execd.path("go"), execd.path("done"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let command =
        format!("(read x < {}; echo late; echo \"late status $?\" > {}) & echo now", go.display(), done.display());
    let run = execd.shell(&command).await;
    assert_eq!((run.stdout(), run.exit()), (vec!["now"], "0"));
    tokio::fs::write(&go, "x\n").await.unwrap();
    eventually(&done, "late status 0\n").await;
    let logs = async {
        loop {
            let text = execd.get(&format!("/command/{}/logs", run.id)).await.text().await.unwrap();
            if text == "now\nlate\n" {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, logs).await.expect("what came late is in the log");
}

#[tokio::test]
async fn a_background_command_with_status_and_logs() {
    let execd = Execd::open();
    let go = execd.path("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let command = format!("echo one; echo two >&2; read x < {}; echo three; exit 4", go.display());
    let run = execd.run(&json!({"command": command, "background": true})).await;
    assert_eq!(run.events.len(), 2);
    let status: Value = execd.get(&format!("/command/status/{}", run.id)).await.json().await.unwrap();
    assert_eq!((&status["running"], &status["content"]), (&json!(true), &json!(command)));
    assert!(status.get("exit_code").is_none() && status["started_at"].is_string());
    tokio::fs::write(&go, "x\n").await.unwrap();
    let ended = async {
        loop {
            let status: Value = execd.get(&format!("/command/status/{}", run.id)).await.json().await.unwrap();
            if status["running"] == json!(false) {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!((&status["exit_code"], &status["error"]), (&json!(4), &json!("exit status 4")));
    let logs = execd.get(&format!("/command/{}/logs?cursor=0", run.id)).await;
    assert_eq!(logs.headers()["EXECD-COMMANDS-TAIL-CURSOR"], "14");
    assert_eq!(logs.text().await.unwrap(), "one\ntwo\nthree\n");
    let logs = execd.get(&format!("/command/{}/logs?cursor=8", run.id)).await;
    assert_eq!(logs.text().await.unwrap(), "three\n");
    let past = execd.get(&format!("/command/{}/logs?cursor=99", run.id)).await;
    assert_eq!((past.headers()["EXECD-COMMANDS-TAIL-CURSOR"].to_str().unwrap(), past.status().as_u16()), ("99", 200));
    assert_eq!(code(execd.get(&format!("/command/{}/logs?cursor=-1", run.id)).await).await.0, 400);
    assert_eq!(code(execd.get("/command/status/none").await).await, (404, "COMMAND_NOT_FOUND".into()));
}

#[tokio::test]
async fn an_interrupt_ends_the_group_with_grace_first() {
    let execd = Execd::open();
    let answer = execd
        .post(
            "/command",
            &json!({"command": "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done"}),
        )
        .await;
    let mut stream = answer.bytes_stream();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        seen.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    let init: Value = serde_json::from_slice(seen.split(|b| *b == b'\n').next().unwrap()).unwrap();
    let id = init["text"].as_str().unwrap().to_owned();
    let url = execd.url(&format!("/command?id={id}"));
    assert_eq!(execd.client.delete(&url).send().await.unwrap().status(), 200);
    while let Some(bytes) = stream.next().await {
        seen.extend_from_slice(&bytes.unwrap());
    }
    let run = Run::of(&seen);
    assert_eq!((run.exit(), run.stdout()), ("7", vec!["ready", "caught"]));
    assert!(run.traceback().iter().any(|line| line.contains("interrupted")));
    let again = code(execd.client.delete(&url).send().await.unwrap()).await;
    assert_eq!(again, (500, "RUNTIME_ERROR".into()));
    let unknown = execd.client.delete(execd.url("/command?id=none")).send().await.unwrap();
    assert_eq!(code(unknown).await.0, 404);
    let missing = execd.client.delete(execd.url("/command")).send().await.unwrap();
    assert_eq!(code(missing).await, (400, "MISSING_QUERY".into()));
}

#[tokio::test]
async fn a_client_that_goes_does_not_end_the_command() {
    let execd = Execd::open();
    let (go, done) = (execd.path("go"), execd.path("done"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let command = format!("echo ready; read x < {}; seq 1 100000; echo ended > {}", go.display(), done.display());
    let mut answer = execd.post("/command", &json!({"command": command})).await;
    while !String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()).contains("ready") {}
    drop(answer);
    tokio::fs::write(&go, "x\n").await.unwrap();
    eventually(&done, "ended\n").await;
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_nobody_and_is_told() {
    let execd = Execd::open();
    let done = execd.path("done");
    let command = format!("head -c 400000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo ended > {}", done.display());
    let mut answer = execd.post("/command", &json!({"command": command})).await;
    let mut seen = answer.chunk().await.unwrap().unwrap().to_vec();
    eventually(&done, "ended\n").await;
    while let Some(bytes) = answer.chunk().await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    let run = Run::of(&seen);
    assert_eq!(run.exit(), "0");
    assert!(run.traceback().iter().any(|line| line.contains("bytes of output were lost")), "{:?}", run.traceback());
}

#[tokio::test]
async fn much_output_comes_whole_to_a_reader_that_reads() {
    let execd = Execd::open();
    let run = execd.shell("seq 1 400000").await;
    assert_eq!(run.exit(), "0", "{:?}", run.traceback());
    let lines = run.stdout();
    assert_eq!((lines.len(), lines[399_999]), (400_000, "400000"));
}

#[tokio::test]
async fn nothing_is_left_of_many_commands() {
    let execd = Execd::open();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    execd.shell("true").await;
    let before = descriptors();
    for _ in 0..100 {
        execd.shell("echo x").await;
    }
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    let children = execd.shell("ps -o stat= --ppid $PPID | grep -c Z").await;
    assert_eq!(children.stdout(), ["0"]);
}

#[tokio::test]
async fn standard_input_users_and_the_list() {
    let execd = Execd::open();
    let run = execd.run(&json!({"command": "cat; echo end", "stdin": "one\ntwo\n"})).await;
    assert_eq!(run.stdout(), ["one", "two", "end"]);
    let run = execd.run(&json!({"argv": ["cat"], "stdin_base64": "AAEC"})).await;
    assert_eq!(run.stdout(), ["\u{0}\u{1}\u{2}"]);
    let large = "x".repeat(1 << 20);
    assert_eq!(execd.run(&json!({"command": "wc -c", "stdin": large})).await.stdout(), ["1048576"]);
    assert_eq!(execd.run(&json!({"command": "exec <&-; true", "stdin": large})).await.exit(), "0");
    if nix::unistd::geteuid().is_root() {
        let run = execd.run(&json!({"command": "id -un; echo $HOME", "user": "root"})).await;
        assert_eq!(run.stdout()[0], "root");
    }
    assert_eq!(code(execd.post("/command", &json!({"command": "x", "user": "nobody-here"})).await).await.0, 400);
    let background = execd.run(&json!({"command": "sleep 1000", "background": true})).await;
    let running: Value = execd.get("/command?running=true").await.json().await.unwrap();
    assert_eq!((running.as_array().unwrap().len(), &running[0]["id"]), (1, &json!(background.id)));
    let ended: Value = execd.get("/command?running=false").await.json().await.unwrap();
    assert!(ended.as_array().unwrap().len() >= 4);
}

#[tokio::test]
async fn a_command_that_belongs_to_its_stream_ends_with_it() {
    let execd = Execd::open();
    let pid_file = execd.path("pid");
    let command = format!("echo $$ > {}; echo ready; sleep 1000", pid_file.display());
    let mut answer = execd.post("/command", &json!({"command": command, "kill_on_disconnect": true})).await;
    while !String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()).contains("ready") {}
    drop(answer);
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("it ends with its reader");
}

#[tokio::test]
async fn a_stop_of_the_daemon_is_heard_while_a_command_runs_and_children_of_ended_ones_live() {
    let execd = Execd::open();
    let run = execd.run(&json!({"command": "sleep 1000 & echo $!", "background": true})).await;
    let log = async {
        loop {
            let text = execd.get(&format!("/command/{}/logs", run.id)).await.text().await.unwrap();
            if text.ends_with('\n') {
                return text;
            }
        }
    };
    let child: i32 = tokio::time::timeout(DEADLINE, log).await.unwrap().trim().parse().unwrap();
    let ended = execd.get(&format!("/command/{}/output", run.id)).await.bytes().await.unwrap();
    assert_eq!(Run::of(&ended).exit(), "0");
    assert!(alive(child), "the shell's end is not its children's");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
}
