//! Files: bytes in and out, and what is between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::os::unix::fs::MetadataExt;

use common::{DEADLINE, Execd, code};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn metadata(value: &Value) -> Part {
    Part::text(value.to_string()).file_name("metadata").mime_str("application/json").unwrap()
}

async fn upload(execd: &Execd, form: Form) -> reqwest::Response {
    execd.client.post(execd.url("/files/upload")).multipart(form).send().await.unwrap()
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn pairs_are_uploaded_with_mode_and_parents() {
    let execd = Execd::open();
    let (a, b) = (execd.path("new/dir/a b.txt"), execd.path("b"));
    let form = Form::new()
        .part("metadata", metadata(&json!({"path": a, "owner": null, "group": null, "mode": 640})))
        .part("file", Part::bytes(b"hello".to_vec()).file_name("x"))
        .part("metadata", metadata(&json!({"path": b, "mode": 4755, "owner": "0", "unknown": 1})))
        .part("file", Part::bytes(vec![0, 255, 13, 10]).file_name("/full/path"));
    let answer = upload(&execd, form).await;
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(0)));
    assert_eq!(
        (std::fs::read(&a).unwrap(), std::fs::metadata(&a).unwrap().mode() & 0o7777),
        (b"hello".to_vec(), 0o640)
    );
    assert_eq!(
        (std::fs::read(&b).unwrap(), std::fs::metadata(&b).unwrap().mode() & 0o7777),
        (vec![0, 255, 13, 10], 0o4755)
    );
    assert_eq!(names(&execd.path("new/dir")), ["a b.txt"]);
}

#[tokio::test]
async fn forms_that_are_none() {
    let execd = Execd::open();
    let file = || Part::bytes(b"x".to_vec()).file_name("x");
    let good = json!({"path": execd.path("x")});
    for (form, want) in [
        (Form::new(), "INVALID_FILE"),
        (Form::new().part("file", file()), "INVALID_FILE_METADATA"),
        (Form::new().part("metadata", metadata(&good)), "INVALID_FILE_CONTENT"),
        (Form::new().part("metadata", metadata(&json!({"path": ""}))).part("file", file()), "INVALID_FILE_METADATA"),
        (Form::new().part("metadata", Part::text("{")).part("file", file()), "INVALID_FILE_METADATA"),
        (
            Form::new()
                .part("metadata", metadata(&json!({"path": "/x", "owner": "no-such-user"})))
                .part("file", file()),
            "INVALID_FILE_METADATA",
        ),
    ] {
        assert_eq!(code(upload(&execd, form).await).await, (400, want.into()));
    }
    let plain = execd.client.post(execd.url("/files/upload")).body("x").send().await.unwrap();
    assert_eq!(code(plain).await, (400, "INVALID_FILE".into()));
    let directory = Form::new().part("metadata", metadata(&json!({"path": execd.dir.path()}))).part("file", file());
    assert_eq!(code(upload(&execd, directory).await).await.0, 400);
    assert!(!execd.path("x").exists());
}

#[tokio::test]
async fn a_cut_connection_leaves_the_old_file_and_nothing_else() {
    let execd = Execd::open();
    let dir = execd.path("d");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "old").unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
    let head = "POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 10000000\r\n\r\n";
    let part = format!(
        "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        json!({"path": dir.join("f")})
    );
    stream.write_all(format!("{head}{part}").as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    let two = async {
        while names(&dir).len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, two).await.expect("the upload is under way");
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"old");
    drop(stream);
    let one = async {
        while names(&dir) != ["f"] {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, one).await.expect("what was written is gone");
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"old");
}

#[tokio::test]
async fn tiny_chunks_make_a_form() {
    let execd = Execd::open();
    let path = execd.path("tiny");
    let form = format!(
        "--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\nContent-Type: application/json\r\n\r\n{}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhel\r\n--lo\r\n--B--\r\n",
        json!({"path": path})
    );
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = "POST /files/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=B\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in form.as_bytes().chunks(2) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        stream.write_all(piece).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(std::fs::read(&path).unwrap(), b"hel\r\n--lo");
}

