//! The Rust SDK against the real daemon: streams over connections that are cut, sessions, terminals, ports, directories, changes.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::get};
use e2e::execd::Execd;
use futures::TryStreamExt;
use opensandbox::{
    AttachTerminal, Client, ConnectionConfig, Error, ErrorCode, Event, FileChange, NewTerminal, PortEvent, RunCommand,
    Sandbox, TerminalEnd,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon of the test's own, as built with the platform.
struct Daemon(Execd);

impl Daemon {
    fn start() -> Self {
        let binaries = e2e::platform::binaries().expect("the platform's binaries");
        Self(Execd::start(&binaries.join("execd")).expect("execd starts"))
    }

    fn path(&self, name: &str) -> String {
        self.0.dir.path().join(name).display().to_string()
    }

    async fn sandbox(&self) -> Sandbox {
        sandbox(self.0.address).await
    }
}

/// A sandbox whose daemon is at this address, as far as the lifecycle API is asked.
async fn sandbox(daemon: SocketAddr) -> Sandbox {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let endpoint = move || async move { Json(serde_json::json!({ "endpoint": daemon.to_string() })) };
    let routes = Router::new().route("/v1/sandboxes/{id}/endpoints/{port}", get(endpoint));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let config = ConnectionConfig::new(server.to_string()).stream_idle_timeout(Duration::from_secs(20));
    Client::new(config).unwrap().attach("s1")
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it takes too long")
}

/// Passes connections on to the daemon and cuts the answer of each after so many bytes; those beyond the list whole.
struct Cutter {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn cutter(daemon: SocketAddr, limits: Vec<usize>) -> Cutter {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let limit = limits.get(counter.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(usize::MAX);
            tokio::spawn(pass(client, daemon, limit));
        }
    });
    Cutter { address, connections }
}

async fn pass(client: TcpStream, daemon: SocketAddr, limit: usize) {
    let server = TcpStream::connect(daemon).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let _ = tokio::io::copy(&mut from_server.take(limit as u64), &mut to_client).await;
    up.abort();
    // A reset, as a network gives, not a polite end: what waits unread makes the kernel send one.
}

/// Lines of both streams with odd lengths, an empty one, and letters of several bytes.
const SCRIPT: &str = r#"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    printf 'line %d äöü %0*d\n' $i $((i * 3)) 0; [ $i = 5 ] && echo; [ $((i % 4)) = 0 ] && printf 'err %d\n' $i >&2
done; printf 'no end'; exit 7"#;

fn expected() -> (String, String) {
    let mut out = String::new();
    let mut err = String::new();
    for i in 1..=12 {
        out += &format!("line {i} äöü {:0width$}\n", 0, width = i * 3);
        if i == 5 {
            out.push('\n');
        }
        if i % 4 == 0 {
            err += &format!("err {i}\n");
        }
    }
    (out + "no end", err)
}

async fn output(sandbox: &Sandbox, exact: bool) -> (String, String, Option<i32>) {
    let command = RunCommand::shell(SCRIPT);
    let command = if exact { command.exact() } else { command };
    let mut events = sandbox.commands().stream(command).await.unwrap();
    let (mut out, mut err, mut code) = (Vec::new(), Vec::new(), None);
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            Event::Stdout(message) => message.write_to(&mut out),
            Event::Stderr(message) => message.write_to(&mut err),
            Event::Failed(error) => code = error.exit_code(),
            Event::Gap { .. } => panic!("a gap"),
            _ => {}
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), code)
}

/// Bytes of the answer's head and first event, before which there is nothing to go on from.
async fn head(execd: &Daemon) -> usize {
    let body = r#"{"command":"sleep 1000"}"#;
    let mut stream = TcpStream::connect(execd.0.address).await.unwrap();
    let request = format!(
        "POST /command HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(2).any(|w| w == b"}\n") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    seen.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_anywhere_goes_on_at_the_exact_byte() {
    let execd = Daemon::start();
    let head = head(&execd).await + 40;
    let (want_out, want_err) = expected();
    let whole = output(&execd.sandbox().await, true).await;
    assert_eq!(whole, (want_out.clone(), want_err.clone(), Some(7)));
    let positions: Vec<usize> = (head..head + 2200).step_by(23).collect();
    let mut cut = 0;
    for exact in [true, false] {
        for at in &positions {
            // The first connection, and two that take it up again at other places.
            let proxy = cutter(execd.0.address, vec![*at, 600 + at % 97, 700 + at % 53]).await;
            let sandbox = sandbox(proxy.address).await;
            let (out, err, code) = in_time(output(&sandbox, exact)).await;
            let (out, want) = if exact { (out, want_out.clone()) } else { (out, format!("{want_out}\n")) };
            assert_eq!((out, err, code), (want, want_err.clone(), Some(7)), "cut at {at}, exact {exact}");
            cut += usize::from(proxy.connections.load(Ordering::SeqCst) > 1);
        }
    }
    assert!(cut > positions.len() / 2, "only {cut} of {} streams were cut", 2 * positions.len());
}

