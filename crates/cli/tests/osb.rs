//! The program as a whole: standard output, standard error and exit code, against a platform that
//! answers as the published wire says.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

#[path = "../../sdk/tests/fake/mod.rs"]
mod fake;

use std::{process::Stdio, time::Duration};

use fake::{Fake, events};
use insta::assert_snapshot;
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

/// How long one run may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Osb {
    fake: Fake,
    home: tempfile::TempDir,
}

impl Osb {
    async fn new() -> Self {
        Self { fake: Fake::start().await, home: tempfile::tempdir().unwrap() }
    }

    /// Runs it with nothing of this machine's configuration.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osb"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("OSB_HOME", self.home.path().join("none"))
            .env("OPEN_SANDBOX_DOMAIN", self.fake.address.to_string())
            .env("OPEN_SANDBOX_API_KEY", fake::KEY)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> String {
        self.finish(self.command(args)).await
    }

    async fn finish(&self, mut command: Command) -> String {
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .replace(&self.fake.address.to_string(), "PLATFORM")
                .replace(&self.home.path().display().to_string(), "HOME")
        };
        format!(
            "exit code: {}\n----- stdout -----\n{}----- stderr -----\n{}",
            output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string()),
            text(&output.stdout),
            text(&output.stderr)
        )
    }
}

#[tokio::test]
async fn help_of_verbs() {
    let osb = Osb::new().await;
    assert_snapshot!("help_create", osb.run(&["sandbox", "create", "--help"]).await);
    assert_snapshot!("help_run", osb.run(&["command", "run", "--help"]).await);
}

#[tokio::test]
async fn a_sandbox_is_explained() {
    let osb = Osb::new().await;
    assert_snapshot!("explain", osb.run(&["explain", "s1"]).await);
    let json: serde_json::Value = {
        let text = osb.run(&["explain", "s1", "-o", "json"]).await;
        let start = text.find('{').unwrap();
        serde_json::from_str(&text[start..text.find("----- stderr").unwrap()]).unwrap()
    };
    assert_eq!(json["waiting"]["for"], "PoolFull");
}

#[tokio::test]
async fn states_logs_and_requests_of_a_file() {
    let osb = Osb::new().await;
    assert_snapshot!("events_watch", osb.run(&["events", "s1", "-w"]).await);
    assert_snapshot!("diagnostics_logs", osb.run(&["diagnostics", "logs", "s1", "-s", "container"]).await);
    osb.fake.script(|s| s.execd_in_create = true);
    let file = osb.home.path().join("request.yaml");
    std::fs::write(&file, "image: {uri: nginx}\nentrypoint: [sleep, '600']\ntimeout: 90\nenv: {A: '1'}\n").unwrap();
    osb.run(&["sandbox", "create", "-f", file.to_str().unwrap(), "-e", "B=2"]).await;
    let body = osb.fake.script(|s| s.bodies["POST /v1/sandboxes"].clone());
    assert_eq!(body["env"], json!({"A": "1", "B": "2"}));
    assert_eq!((&body["timeout"], &body["entrypoint"]), (&json!(90), &json!(["sleep", "600"])));
    std::fs::write(&file, "image: [").unwrap();
    assert_snapshot!("create_bad_file", osb.run(&["sandbox", "create", "-f", file.to_str().unwrap()]).await);
}

#[tokio::test]
async fn wrong_usage() {
    let osb = Osb::new().await;
    assert_snapshot!("usage_verb", osb.run(&["sandbox", "creat"]).await);
    assert_snapshot!("usage_pair", osb.run(&["sandbox", "create", "--pool", "p", "-e", "A"]).await);
    assert_snapshot!("usage_duration", osb.run(&["sandbox", "renew", "s1", "-t", "soon"]).await);
    assert_snapshot!("usage_format", osb.run(&["sandbox", "list", "-o", "raw"]).await);
}

