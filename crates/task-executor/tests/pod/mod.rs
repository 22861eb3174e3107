//! A pod made by hand: a PID namespace with a pause process, a sandbox container with a root of its
//! own, and a container in which task-executor is started again whenever it ends.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(missing_docs, reason = "a helper of tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api_types::auth::{Signer, Verb};
use serde_json::{Value, json};

/// Longest time a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The capabilities containers commonly have.
pub const COMMON_CAPS: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
                               +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// Environment of an executor that does not look for execd.
pub fn without_execd() -> Vec<String> {
    vec!["STOP_GRACE_SECONDS=1".into(), "EXECD_HANDOVER_PORT=0".into()]
}

/// What a pod is made of.
pub struct Recipe {
    /// Bounding set of the executor, as setpriv takes it.
    pub executor_caps: String,
    /// Further arguments of setpriv for the sandbox container, e.g. its user.
    pub sandbox_user: &'static str,
    /// What the sandbox container runs.
    pub sandbox_command: String,
    /// Further environment of the executor, `K=V`.
    pub env: Vec<String>,
    /// A cgroup (v1, pids) into which the sandbox container goes.
    pub cgroup: Option<PathBuf>,
    /// Whether there is a sandbox container.
    pub sandbox: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            executor_caps: format!("{COMMON_CAPS},+sys_ptrace"),
            sandbox_user: "",
            sandbox_command: "sleep 1000".into(),
            env: without_execd(),
            cgroup: None,
            sandbox: true,
        }
    }
}

/// A running pod. Dropping it ends every process in it.
pub struct Pod {
    init: Child,
    pub data: tempfile::TempDir,
    pub port: u16,
    /// Signs calls where the pod carries a key.
    pub signer: Option<(Signer, String)>,
}