#[tokio::test]
async fn downloads_whole_in_ranges_and_in_lines() {
    let execd = Execd::open();
    let path = execd.path("f é.txt");
    std::fs::write(&path, "one\r\ntwo\n\nfour").unwrap();
    let get = |query: String, range: Option<&'static str>| {
        let request = execd.client.get(execd.url("/files/download")).query(&[("path", path.to_str().unwrap())]);
        let url = request.build().unwrap().url().clone();
        let request = execd.client.get(format!("{url}{query}"));
        range.map_or(request.try_clone().unwrap(), |r| request.header("Range", r)).send()
    };
    let whole = get(String::new(), None).await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(14)));
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert!(whole.headers()["content-disposition"].to_str().unwrap().contains("filename*=UTF-8''f%20%C3%A9.txt"));
    let modified = whole.headers()["last-modified"].clone();
    assert_eq!(whole.text().await.unwrap(), "one\r\ntwo\n\nfour");
    for (range, body, header) in [
        ("bytes=0-2", "one", "bytes 0-2/14"),
        ("bytes=-4", "four", "bytes 10-13/14"),
        ("bytes=10-", "four", "bytes 10-13/14"),
    ] {
        let part = get(String::new(), Some(range)).await.unwrap();
        assert_eq!((part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()), (206, header));
        assert_eq!(part.text().await.unwrap(), body);
    }
    for range in ["bytes=99-", "bytes=x", "lines=1-2"] {
        let answer = get(String::new(), Some(range)).await.unwrap();
        assert_eq!(answer.headers()["content-range"], "bytes */14");
        assert_eq!(code(answer).await, (416, "INVALID_RANGE".into()), "{range}");
    }
    for (query, want) in [("&offset=2&limit=2", "two\n"), ("&limit=1", "one"), ("&offset=4", "four"), ("&offset=9", "")]
    {
        let lines = get(query.into(), None).await.unwrap();
        assert_eq!((lines.status().as_u16(), lines.text().await.unwrap().as_str()), (200, want), "{query}");
    }
    for query in ["&offset=0", "&limit=x", "&limit=-1"] {
        assert_eq!(code(get(query.into(), None).await.unwrap()).await.0, 400, "{query}");
    }
    assert_eq!(code(get("&offset=1".into(), Some("bytes=0-1")).await.unwrap()).await.0, 400);
    let url = execd.client.get(execd.url("/files/download")).query(&[("path", path.to_str().unwrap())]);
    assert_eq!(url.header("If-Modified-Since", modified).send().await.unwrap().status(), 304);
    assert_eq!(code(execd.get("/files/download?path=/no/such").await).await, (404, "FILE_NOT_FOUND".into()));
    assert_eq!(code(execd.get("/files/download?path=/etc").await).await.0, 400);
    assert_eq!(code(execd.get("/files/download").await).await, (400, "MISSING_QUERY".into()));
    let climbed = execd.get("/files/download?path=../../../../../../etc/passwd").await;
    assert_eq!(climbed.bytes().await.unwrap(), std::fs::read("/etc/passwd").unwrap());
    assert_eq!(code(execd.get("/files/download?path=a%00b").await).await.0, 400);
}

#[tokio::test]
async fn information_moves_permissions_and_removal() {
    let execd = Execd::open();
    let (a, b) = (execd.path("a$b.txt"), execd.path("new/b"));
    std::fs::write(&a, "abc").unwrap();
    std::os::unix::fs::symlink("/no/such", execd.path("link")).unwrap();
    let info = |paths: Vec<(&'static str, std::path::PathBuf)>| {
        execd.client.get(execd.url("/files/info")).query(&paths).send()
    };
    let map: Value = info(vec![("path", a.clone()), ("path", execd.path("link"))]).await.unwrap().json().await.unwrap();
    let entry = &map[a.to_str().unwrap()];
    assert_eq!((&entry["type"], &entry["size"], &entry["path"]), (&json!("file"), &json!(3), &json!(a)));
    assert_eq!(map[execd.path("link").to_str().unwrap()]["type"], "symlink");
    assert_eq!(execd.get("/files/info").await.json::<Value>().await.unwrap(), json!({}));

    let set = execd
        .post("/files/permissions", &json!({a.to_str().unwrap(): {"mode": 4711, "owner": null, "group": "0"}}))
        .await;
    assert_eq!((set.status().as_u16(), std::fs::metadata(&a).unwrap().mode() & 0o7777), (200, 0o4711));
    assert_eq!(code(execd.post("/files/permissions", &json!({a.to_str().unwrap(): {"mode": 888}})).await).await.0, 400);
    assert_eq!(code(execd.post("/files/permissions", &json!({"/no/such": {"mode": 644}})).await).await.0, 404);

    let moved = json!([{"src": a, "dest": b}]);
    assert_eq!(execd.post("/files/mv", &moved).await.status(), 200);
    assert_eq!(code(execd.post("/files/mv", &moved).await).await, (404, "FILE_NOT_FOUND".into()));
    std::fs::write(&a, "x").unwrap();
    assert_eq!(code(execd.post("/files/mv", &moved).await).await, (500, "RUNTIME_ERROR".into()));

    let replace = json!({b.to_str().unwrap(): {"old": "b", "new": "BB"}});
    let counted: Value = execd.post("/files/replace?verbose=true", &replace).await.json().await.unwrap();
    assert_eq!(counted, json!({b.to_str().unwrap(): {"replacedCount": 1}}));
    assert_eq!(std::fs::read(&b).unwrap(), b"aBBc");
    assert_eq!(execd.post("/files/replace?verbose=false", &replace).await.text().await.unwrap(), "");
    assert_eq!(code(execd.post("/files/replace", &json!({"/x": {"old": "", "new": ""}})).await).await.0, 400);

    let remove =
        |path: &str, what: &std::path::Path| execd.client.delete(execd.url(path)).query(&[("path", what)]).send();
    assert_eq!(remove("/files", &execd.path("link")).await.unwrap().status(), 200);
    assert!(std::fs::symlink_metadata(execd.path("link")).is_err());
    assert_eq!(remove("/files", &execd.path("link")).await.unwrap().status(), 200);
    assert_eq!(code(remove("/files", &execd.path("new")).await.unwrap()).await.0, 400);
    assert_eq!(remove("/directories", &execd.path("new")).await.unwrap().status(), 200);
    assert!(!execd.path("new").exists());
}