#[tokio::test]
async fn sandboxes() {
    let osb = Osb::new().await;
    osb.fake.script(|s| s.execd_in_create = true);
    assert_snapshot!(
        "create_pool",
        osb.run(&[
            "sandbox",
            "create",
            "--pool",
            "agent-pool",
            "-e",
            "A=1",
            "-t",
            "1h30m",
            "--entrypoint",
            "sh",
            "--entrypoint",
            "-c"
        ])
        .await
    );
    let body = osb.fake.script(|s| s.bodies["POST /v1/sandboxes"].clone());
    assert_eq!(
        body,
        json!({"timeout": 5400, "env": {"A": "1"}, "extensions": {"poolRef": "agent-pool"}, "entrypoint": ["sh", "-c"]})
    );
    assert_snapshot!("create_json", osb.run(&["sandbox", "create", "--image", "nginx", "-o", "json"]).await);
    assert_snapshot!("create_nothing", osb.run(&["sandbox", "create"]).await);
    assert_snapshot!("list_table", osb.run(&["sandbox", "list"]).await);
    assert_snapshot!("list_json", osb.run(&["sandbox", "list", "--page", "3", "-o", "json"]).await);
    assert_snapshot!("get_table", osb.run(&["sandbox", "get", "s1"]).await);
    assert_snapshot!("get_yaml", osb.run(&["sandbox", "get", "s1", "-o", "yaml"]).await);
    osb.fake.fail(
        "DELETE /v1/sandboxes/s2",
        404,
        &[("x-request-id", "r1")],
        r#"{"code":"KUBERNETES::SANDBOX_NOT_FOUND","message":"no sandbox s2"}"#,
    );
    assert_snapshot!("kill", osb.run(&["sandbox", "kill", "s1", "s2"]).await);
    assert_snapshot!("endpoint", osb.run(&["sandbox", "endpoint", "s1", "-p", "80"]).await);
    assert_snapshot!("health", osb.run(&["sandbox", "health", "s1"]).await);
    assert_snapshot!("metrics", osb.run(&["sandbox", "metrics", "s1"]).await);
    assert_snapshot!("pools", osb.run(&["pool", "list"]).await);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let osb = Osb::new().await;
    let body = r#"{"code":"KUBERNETES::POOL_CAPACITY_EXHAUSTED","message":"pool agent-pool is full"}"#;
    osb.fake.fail("POST /v1/sandboxes", 429, &[("retry-after", "7"), ("x-request-id", "r1")], body);
    assert_snapshot!("error_full", osb.run(&["sandbox", "create", "--pool", "agent-pool"]).await);
    osb.fake.fail(
        "GET /v1/sandboxes/s1",
        401,
        &[("x-request-id", "r2")],
        r#"{"code":"INVALID_API_KEY","message":"the key is not known"}"#,
    );
    assert_snapshot!("error_key", osb.run(&["sandbox", "get", "s1"]).await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let told = osb.run(&["sandbox", "create", "--pool", "p", "--domain", &nobody]).await.replace(&nobody, "NOBODY");
    // The system's own words about the connection are not ours to pin down.
    let told: String =
        told.lines().filter(|line| !line.starts_with("  cause:")).map(|line| format!("{line}\n")).collect();
    assert_snapshot!("error_nobody", told);
}

#[tokio::test]
async fn a_command_is_ours() {
    let osb = Osb::new().await;
    osb.fake.stream([events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "stdout", "timestamp": 2, "text": "out \u{1b}[31mred\u{1b}[0m"}),
        json!({"type": "stderr", "timestamp": 2, "text": "err"}),
        json!({"type": "stdout", "timestamp": 2, "text": "\n"}),
        json!({"type": "error", "timestamp": 4, "error": {"ename": "CommandExecError", "evalue": "3", "traceback": ["exit status 3"]}}),
    ])]);
    assert_snapshot!("run_code", osb.run(&["command", "run", "s1", "-w", "/tmp", "--", "sh", "-c", "exit 3"]).await);
    let body = osb.fake.script(|s| s.bodies["POST /execd/command"].clone());
    assert_eq!(body, json!({"command": "sh -c 'exit 3'", "cwd": "/tmp"}));
    osb.fake.stream([events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "error", "timestamp": 4, "error": {"ename": "CommandExecError", "evalue": "-1", "traceback": ["signal: killed"]}}),
    ])]);
    assert_snapshot!("run_signal", osb.run(&["command", "run", "s1", "--argv", "sleep", "9"]).await);
    osb.fake.stream([events(&[json!({"type": "init", "timestamp": 1, "text": "e1"})])]);
    assert_snapshot!("run_cut", osb.run(&["command", "run", "s1", "x"]).await);
    osb.fake.stream([fake::hello()]);
    assert_snapshot!("run_background", osb.run(&["command", "run", "-d", "s1", "sleep 9"]).await);
    assert_snapshot!("status", osb.run(&["command", "status", "s1", "e1"]).await);
    assert_snapshot!("logs", osb.run(&["command", "logs", "s1", "e1", "--cursor", "4"]).await);
    assert_snapshot!("interrupt", osb.run(&["command", "interrupt", "s1", "e1"]).await);
}

