//! What the sandbox tells of itself, files in another's name, archives, watches and ports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::{DEADLINE, Execd, code};
use reqwest::Response;
use serde_json::{Value, json};

/// Events of an open stream, one after the other.
struct Events {
    answer: Response,
    seen: Vec<u8>,
}

impl Events {
    fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, seen: Vec::new() }
    }

    async fn until(&mut self, done: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                while let Some(at) = self.seen.windows(2).position(|w| w == b"\n\n") {
                    let event: Value = serde_json::from_slice(&self.seen[..at]).unwrap();
                    self.seen.drain(..at + 2);
                    if done(&event) {
                        return event;
                    }
                }
                self.seen.extend_from_slice(&self.answer.chunk().await.unwrap().unwrap());
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the event comes")
    }
}

#[tokio::test]
async fn numbers_at_once_as_a_stream_and_for_prometheus() {
    let execd = Execd::open();
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        let metrics: Value = execd.get("/metrics").await.json().await.unwrap();
        assert!(metrics["mem_used_mib"].as_f64().unwrap() <= metrics["mem_total_mib"].as_f64().unwrap());
        assert!((0.0..=100.0).contains(&metrics["cpu_used_pct"].as_f64().unwrap()));
        assert!(metrics["disk_total_mib"].as_f64().unwrap() > 0.0);
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "no call waits a second");
    let mut stream = Events::of(execd.get("/metrics/watch").await);
    for _ in 0..2 {
        stream.until(|event| event["cpu_count"].is_number() && event["timestamp"].is_i64()).await;
    }
    execd.shell("exit 1").await;
    let text = execd.get("/metrics/prometheus").await.text().await.unwrap();
    for line in [
        "opensandbox_execd_executions_started_total 1",
        "opensandbox_execd_executions_failed_total 1",
        "# TYPE opensandbox_execd_slow_readers_total counter",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn ports_that_open_and_close() {
    let execd = Execd::open();
    let mut stream = Events::of(execd.get("/ports/watch").await);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    stream.until(|event| event["type"] == "opened" && event["port"] == port).await;
    let list: Value = execd.get("/ports").await.json().await.unwrap();
    let entry = list.as_array().unwrap().iter().find(|entry| entry["port"] == port).unwrap();
    assert_eq!((&entry["addresses"], &entry["pid"]), (&json!(["127.0.0.1"]), &json!(std::process::id())));
    assert!(!list.as_array().unwrap().iter().any(|entry| entry["port"] == execd.port), "execd itself is none");
    drop(listener);
    stream.until(|event| event["type"] == "closed" && event["port"] == port).await;
}

#[tokio::test]
async fn files_in_the_name_of_another_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to act as another user");
        return;
    }
    let execd = Execd::open();
    std::fs::set_permissions(execd.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (open, shut) = (execd.path("open"), execd.path("shut"));
    for (dir, mode) in [(&open, 0o777), (&shut, 0o700)] {
        std::fs::create_dir(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::write(shut.join("secret"), "x").unwrap();
    let who = "/v1/filesystem/54321/54322";
    let made =
        execd.post(&format!("{who}/directories"), &json!({open.join("d").to_str().unwrap(): {"mode": 750}})).await;
    assert_eq!(made.status(), 200);
    let meta = std::fs::metadata(open.join("d")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (54321, 54322, 0o750));
    let read = |path: &std::path::Path| format!("{who}/files/download?path={}", path.display());
    assert_eq!(code(execd.get(&read(&shut.join("secret"))).await).await, (500, "RUNTIME_ERROR".into()));
    assert_eq!(execd.get(&format!("/files/download?path={}", shut.join("secret").display())).await.status(), 200);
    let form = reqwest::multipart::Form::new()
        .part(
            "metadata",
            reqwest::multipart::Part::text(json!({"path": open.join("d/f")}).to_string()).file_name("metadata"),
        )
        .part("file", reqwest::multipart::Part::bytes(b"data".to_vec()).file_name("f"));
    let sent = execd.client.post(execd.url(&format!("{who}/files/upload"))).multipart(form).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(std::fs::metadata(open.join("d/f")).unwrap().uid(), 54321);
    assert_eq!(execd.get(&read(&open.join("d/f"))).await.text().await.unwrap(), "data");
    for path in ["/v1/filesystem/x/1/files/info", "/v1/filesystem/1/files/info", "/v1/filesystem/1/2/command"] {
        assert_eq!(code(execd.get(path).await).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn a_directory_goes_out_and_comes_in() {
    let execd = Execd::open();
    let from = execd.path("from");
    std::fs::create_dir_all(from.join("deep")).unwrap();
    std::fs::write(from.join("deep/f"), vec![7; 3 << 20]).unwrap();
    let tar = execd.get(&format!("/directories/archive?path={}", from.display())).await;
    assert_eq!(tar.headers()["content-type"], "application/x-tar");
    let tar = tar.bytes().await.unwrap();
    let url = |to: &str| execd.url(&format!("/directories/archive?path={}", execd.path(to).display()));
    let there: Value = execd.client.post(url("a/to")).body(tar.clone()).send().await.unwrap().json().await.unwrap();
    assert_eq!(there, json!({"entries": 2}));
    assert_eq!(std::fs::read(execd.path("a/to/deep/f")).unwrap(), vec![7; 3 << 20]);
    let cut = execd.client.post(url("b/to")).body(tar.slice(..tar.len() / 2)).send().await.unwrap();
    assert_eq!(code(cut).await, (400, "INVALID_FILE".into()));
    let broken = reqwest::Body::wrap_stream(futures::stream::iter([
        Ok(tar.slice(..1 << 20)),
        Err(std::io::Error::other("the client dies")),
    ]));
    assert!(execd.client.post(url("b/to")).body(broken).send().await.is_err());
    let nothing = async {
        while std::fs::read_dir(execd.path("b")).unwrap().count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, nothing).await.expect("nothing is left of it");
    assert_eq!(code(execd.get("/directories/archive?path=/etc/passwd").await).await.0, 400);
    assert_eq!(code(execd.get("/directories/archive?path=/no/such").await).await.0, 404);
}

#[tokio::test]
async fn checksums_and_watches() {
    let execd = Execd::open();
    let file = execd.path("f");
    std::fs::write(&file, "abc").unwrap();
    let sums: Value = execd.get(&format!("/files/checksum?path={}", file.display())).await.json().await.unwrap();
    let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sums[file.to_str().unwrap()], json!({"algorithm": "sha256", "checksum": want, "size": 3}));
    assert_eq!(code(execd.get(&format!("/files/checksum?path={}&algorithm=md5", file.display())).await).await.0, 400);
    let mut stream = Events::of(execd.get(&format!("/files/watch?path={}", execd.dir.path().display())).await);
    stream.until(|event| event["type"] == "watching").await;
    std::fs::create_dir(execd.path("sub")).unwrap();
    stream.until(|event| event["type"] == "created" && event["path"] == json!(execd.path("sub"))).await;
    std::fs::write(&file, "changed").unwrap();
    stream.until(|event| event["type"] == "modified" && event["path"] == json!(file)).await;
    std::fs::remove_file(&file).unwrap();
    stream.until(|event| event["type"] == "removed" && event["path"] == json!(file)).await;
    assert_eq!(code(execd.get("/files/watch?path=/no/such").await).await.0, 404);
}

#[tokio::test]
async fn replacements_are_all_or_none() {
    let execd = Execd::open();
    let (one, two) = (execd.path("one"), execd.path("two"));
    std::fs::write(&one, "aXa").unwrap();
    std::fs::create_dir(&two).unwrap();
    let item = json!({"old": "X", "new": "Y"});
    let body = json!({one.to_str().unwrap(): item, two.to_str().unwrap(): item});
    assert_eq!(execd.post("/files/replace", &body).await.status(), 400);
    assert_eq!(std::fs::read(&one).unwrap(), b"aXa");
    let before = std::fs::metadata(&one).unwrap().mtime_nsec();
    let none = json!({one.to_str().unwrap(): {"old": "Z", "new": "Y"}});
    assert_eq!(execd.post("/files/replace", &none).await.status(), 200);
    assert_eq!(std::fs::metadata(&one).unwrap().mtime_nsec(), before, "without a match nothing is written");
}

#[tokio::test]
async fn many_calls_through_the_proxy_leave_no_descriptor() {
    let execd = Execd::open();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    let backend = Execd::open();
    let url = format!("/proxy/{}/ping", backend.port);
    for _ in 0..20 {
        assert_eq!(execd.get(&url).await.status(), 200);
    }
    let before = descriptors();
    for _ in 0..1000 {
        assert_eq!(execd.get(&url).await.status(), 200);
        assert_eq!(execd.get(&format!("/proxy/{}/ping", execd.port)).await.status(), 200);
    }
    assert!(descriptors() <= before + 2, "{} descriptors, {before} before", descriptors());
}

#[tokio::test]
async fn a_client_hears_why_its_upload_was_refused_while_it_sends() {
    let execd = Execd::open();
    std::fs::create_dir(execd.path("d")).unwrap();
    for _ in 0..10 {
        let metadata = json!({"path": execd.path("d")}).to_string();
        let pieces = (0..64).map(|_| Ok::<_, std::io::Error>(vec![1u8; 256 << 10]));
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let form = reqwest::multipart::Form::new()
            .part("metadata", reqwest::multipart::Part::text(metadata).file_name("metadata"))
            .part("file", reqwest::multipart::Part::stream(body).file_name("x"));
        let answer = execd.client.post(execd.url("/files/upload")).multipart(form).send().await.unwrap();
        assert_eq!(code(answer).await, (400, "INVALID_REQUEST_BODY".into()));
    }
}
