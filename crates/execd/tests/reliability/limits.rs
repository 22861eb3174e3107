//! Where the sandbox has used up its processes, its disk, its descriptors: execd says so, and goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::common::{DEADLINE, Execd, code};
use crate::held::{Held, children};

/// A cgroup for this test alone, of either version; gone when dropped.
struct Pids(PathBuf);

impl Pids {
    fn new(max: u32) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        let parent = if unified { root.to_owned() } else { root.join("pids") };
        let dir = parent.join(format!("execd-test-{}-{max}", std::process::id()));
        let fails = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir(&dir).map_err(fails)?;
        let this = Self(dir.clone());
        std::fs::write(dir.join("pids.max"), max.to_string()).map_err(fails)?;
        Ok(this)
    }

    fn add(&self, pid: u32) -> std::io::Result<()> {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    fn members(&self) -> usize {
        std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines().count()
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        // Its members end with the daemon; the kernel takes a moment to forget them.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("left behind: {}", self.0.display());
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_command_and_the_daemon_stays() {
    let pids = match Pids::new(64) {
        Ok(pids) => pids,
        Err(error) => {
            eprintln!("skipped: cannot make a cgroup with a limit of processes: {error}");
            return;
        }
    };
    let execd = Execd::open();
    pids.add(execd.pid()).unwrap();
    let before = Held::of(&execd);
    let bomb = json!({"command": "bomb() { bomb & bomb & wait; }; bomb 2>/dev/null", "timeout": 3000});
    let bombed = execd.run(&bomb);
    let meanwhile = async {
        let full = async {
            while pids.members() < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, full).await.expect("the bomb goes off");
        for _ in 0..20 {
            assert_eq!(execd.get("/ping").await.status(), 200);
            // File work needs a thread; more than one at once would need a new one.
            let all = futures::future::join_all((0..4).map(|_| execd.get("/files/info?path=/"))).await;
            assert!(all.iter().all(|answer| answer.status() == 200));
            let run = execd.run(&json!({"argv": ["true"]})).await;
            assert!(run.exit() == "0" || run.traceback()[0].starts_with("cannot start true"), "{:?}", run.traceback());
        }
    };
    let (run, ()) = tokio::join!(bombed, meanwhile);
    assert_eq!(run.exit(), "-1");
    assert!(run.traceback()[1].contains("timeout"), "{:?}", run.traceback());
    let alone = async {
        while pids.members() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, alone).await.expect("nothing is left of the bomb");
    assert_eq!(execd.shell("echo fine").await.stdout(), ["fine"]);
    assert_eq!(children(&execd), (0, 0));
    assert!(Held::of(&execd).threads <= before.threads + 8);
    drop(execd);
}

/// A small file system of its own on a disk; unmounted when dropped.
struct Disk {
    at: PathBuf,
    _image: tempfile::NamedTempFile,
}

impl Disk {
    fn new(mebibytes: u64) -> Result<Self, String> {
        let image = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
        image.as_file().set_len(mebibytes << 20).map_err(|e| e.to_string())?;
        let at = image.path().with_extension("mounted");
        std::fs::create_dir(&at).map_err(|e| e.to_string())?;
        let run = |program: &str, args: &[&str]| {
            let done =
                std::process::Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
            let told = String::from_utf8_lossy(&done.stderr).into_owned();
            if done.status.success() { Ok(()) } else { Err(format!("{program}: {told}")) }
        };
        let (file, dir) = (image.path().to_str().unwrap(), at.to_str().unwrap());
        let made = run("mkfs.ext4", &["-q", "-m", "0", file]).and_then(|()| run("mount", &["-o", "loop", file, dir]));
        if let Err(error) = made {
            let _ = std::fs::remove_dir(&at);
            return Err(error);
        }
        Ok(Self { at, _image: image })
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.at.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir(&self.at);
    }
}

#[tokio::test]
async fn a_full_disk_loses_no_byte_unsaid_and_breaks_nothing() {
    let disk = match Disk::new(160) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("skipped: cannot mount a small disk: {error}");
            return;
        }
    };
    let state = disk.at.join("state");
    let execd = Execd::with(&[("OPENSANDBOX_STATE_DIR", state.to_str().unwrap()), ("EXECD_JOURNAL_MEMORY", "2097152")]);
    assert_eq!(execd.shell("seq 1 1000000 | tail -n 1").await.stdout(), ["1000000"]);
    let filler = disk.fill();
    // Of what nobody reads the oldest is dropped, and a later reader is told how much.
    let written: u64 = 24 << 20;
    let command = json!({"command": format!("head -c {written} /dev/zero"), "background": true});
    let run = execd.run(&command).await;
    let status = async {
        loop {
            let status: Value = execd.get(&format!("/command/status/{}", run.id)).await.json().await.unwrap();
            if status["running"] == false {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, status).await.unwrap()["exit_code"], 0, "the program is not disturbed");
    let answer = execd.get(&format!("/command/{}/output?encoding=base64", run.id)).await.text().await.unwrap();
    let (mut came, mut lost) = (0, 0);
    for event in answer.split("\n\n").filter(|event| !event.is_empty()) {
        let event: Value = serde_json::from_str(event).unwrap();
        match event["type"].as_str() {
            Some("stdout") => came += event["text"].as_str().unwrap().len() as u64 / 4 * 3,
            Some("gap") => lost += event["bytes"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert!(lost > 0 && came + lost >= written && came + lost < written + 4096, "{came} came, {lost} lost");
    // A file that has no room leaves nothing, in the words of the catalogue.
    let metadata = json!({"path": disk.at.join("big")}).to_string();
    let form = Form::new()
        .part("metadata", Part::text(metadata).file_name("metadata"))
        .part("file", Part::bytes(vec![1; 3 << 20]).file_name("x"));
    let refused = execd.client.post(execd.url("/files/upload")).multipart(form).send().await.unwrap();
    assert_eq!(code(refused).await, (507, "DISK_FULL".into()));
    assert!(!disk.at.join("big").exists());
    let hidden = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".osb-");
    assert!(!std::fs::read_dir(&disk.at).unwrap().flatten().any(|entry| hidden(&entry)));
    // And when there is room again, it is used again.
    std::fs::remove_file(filler).unwrap();
    let whole = execd.shell("seq 1 500000").await;
    assert_eq!((whole.exit(), whole.stdout().len()), ("0", 500_000));
}

#[tokio::test]
async fn wherever_the_last_descriptor_is_taken_it_says_so_and_recovers() {
    let execd = Execd::open();
    let limit = |soft: u64| {
        let limit = nix::libc::rlimit { rlim_cur: soft, rlim_max: 65_536 };
        let pid = execd.pid().cast_signed();
        #[expect(unsafe_code, reason = "no safe wrapper sets another process's limits")]
        // SAFETY: the call reads the struct it is given.
        let done = unsafe { nix::libc::prlimit(pid, nix::libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        done == 0
    };
    let used = Held::of(&execd).descriptors as u64;
    let (mut refused, mut done) = (0, 0);
    // From no spare descriptor to enough: the last one is taken at another place each time.
    for spare in 1..24 {
        // Over the connection that is open already.
        assert_eq!(execd.get("/ping").await.status(), 200);
        if !limit(used + spare) {
            eprintln!("skipped: cannot set the limits of another process");
            return;
        }
        for body in [json!({"command": "echo x"}), json!({"command": "cat", "stdin": "x\n"})] {
            let run = execd.run(&body).await;
            match run.exit() {
                "0" => done += usize::from(run.stdout() == ["x"]),
                _ => {
                    let told = &run.traceback()[0];
                    assert!(told.contains("Too many open files"), "{spare} spare: {told}");
                    refused += 1;
                }
            }
        }
        for path in ["/files/info?path=/", "/ports", "/metrics", "/directories/list?path=/"] {
            let answer = execd.get(path).await;
            if answer.status() != 200 {
                code(answer).await;
            }
        }
        let made = execd.post("/pty", &json!({})).await;
        assert!(matches!(made.status().as_u16(), 200..=503));
        assert!(limit(4096));
        assert_eq!(children(&execd), (0, 0), "{spare} spare");
    }
    assert!(refused > 3 && done > 3, "{refused} refused, {done} done");
    for pty in execd.get("/pty").await.json::<Vec<Value>>().await.unwrap() {
        let id = pty["session_id"].as_str().unwrap().to_owned();
        execd.client.delete(execd.url(&format!("/pty/{id}"))).send().await.unwrap();
    }
    // One connection of the client may have come.
    assert!(Held::of(&execd).descriptors as u64 <= used + 2, "{used} {:?}", Held::of(&execd));
}