#[tokio::test]
async fn files() {
    let osb = Osb::new().await;
    osb.fake.script(|s| s.files.insert("/a".to_owned(), vec![b'x', 0, 0xff, b'\n'].into()));
    let mut cat = osb.command(&["file", "cat", "s1", "/a"]);
    let output = tokio::time::timeout(LIMIT, cat.output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, [b'x', 0, 0xff, b'\n'], "bytes are not touched");
    assert_snapshot!("cat_none", osb.run(&["file", "cat", "s1", "/none"]).await.replace(&request_id(&osb), "ID"));

    let local = osb.home.path().join("copy");
    let local = local.to_str().unwrap();
    std::fs::write(local, "old").unwrap();
    assert_snapshot!("download", osb.run(&["file", "download", "s1", "/a", local]).await);
    assert_eq!(std::fs::read(local).unwrap(), [b'x', 0, 0xff, b'\n']);
    osb.run(&["file", "download", "s1", "/none", local]).await;
    assert_eq!(std::fs::read(local).unwrap().len(), 4, "a failed download leaves the old file");
    assert_eq!(std::fs::read_dir(osb.home.path()).unwrap().count(), 1, "nothing is left over");

    assert_snapshot!("upload", osb.run(&["file", "upload", "s1", local, "/b"]).await);
    let (_, body) = osb.fake.script(|s| s.uploads.remove(0));
    assert!(body.windows(4).any(|w| w == [b'x', 0, 0xff, b'\n']));

    let mut write = osb.command(&["file", "write", "s1", "/c", "--mode", "0640"]);
    let mut child = write.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from stdin").await.unwrap();
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "wrote /c\n");
    let (_, body) = osb.fake.script(|s| s.uploads.remove(0));
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(body.contains(r#"{"path":"/c","mode":640}"#) && body.contains("from stdin"), "{body}");
    assert_snapshot!("rm", osb.run(&["file", "rm", "s1", "/a", "/b"]).await);
    assert_snapshot!("replace", osb.run(&["file", "replace", "s1", "/a", "--old", "x", "--new", "y"]).await);
    assert_snapshot!("chmod_nothing", osb.run(&["file", "chmod", "s1", "/a"]).await);
}

/// Id that the last failed request was sent with.
fn request_id(osb: &Osb) -> String {
    osb.fake.script(|s| s.headers["GET /execd/files/download"]["x-request-id"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn configuration() {
    let osb = Osb::new().await;
    let bare = |args: &[&str]| {
        let mut command = osb.command(args);
        command.env_remove("OPEN_SANDBOX_DOMAIN").env_remove("OPEN_SANDBOX_API_KEY");
        command
    };
    assert_snapshot!("config_defaults", osb.finish(bare(&["config", "show"])).await);
    assert_snapshot!("config_init", osb.finish(bare(&["config", "init"])).await);
    assert_snapshot!("config_init_again", osb.finish(bare(&["config", "init"])).await);
    assert_snapshot!(
        "config_set",
        osb.finish(bare(&["config", "set", "connection.api_key", "secret-of-sixteen"])).await
    );
    assert_snapshot!("config_set_unknown", osb.finish(bare(&["config", "set", "connection.domian", "x"])).await);
    assert_snapshot!("config_show", osb.finish(bare(&["config", "show", "-o", "json"])).await);
    let path = osb.home.path().join(".opensandbox/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("# Settings of osb.") && text.contains("api_key = \"secret-of-sixteen\""),
        "comments are kept: {text}"
    );

    // The platform that runs here is found when nothing else is said.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(osb.home.path().join("none")).unwrap();
    let connection = format!("domain = \"{}\"\napi_key = \"{}\"\n", osb.fake.address, fake::KEY);
    std::fs::write(osb.home.path().join("none/connection.toml"), connection).unwrap();
    assert_snapshot!("config_local", osb.finish(bare(&["config", "show"])).await);
    let listed = osb.finish(bare(&["pool", "get", "agent-pool"])).await;
    assert!(listed.starts_with("exit code: 1") && listed.contains("ROUTE_NOT_FOUND"), "{listed}");
}