#[tokio::test]
async fn directories_and_search() {
    let execd = Execd::open();
    let root = execd.path("r");
    let sub = root.join("sub/deep");
    assert_eq!(execd.post("/directories", &json!({sub.to_str().unwrap(): {"mode": 700}})).await.status(), 200);
    assert_eq!(std::fs::metadata(&sub).unwrap().mode() & 0o777, 0o700);
    assert_eq!(execd.post("/directories", &json!({sub.to_str().unwrap(): {"mode": 755}})).await.status(), 200);
    assert_eq!(std::fs::metadata(&sub).unwrap().mode() & 0o777, 0o700, "what exists is left alone");
    std::fs::write(root.join("sub/a.py"), "").unwrap();
    std::fs::write(root.join("b.py"), "").unwrap();
    let paths = |list: Value| -> Vec<String> {
        let prefix = root.to_str().unwrap();
        list.as_array()
            .unwrap()
            .iter()
            .map(|e| e["path"].as_str().unwrap().strip_prefix(prefix).unwrap().to_owned())
            .collect()
    };
    let list = async |query: &str| -> Value {
        execd.get(&format!("/directories/list?path={}{query}", root.display())).await.json().await.unwrap()
    };
    assert_eq!(paths(list("").await), ["/b.py", "/sub"]);
    assert_eq!(paths(list("&depth=9").await), ["/b.py", "/sub", "/sub/a.py", "/sub/deep"]);
    assert_eq!(list("&depth=0").await, json!([]));
    assert_eq!(code(execd.get("/directories/list?path=/no/such").await).await.0, 404);
    assert_eq!(code(execd.get("/directories/list?path=/etc/passwd").await).await.0, 400);
    assert_eq!(code(execd.get("/directories/list?path=/etc&depth=-1").await).await.0, 400);
    let search = async |query: &str| -> Value {
        execd.get(&format!("/files/search?path={}{query}", root.display())).await.json().await.unwrap()
    };
    assert_eq!(paths(search("").await), ["/b.py", "/sub/a.py"]);
    assert_eq!(paths(search("&pattern=sub/*.py").await), ["/sub/a.py"]);
    assert_eq!(search("&pattern=*.rs").await, json!([]));
    assert_eq!(code(execd.get("/files/search?path=/etc&pattern=%5B").await).await.0, 400);
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let execd = Execd::open();
    let mount = execd.path("small");
    std::fs::create_dir(&mount).unwrap();
    let flags = nix::mount::MsFlags::empty();
    if let Err(error) = nix::mount::mount(Some("tmpfs"), &mount, Some("tmpfs"), flags, Some("size=1m")) {
        eprintln!("skipped: cannot mount a small tmpfs: {error}");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let _unmount = Unmount(mount.clone());
    let form = Form::new()
        .part("metadata", metadata(&json!({"path": mount.join("big")})))
        .part("file", Part::bytes(vec![1; 3 << 20]).file_name("x"));
    assert_eq!(code(upload(&execd, form).await).await, (507, "DISK_FULL".into()));
    assert!(names(&mount).is_empty());
}