#[tokio::test]
async fn an_outage_that_does_not_end_is_told() {
    let execd = Daemon::start();
    let head = head(&execd).await;
    // Every later connection breaks before its answer has begun.
    let limits: Vec<usize> = std::iter::once(head + 40).chain(std::iter::repeat_n(10, 10_000)).collect();
    let proxy = cutter(execd.0.address, limits).await;
    let listener = sandbox(proxy.address).await;
    let config = listener.client().config().clone().stream_idle_timeout(Duration::from_millis(300));
    let short = Client::new(config).unwrap().attach("s1");
    let error = in_time(short.commands().run("echo a; sleep 1000")).await.unwrap_err();
    let Error::StreamInterrupted { execution_id: Some(id), .. } = &error else { panic!("{error:?}") };
    // It runs on, and can be followed by another client from the beginning.
    let direct = execd.sandbox().await;
    assert!(direct.commands().status(id).await.unwrap().running);
    let mut events = direct.commands().follow(id, None).await.unwrap();
    let first = in_time(events.try_next()).await.unwrap();
    assert!(matches!(first, Some(Event::Started { id: seen, .. }) if seen == *id));
    assert!(matches!(in_time(events.try_next()).await.unwrap(), Some(Event::Stdout(line)) if line.text() == "a"));
    let cursor = events.cursor().unwrap().to_owned();
    direct.commands().interrupt(id).await.unwrap();
    let rest = direct.commands().follow(id, Some(&cursor)).await.unwrap().collect_execution(1 << 20).await.unwrap();
    assert_eq!((rest.stdout.len(), rest.exit_code), (0, Some(-1)));
}

#[tokio::test]
async fn a_command_reads_what_is_given_to_it() {
    let execd = Daemon::start();
    let commands = execd.sandbox().await.commands();
    let bytes: Vec<u8> = (0..=255).collect();
    let echo = commands.run_with(RunCommand::argv(["cat"]).stdin(&bytes).exact()).await.unwrap();
    let back: Vec<u8> = echo.stdout.iter().flat_map(|m| m.exact().unwrap().to_vec()).collect();
    assert_eq!(back, bytes);
    let mut events = commands.stream(RunCommand::shell("sort").open_stdin()).await.unwrap();
    let Some(Event::Started { id, .. }) = events.try_next().await.unwrap() else { panic!("not started") };
    commands.write_stdin(&id, "b\n", false).await.unwrap();
    commands.write_stdin(&id, "a\n", true).await.unwrap();
    assert_eq!(in_time(events.collect_execution(100)).await.unwrap().stdout.first().unwrap().text(), "a");
}

#[tokio::test]
async fn a_session_keeps_what_was_set() {
    let execd = Daemon::start();
    let sandbox = execd.sandbox().await;
    let envs = [("NAME".to_owned(), "world".to_owned())].into();
    let session = sandbox.sessions().create_with(Some(&execd.path("made")), &envs).await.unwrap();
    session.run("f() { echo \"hello $NAME$1 from ${PWD##*/}\"; }").await.unwrap();
    assert_eq!(session.run("f '!'").await.unwrap().stdout_text(), "hello world! from made");
    assert_eq!(session.run(RunCommand::shell("pwd").cwd("/")).await.unwrap().stdout_text(), "/");
    assert_eq!(session.run("exit 4").await.unwrap().exit_code, Some(4));
    assert!(session.info().await.unwrap().cwd.ends_with("made"));
    let mut running = session.stream("echo on; sleep 1000").await.unwrap();
    while !matches!(in_time(running.try_next()).await.unwrap(), Some(Event::Stdout(_))) {}
    assert_eq!(session.run("true").await.unwrap_err().code(), Some(ErrorCode::SessionBusy));
    assert!(session.run(RunCommand::argv(["id"])).await.is_err(), "what a session cannot do is refused here");
    assert_eq!(sandbox.sessions().list().await.unwrap().len(), 1);
    session.close().await.unwrap();
    assert_eq!(sandbox.sessions().list().await.unwrap(), []);
}

