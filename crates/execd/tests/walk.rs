//! Every endpoint, from the router's own table: wrong verbs, wrong types, missing members, huge and slow bodies.
//! Whatever comes, the answer is `{"code","message"}` with the right status, and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use common::{DEADLINE, Execd, code};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERBS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// A path of the table with something in each of its places.
fn filled(path: &str) -> String {
    path.replace("{port}", "1").replace("{*rest}", "x").replace("{id}", "x").replace("{handle}", "x")
}

/// The verbs that a path takes, as its refusal of another names them; none where it takes any.
async fn verbs(execd: &Execd, path: &str) -> Option<Vec<String>> {
    let answer = execd.client.request("PROPFIND".parse().unwrap(), execd.url(path)).send().await.unwrap();
    let allow = answer.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
    let (status, code) = code(answer).await;
    match allow {
        Some(allow) => {
            assert_eq!((status, code.as_str()), (405, "METHOD_NOT_ALLOWED"), "{path}");
            Some(allow.split(',').map(|verb| verb.trim().to_owned()).collect())
        }
        None => {
            assert!(matches!(status, 400 | 501 | 502), "{path}: {status} {code}");
            None
        }
    }
}

/// Fine, or refused in the one form; never the daemon's own fault.
async fn sound(answer: Response, what: &str) -> u16 {
    let status = answer.status().as_u16();
    if status >= 400 {
        let (status, code) = code(answer).await;
        assert!((400..500).contains(&status), "{what}: {status} {code}");
    }
    status
}

/// Every place of the table with the verbs it takes; rooms that take any verb have their own tests.
async fn places(execd: &Execd) -> Vec<(String, Vec<String>)> {
    let mut places = Vec::new();
    for path in execd::http::paths() {
        let path = filled(path);
        if let Some(verbs) = verbs(execd, &path).await {
            places.push((path, verbs));
        }
    }
    assert!(places.len() > 30);
    places
}

fn held(execd: &Execd) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count()
}

