//! An image with nothing in it but execd: no shell, no libc; its root read-only or not, as root or as nobody,
//! as PID 1 or not.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::common::{DEADLINE, Run, binary, code};

/// A container of the poorest kind; gone when dropped.
struct Guest {
    child: Child,
    base: String,
    client: reqwest::Client,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    read_only: bool,
    user: u32,
    first: bool,
    /// A writable `/tmp`.
    scratch: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    async fn start(root: &Path, kind: Kind) -> Result<Self, String> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = root.to_str().unwrap();
        let mut script =
            format!("mount --bind {root} {root}; mount -t proc proc {root}/proc; mount --bind /dev {root}/dev; ");
        if kind.scratch {
            script.push_str(&format!("mount -t tmpfs -o mode=1777 tmpfs {root}/tmp; "));
        }
        if kind.read_only {
            script.push_str(&format!("mount -o remount,bind,ro {root}; "));
        }
        let exec = if kind.first { "exec " } else { "" };
        let user = kind.user;
        script.push_str(&format!(
            "{exec}env -i PATH=$PATH chroot --userspec={user}:{user} --groups= {root} /execd --port={port}"
        ));
        if !kind.first {
            // The shell outside stays PID 1.
            script.push_str(" & wait");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-ec", &script]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("unshare: {e}"))?;
        let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let up = async {
            loop {
                if client.get(format!("{base}/ping")).send().await.is_ok_and(|answer| answer.status() == 200) {
                    return Ok(());
                }
                if child.try_wait().unwrap().is_some() {
                    let mut told = String::new();
                    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut told).unwrap();
                    return Err(told);
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, up).await.unwrap_or_else(|_| Err("execd does not come up".to_owned()))?;
        Ok(Self { child, base, client })
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.base)).json(body).send().await.unwrap()
    }

    async fn run(&self, body: &Value) -> Run {
        Run::of(&self.post("/command", body).await.bytes().await.unwrap())
    }

    async fn upload(&self, path: &str, data: &'static [u8]) -> reqwest::Response {
        let form = Form::new()
            .part("metadata", Part::text(json!({"path": path}).to_string()).file_name("metadata"))
            .part("file", Part::bytes(data).file_name("file"));
        self.client.post(format!("{}/files/upload", self.base)).multipart(form).send().await.unwrap()
    }
}

/// All that needs nothing of the image works; what needs a shell or a place to write says so.
async fn all_it_can(guest: &Guest, kind: Kind) {
    let version = guest.run(&json!({"argv": ["/execd", "version"]})).await;
    assert_eq!((version.exit(), version.stdout().len()), ("0", 1), "{kind:?}");
    let none = guest.run(&json!({"argv": ["/bin/none"]})).await;
    assert_eq!(none.exit(), "127", "{kind:?}");
    let shell = guest.run(&json!({"command": "echo x"})).await;
    assert_eq!(shell.exit(), "127", "{kind:?}");
    assert!(shell.traceback()[0].contains("sh"), "{:?}", shell.traceback());
    // A call to the kernel's own files, and its owner.
    let status = guest.get("/files/download?path=/proc/self/status").await.text().await.unwrap();
    assert!(status.contains(&format!("Uid:\t{}", kind.user)), "{status}");
    assert_eq!(status.contains("\nPid:\t1\n"), kind.first, "{status}");
    for path in ["/metrics", "/metrics/prometheus", "/ports", "/files/info?path=/execd", "/directories/list?path=/"] {
        assert_eq!(guest.get(path).await.status(), 200, "{kind:?} {path}");
    }
    let session: Value = guest.post("/session", &json!({})).await.json().await.unwrap();
    let path = format!("/session/{}/run", session["session_id"].as_str().unwrap());
    assert!(code(guest.post(&path, &json!({"command": "x"})).await).await.0 >= 400, "{kind:?}");
    let place = if kind.scratch { Some("/tmp/file") } else { (!kind.read_only && kind.user == 0).then_some("/file") };
    match place {
        Some(place) => {
            assert_eq!(guest.upload(place, b"data").await.status(), 200, "{kind:?}");
            let back = guest.get(&format!("/files/download?path={place}")).await;
            assert_eq!(back.text().await.unwrap(), "data");
        }
        None => {
            let (status, _) = code(guest.upload("/file", b"data").await).await;
            assert!(status >= 400, "{kind:?}");
        }
    }
    // Output beyond what memory keeps of one, wherever it is kept.
    let flood = guest.run(&json!({"argv": ["/execd", "--help"]})).await;
    assert_eq!(flood.exit(), "0", "{kind:?}");
}

#[tokio::test]
async fn an_image_with_nothing_in_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for name in ["proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    for path in [dir.path(), &root] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    if std::fs::hard_link(binary(), root.join("execd")).is_err() {
        std::fs::copy(binary(), root.join("execd")).unwrap();
    }
    for read_only in [true, false] {
        for (user, first, scratch) in [(0, true, true), (0, false, false), (65534, true, false), (65534, false, true)] {
            let kind = Kind { read_only, user, first, scratch };
            match Guest::start(&root, kind).await {
                Ok(guest) => all_it_can(&guest, kind).await,
                Err(error) if nix::unistd::geteuid().is_root() && !error.contains("Operation not permitted") => {
                    panic!("{kind:?}: {error}");
                }
                Err(error) => {
                    eprintln!("skipped: needs the right to make namespaces and mounts: {error}");
                    return;
                }
            }
        }
    }
}