async fn sees(stream: &mut opensandbox::TerminalStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = in_time(stream.read_buf(&mut seen)).await.unwrap();
        assert!(read > 0, "{text:?} is not in {:?}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn a_terminal_is_left_and_come_back_to() {
    let execd = Daemon::start();
    let terminals = execd.sandbox().await.terminals();
    let terminal = terminals.create(NewTerminal::new().size(100, 30)).await.unwrap();
    let mut stream = terminal.attach().await.unwrap();
    stream.write_all(b"stty size; echo fir''st\n").await.unwrap();
    assert!(sees(&mut stream, "first").await.contains("30 100"));
    stream.resize(77, 11).await.unwrap();
    stream.write_all(b"stty size\n").await.unwrap();
    sees(&mut stream, "11 77").await;

    let refused = terminal.attach().await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::AlreadyConnected), "{refused:?}");
    let mut viewer = terminal.attach_with(AttachTerminal::new().viewer()).await.unwrap();
    sees(&mut viewer, "first").await;

    let offset = stream.offset();
    let mut second = terminal.attach_with(AttachTerminal::new().since(offset).takeover()).await.unwrap();
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(stream.end(), Some(TerminalEnd::TakenOver));
    second.write_all(b"echo sec''ond\n").await.unwrap();
    let seen = String::from_utf8(rest).unwrap() + &sees(&mut second, "second").await;
    assert!(!seen.contains("first"), "what was read is not given again: {seen:?}");
    drop(second);
    // The daemon learns that it left when its connection ends.
    let mut third = in_time(async {
        loop {
            match terminal.attach_with(AttachTerminal::new().since(terminal.info().await.unwrap().output_offset)).await
            {
                Ok(stream) => return stream,
                Err(error) => assert_eq!(error.code(), Some(ErrorCode::AlreadyConnected), "{error:?}"),
            }
        }
    })
    .await;
    third.write_all(b"exit 5\n").await.unwrap();
    let mut last = Vec::new();
    in_time(third.read_to_end(&mut last)).await.unwrap();
    assert_eq!((third.exit_code(), third.lost_bytes()), (Some(5), 0));
    terminal.close().await.unwrap();
    assert!(terminal.info().await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn ports_and_usage_are_told_as_they_change() {
    let execd = Daemon::start();
    let sandbox = execd.sandbox().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = listener.local_addr().unwrap().port();
    in_time(sandbox.port_opened(wanted)).await.unwrap();
    assert!(sandbox.ports().await.unwrap().iter().any(|port| port.port == wanted));
    let mut events = sandbox.watch_ports().await.unwrap();
    in_time(events.try_next()).await.unwrap();
    drop(listener);
    let closed = async {
        while let Some(event) = events.try_next().await.unwrap() {
            if event == (PortEvent::Closed { port: wanted }) {
                return;
            }
        }
    };
    in_time(closed).await;
    let mut seconds = sandbox.watch_usage().await.unwrap();
    let usage = in_time(seconds.try_next()).await.unwrap().unwrap();
    assert!(usage.metrics.cpu_count > 0.0 && usage.disk_total_mib.is_some());
}

fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name();
    walk.into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().to_owned();
            (name, std::fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn a_directory_goes_up_and_comes_down() {
    let execd = Daemon::start();
    let files = execd.sandbox().await.files();
    let local = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(local.path().join("a/empty")).unwrap();
    std::fs::write(local.path().join("a/large"), vec![7; 3 << 20]).unwrap();
    std::fs::write(local.path().join("ä.txt"), "text").unwrap();
    std::os::unix::fs::symlink("ä.txt", local.path().join("link")).unwrap();
    let told = Arc::new(std::sync::Mutex::new(opensandbox::Progress::default()));
    let teller = Arc::clone(&told);
    let remote = execd.path("up");
    let count = files.upload_dir(local.path(), &remote, move |p| *teller.lock().unwrap() = p).await.unwrap();
    let last = *told.lock().unwrap();
    assert_eq!((count, last.entries), (5, 5));
    assert!(last.bytes > 3 << 20);
    assert_eq!(tree(local.path()), tree(Path::new(&remote)));
    let back = local.path().join("back");
    assert_eq!(files.download_dir(&remote, &back, |_| {}).await.unwrap(), 5);
    assert_eq!(tree(&back), tree(Path::new(&remote)));
    assert_eq!(files.download_dir(&execd.path("none"), &back, |_| {}).await.unwrap_err().status(), Some(404));
    let not_there = files.upload_dir(local.path().join("none"), &remote, |_| {}).await.unwrap_err();
    assert!(matches!(not_there, Error::Io { .. }));
}

#[tokio::test]
async fn changes_of_files_are_told() {
    let execd = Daemon::start();
    let files = execd.sandbox().await.files();
    let dir = execd.path("watched");
    files.mkdir(&dir).await.unwrap();
    let mut changes = files.watch(&dir, true).await.unwrap();
    assert!(matches!(in_time(changes.try_next()).await.unwrap(), Some(FileChange::Watching { .. })));
    files.write(format!("{dir}/a"), "x").await.unwrap();
    let seen = async {
        while let Some(change) = changes.try_next().await.unwrap() {
            let (FileChange::Created { path } | FileChange::Moved { path, .. }) = change else { continue };
            if path.ends_with("/a") {
                return;
            }
        }
        panic!("it was not told");
    };
    in_time(seen).await;
}