/// Waits until nothing is left of what a walk began.
async fn settled(execd: &Execd, before: usize) {
    for (list, path) in [("/session", "/session"), ("/pty", "/pty")] {
        for made in execd.get(list).await.json::<Vec<Value>>().await.unwrap() {
            let id = made["session_id"].as_str().unwrap().to_owned();
            execd.client.delete(execd.url(&format!("{path}/{id}"))).send().await.unwrap();
        }
    }
    // Connections that the client of these tests may keep open.
    const POOLED: usize = 16;
    let back = async {
        while held(execd) > before + POOLED {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(DEADLINE, back).await;
    assert!(done.is_ok(), "{} descriptors, {before} before", held(execd));
    assert_eq!(execd.shell("echo fine").await.stdout(), ["fine"]);
}

#[tokio::test]
async fn wrong_verbs_are_refused_with_the_right_ones() {
    let execd = Execd::open();
    for (path, verbs) in places(&execd).await {
        for verb in VERBS.iter().filter(|verb| !verbs.iter().any(|taken| taken == *verb)) {
            let method: Method = verb.parse().unwrap();
            let answer = execd.client.request(method, execd.url(&path)).send().await.unwrap();
            assert_eq!(code(answer).await, (405, "METHOD_NOT_ALLOWED".into()), "{verb} {path}");
        }
    }
}

#[tokio::test]
async fn bodies_and_queries_that_are_none() {
    let execd = Execd::open();
    let before = held(&execd);
    let bodies = [
        "",
        "{",
        "[]",
        "5",
        "\"x\"",
        "[1]",
        "[[]]",
        "{}",
        "null",
        "\u{0}",
        "{\"command\":[]}",
        "{\"command\":null}",
        "{\"cwd\":{}}",
        "{\"/x\":5}",
        "[{\"src\":1}]",
        "{\"a\":{\"old\":1}}",
        "{\"a\":null}",
        "[null]",
        "{\"command\":\"\\ud800\"}",
        "{\"command\":\"a\\u0000b\"}",
    ];
    let deep = "[".repeat(100_000);
    // Only ever paths of a directory of our own: some of these calls remove what they are given.
    let own = execd.path("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("file"), "x\ny\n").unwrap();
    let queries = [
        "?path=%FF",
        "?depth=x&path=OWN",
        "?path=%00",
        "?offset=-1&path=OWN/file",
        "?offset=1&limit=0&path=OWN/file",
        "?cursor=-1",
        "?cursor=99999999999999999999",
        "?since=x",
        "?wait=x",
        "?path=",
        "?path=relative",
        "?id=",
        "?id=%00",
        "?path=OWN&pattern=%5B",
        "?algorithm=md4&path=OWN/file",
        "?path=OWN/none",
        "?path=OWN/file/below",
        "?path=OWN/LONG",
        "?%",
        "?&&=&",
    ];
    let queries = queries.map(|query| query.replace("OWN", own.to_str().unwrap()).replace("LONG", &"x".repeat(5000)));
    for (path, verbs) in places(&execd).await {
        for verb in &verbs {
            let method: Method = verb.parse().unwrap();
            if verb == "HEAD" {
                continue;
            }
            let request = |query: &str| execd.client.request(method.clone(), execd.url(&format!("{path}{query}")));
            if verb != "GET" {
                for body in bodies.iter().copied().chain([deep.as_str()]) {
                    let answer = request("").body(body.to_owned()).send().await.unwrap();
                    sound(answer, &format!("{verb} {path} {:?}", &body[..body.len().min(40)])).await;
                }
            }
            // These answer with a stream that has no end where what is asked for can be had.
            for query in queries.iter().filter(|_| !path.ends_with("/watch")) {
                sound(request(query).send().await.unwrap(), &format!("{verb} {path}{query}")).await;
            }
        }
    }
    settled(&execd, before).await;
}

/// A body that is right, for each route that takes JSON, so that one member at a time can be wrong.
fn right() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let command = json!({"command": "true", "cwd": "/", "envs": {"A": "b"}, "timeout": 60000, "background": false,
        "user": "0", "stdin": "x", "kill_on_disconnect": false, "stdin_open": false});
    vec![
        ("/command", command, &["command"][..]),
        ("/command", json!({"argv": ["true"], "uid": 0, "gid": 0}), &[]),
        ("/session", json!({"cwd": "/tmp", "envs": {"A": "b"}}), &[]),
        ("/pty", json!({"cwd": "/tmp", "command": "true", "cols": 80, "rows": 24}), &[]),
    ]
}

#[tokio::test]
async fn one_member_at_a_time_is_wrong_missing_or_null() {
    let execd = Execd::open();
    let before = held(&execd);
    let wrong = [
        json!([[]]),
        json!({"a": {}}),
        json!({"a": 5}),
        json!(-1),
        json!(1e300),
        json!(1.5),
        json!(true),
        json!("\u{0}"),
        json!(u64::MAX),
        json!([5]),
    ];
    for (path, body, needed) in right() {
        assert!(sound(execd.post(path, &body).await, path).await < 300, "{path} {body}");
        for member in body.as_object().unwrap().keys() {
            let with = |value: Option<Value>| {
                let mut body = body.clone();
                match value {
                    Some(value) => body[member] = value,
                    None => drop(body.as_object_mut().unwrap().remove(member)),
                }
                body
            };
            for value in &wrong {
                sound(execd.post(path, &with(Some(value.clone()))).await, &format!("{path} {member}={value}")).await;
            }
            // What is neither text, number nor truth is wrong for every member.
            let nested = execd.post(path, &with(Some(json!({"a": {"b": []}})))).await;
            assert_eq!(code(nested).await.0, 400, "{path} {member}");
            // Null is the same as missing; some clients write every member.
            let (missing, null) =
                (execd.post(path, &with(None)).await, execd.post(path, &with(Some(Value::Null))).await);
            let (missing, null) = (sound(missing, member).await, sound(null, member).await);
            assert_eq!(missing, null, "{path} {member}");
            if needed.contains(&member.as_str()) {
                assert_eq!(missing, 400, "{path} {member}");
            }
        }
        let mut more = body.clone();
        more["unheard_of"] = json!({"x": [1]});
        assert!(sound(execd.post(path, &more).await, path).await < 300, "unknown members are passed over: {path}");
    }
    settled(&execd, before).await;
}

#[tokio::test]
async fn bodies_that_are_huge_or_never_come() {
    let execd = Execd::open();
    let before = held(&execd);
    let mut silent = Vec::new();
    for (path, verbs) in places(&execd).await {
        if !verbs.iter().any(|verb| verb == "POST") {
            continue;
        }
        let huge = execd.client.post(execd.url(&path)).body("x".repeat(5 << 20)).send().await.unwrap();
        assert!((400..500).contains(&code(huge).await.0), "{path}");
        // Ten bytes are promised and one comes.
        let mut socket = TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 10\r\n\r\n{{"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        silent.push(socket);
    }
    // They hold nobody up.
    assert_eq!(execd.shell("echo quick").await.stdout(), ["quick"]);
    drop(silent);
    settled(&execd, before).await;
}

#[tokio::test]
async fn bytes_that_are_no_http() {
    let execd = Execd::open();
    let before = held(&execd);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /command HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /command HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /command HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /files/info?path=\xFF HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "an answer or an end within the time: {bytes:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 2") && !answer.starts_with(b"HTTP/1.1 5"), "{bytes:?}");
    }
    settled(&execd, before).await;
}