/// Says what is missing for a pod; `false` where anything is.
pub fn possible() -> bool {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root");
    }
    for tool in ["unshare", "setpriv", "pivot_root", "mount"] {
        let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(tool).exists());
        if !found {
            missing.push(tool);
        }
    }
    if missing.is_empty() && !Command::new("unshare").args(["-m", "-p", "-f", "true"]).status().unwrap().success() {
        missing.push("the right to make namespaces");
    }
    if !missing.is_empty() {
        eprintln!("skipped: this test needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const SANDBOX: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
mkdir usr proc dev tmp work old etc
mount --rbind -o ro /usr usr
for l in bin sbin lib lib64; do [ -L /$l ] && ln -s usr/$l $l; done
mount -t proc proc proc
mount --rbind /dev dev
chmod 1777 tmp work
echo sandbox > in-sandbox
printf '#!/no/such/interpreter\n' > work/torn; chmod 755 work/torn
hostname the-sandbox
pivot_root . old
umount -l old
cd /work
umask 027
exec setpriv --bounding-set "$CAPS" --inh-caps=-all $USER_ARGS \
  env -i PATH=/usr/bin:/bin HOME=/root FROM_SANDBOX=yes OVER=sandbox $COMMAND
"#;

impl Pod {
    /// Starts it and waits until the executor answers.
    pub fn start(recipe: Recipe) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = free_port();
        let root = data.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        let script = format!(
            r#"
mount --make-rprivate /
mount -t proc proc /proc
if [ -n "$SANDBOX" ]; then
  ( [ -z "$CGROUP" ] || echo 0 > "$CGROUP/cgroup.procs"; exec unshare -m -u -i sh -c "$SANDBOX" ) &
fi
unshare -m setpriv --bounding-set "{caps}" --inh-caps=-all sh -c 'while :; do env -i $EXECUTOR_ENV "$0"; done' {binary} &
exec sleep 100000
"#,
            caps = recipe.executor_caps,
            binary = env!("CARGO_BIN_EXE_task-executor"),
        );
        let executor_env = [
            format!("DATA_DIR={}", data.path().join("tasks").display()),
            format!("LISTEN_ADDR=127.0.0.1:{port}"),
            "FROM_EXECUTOR=yes PATH=/usr/bin:/bin RUST_LOG=debug".to_owned(),
        ]
        .into_iter()
        .chain(recipe.env.iter().cloned())
        .collect::<Vec<_>>()
        .join(" ");
        let init = Command::new("unshare")
            .args(["-m", "-p", "-f", "--kill-child", "sh", "-c", &script])
            .env("SANDBOX", if recipe.sandbox { SANDBOX } else { "" })
            .env("ROOT", &root)
            .env("CAPS", COMMON_CAPS)
            .env("USER_ARGS", recipe.sandbox_user)
            .env("COMMAND", &recipe.sandbox_command)
            .env("CGROUP", recipe.cgroup.as_deref().unwrap_or(Path::new("")))
            .env("EXECUTOR_ENV", executor_env)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let signer = recipe.env.iter().find_map(|e| e.strip_prefix("OPENSANDBOX_POD_UID=")).map(|pod| {
            let key = Signer::from_seed(&[7; 32]);
            (key, pod.to_owned())
        });
        let pod = Self { init, data, port, signer };
        pod.wait_healthy();
        if recipe.sandbox {
            // The sandbox container is made beside the executor; a task is sent when it stands.
            pod.wait_for("the sandbox container", || pod.pid_with("FROM_SANDBOX=yes").is_some());
        }
        pod
    }

    /// Waits for a condition that no event tells of from outside the pod.
    pub fn wait_for(&self, what: &str, mut met: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !met() {
            assert!(Instant::now() < end, "{what} did not come");
            std::thread::yield_now();
        }
    }

    pub fn wait_healthy(&self) {
        self.wait_for("the executor", || self.try_call("GET", "/health", b"", &[]).is_some_and(|a| a.0 == 200));
    }

    /// A process of this pod whose environment has this entry, by the number the host gives it.
    pub fn pid_with(&self, entry: &str) -> Option<i32> {
        self.pids().into_iter().find(|pid| {
            let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            env.split(|b| *b == 0).any(|e| e == entry.as_bytes())
        })
    }

    /// Every process of the pod.
    fn pids(&self) -> Vec<i32> {
        let unshare = self.init.id();
        let Ok(children) = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")) else {
            return Vec::new();
        };
        let Some(first) = children.split_whitespace().next() else { return Vec::new() };
        let ns = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(wanted) = ns(first) else { return Vec::new() };
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
        all.filter(|pid| pid.parse::<i32>().is_ok() && ns(pid).as_ref() == Some(&wanted))
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    /// Numbers of the pod's processes whose command line holds a text, zombies aside.
    pub fn pids_running(&self, text: &str) -> Vec<i32> {
        let runs = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
        };
        self.pids().into_iter().filter(runs).collect()
    }

    /// The executor itself.
    pub fn executor(&self) -> i32 {
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.strip_suffix(b"\0") == Some(env!("CARGO_BIN_EXE_task-executor").as_bytes())
        };
        self.pids().into_iter().find(is_it).expect("an executor runs")
    }

    pub fn kill(pid: i32) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// SIGKILLs the executor and waits for its successor.
    pub fn restart_executor(&self) {
        let old = self.executor();
        Self::kill(old);
        self.wait_for("the old executor's end", || {
            std::fs::read(format!("/proc/{old}/cmdline")).is_ok_and(|l| l.is_empty())
                || !Path::new(&format!("/proc/{old}")).exists()
        });
        self.wait_healthy();
    }

    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        headers: &[(&str, String)],
    ) -> Option<(u16, Value, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null), head.to_ascii_lowercase()))
    }

    /// One call, signed where the pod carries a key.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let raw = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let bare = path.split('?').next().unwrap();
        let (verb, signed) = match (method, bare) {
            (_, "/v1/claim") => (Verb::Claim, raw.clone()),
            (_, "/v1/claim/entrypoint") => (Verb::EntrypointStatus, Vec::new()),
            (_, "/v1/reset") => (Verb::Reset, raw.clone()),
            ("GET", _) => (Verb::GetTasks, Vec::new()),
            ("DELETE", path) => (Verb::SetTasks, path.trim_start_matches("/tasks/").as_bytes().to_vec()),
            _ => (Verb::SetTasks, raw.clone()),
        };
        let headers: Vec<(&str, String)> = self
            .signer
            .iter()
            .map(|(signer, pod)| {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                ("x-opensandbox-signature", signer.sign(&pod.as_str().into(), verb, &signed, now, 60))
            })
            .collect();
        let (status, value, _) = self.try_call(method, path, &raw, &headers).expect("an answer");
        (status, value)
    }

    /// Makes these tasks the wanted set; must be taken.
    pub fn set(&self, tasks: Value) -> Value {
        let (status, answer) = self.call("POST", "/setTasks", &tasks);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits by long polls until a task has ended; its whole `processStatus`.
    pub fn ended(&self, name: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let (_, tasks) = self.call("GET", "/getTasks?wait=10", &Value::Null);
            let task = tasks.as_array().unwrap().iter().find(|t| t["name"] == name).cloned();
            let status = task.unwrap_or_else(|| panic!("{name} is not in {tasks}"))["processStatus"].clone();
            if !status["terminated"].is_null() {
                return status;
            }
            assert!(Instant::now() < end, "{name} does not end: {status}");
        }
    }

    /// Stops everything and waits until it is gone.
    pub fn clear(&self) {
        let mut left = self.set(json!([]));
        let end = Instant::now() + DEADLINE;
        while left != json!([]) {
            assert!(Instant::now() < end, "left over: {left}");
            left = self.call("GET", "/getTasks?wait=10", &Value::Null).1;
        }
    }

    /// Runs a shell script as a task; its status and output.
    pub fn run(&self, name: &str, script: &str) -> (Value, String) {
        self.set(json!([{"name": name, "process": {"command": ["sh", "-c", script]}}]));
        let status = self.ended(name);
        let output = self.output(name);
        self.clear();
        (status, output)
    }

    pub fn output(&self, name: &str) -> String {
        let dir = self.data.path().join("tasks").join(format!("n.{name}"));
        let read = |f: &str| std::fs::read_to_string(dir.join(f)).unwrap_or_default();
        read("stdout.log") + &read("stderr.log")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let pids = self.pids();
        let _ = self.init.kill();
        let _ = self.init.wait();
        // The kernel ends the namespace's processes by itself, a moment later.
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end && pids.iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).is_symlink()) {
            std::thread::yield_now();
        }
    }
}

/// The value of a field of `/proc/PID/status` as a task printed it.
pub fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}")).trim()
}
