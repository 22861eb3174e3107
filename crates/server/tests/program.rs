//! The program as a whole: what it prints and with which code it ends.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_opensandbox-server"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_bad_value_ends_it_with_2_and_says_what_is_wrong_where_and_what_is_right() {
    for (arguments, parts) in [
        (&["--port", "x"][..], &["error: server.port from --port: \"x\"", "from 0 to 65535"][..]),
        (&["--config", "/nowhere.toml"], &["/nowhere.toml: the configuration file can't be read"]),
        (&[], &["server.token_secret_file", "--token-secret-file"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["config"], &["--explain"]),
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: {part:?} is not in {text}");
        }
    }
}

#[test]
fn it_explains_its_configuration() {
    let output = run(&["config", "--explain", "--namespace", "team-a"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.lines().any(|l| l.starts_with("kubernetes.namespace") && l.ends_with("--namespace")), "{text}");
}
