//! Starts containers and commands in them through the container runtime library, and clears up after them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{ProcessBuilder, Spec};

use super::payload::{Payload, read_report};
use super::proto::{FailureKind, RunUser, StartContainer, Tmpfs};
use super::user;
use crate::cgroup::{Hierarchies, OomWatch, wait_readable};
use crate::sys;

/// Why a container or command did not start.
#[derive(Debug)]
pub struct Failure {
    /// Kind, as the node tells them apart.
    pub kind: FailureKind,
    /// Reason, for the container's status.
    pub message: String,
}

/// A container that has been started, with the ends that the shim keeps.
pub struct Started {
    /// First process.
    pub pid: Pid,
    /// Reading end of its output, or its terminal's master.
    pub stdout: OwnedFd,
    /// Reading end of its standard error, where there is no terminal.
    pub stderr: Option<OwnedFd>,
    /// Writing end of its standard input, where that stays open.
    pub stdin: Option<OwnedFd>,
    /// Watch on its memory.
    pub oom: Option<OomWatch>,
}

/// Where a pod's containers are kept.
pub struct Places<'a> {
    /// The pod's directory.
    pub dir: &'a Path,
    /// The shim's own log, whose newest lines say why the runtime failed.
    pub log: &'a Path,
}

impl Places<'_> {
    fn container(&self, name: &str) -> PathBuf {
        self.dir.join("c").join(name)
    }

    fn runtime(&self) -> PathBuf {
        self.dir.join("rt")
    }

    fn rootfs(&self, name: &str) -> PathBuf {
        self.container(name).join("rootfs")
    }
}

fn create(message: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Create, message: message.to_string() }
}

/// Starts a container; `user` becomes who it runs as once that is known, whether it starts or not.
pub fn start(
    places: &Places<'_>,
    groups: &Hierarchies,
    request: &StartContainer,
    user: &mut Option<RunUser>,
) -> Result<Started, Failure> {
    let bundle = places.container(&request.name);
    let rootfs = places.rootfs(&request.name);
    mount_root(&bundle, &rootfs, &request.root.lower)
        .map_err(|error| create(format_args!("cannot mount the root file system: {error}")))?;
    for part in &request.sub_paths {
        crate::volumes::bind_sub_path(&part.volume, &part.part, &part.target)
            .map_err(|error| create(format_args!("failed to prepare subPath {}: {error}", part.part.display())))?;
    }
    let started = start_in(places, groups, request, &bundle, &rootfs, user);
    if started.is_err() {
        unmount(places, &request.name);
    }
    started
}

fn start_in(
    places: &Places<'_>,
    groups: &Hierarchies,
    request: &StartContainer,
    bundle: &Path,
    rootfs: &Path,
    user: &mut Option<RunUser>,
) -> Result<Started, Failure> {
    let identity =
        user::resolve(rootfs, &request.user).map_err(|message| Failure { kind: FailureKind::Config, message })?;
    *user = Some(identity.told());
    let mut spec = request.spec.clone();
    let (arguments, environment) = complete(&mut spec, rootfs, &identity);
    make_working_directory(rootfs, &spec).map_err(|error| {
        let cwd = spec.process().as_ref().map(|process| process.cwd().display().to_string()).unwrap_or_default();
        let reason = Errno::from_raw(error.raw_os_error().unwrap_or(0)).desc().to_lowercase();
        not_runnable(&format!("error during container init: mkdir {cwd}: {reason}"))
    })?;
    spec.save(bundle.join("config.json")).map_err(create)?;
    fs::create_dir_all(places.runtime()).map_err(create)?;

    let group = spec
        .linux()
        .as_ref()
        .and_then(|l| l.cgroups_path().as_ref())
        .map(|p| p.to_string_lossy().trim_start_matches('/').to_owned());
    let (stdout, stdout_end) = pipe2(OFlag::O_CLOEXEC).map_err(create)?;
    let (stderr, stderr_end) = pipe2(OFlag::O_CLOEXEC).map_err(create)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).map_err(create)?;
    let report_end = Rc::new(report_end);
    let (input, stdin) = if request.stdin && !request.tty {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(create)?;
        (read, Some(write))
    } else {
        (OwnedFd::from(fs::File::open("/dev/null").map_err(create)?), None)
    };
    let console = places.dir.join(format!("tty-{}", request.name));
    let listener = if request.tty { Some(listen(&console).map_err(create)?) } else { None };
    let payload = Payload::new(arguments, environment, Rc::clone(&report_end), request.seccomp);

    let mark = log_size(places.log);
    let built = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_executor(payload)
        .with_root_path(places.runtime())
        .map(|builder| match &listener {
            Some(_) => builder.with_console_socket(Some(console.clone())),
            None => builder.with_stdin(input).with_stdout(stdout_end).with_stderr(stderr_end),
        })
        .and_then(|builder| builder.as_init(bundle).with_systemd(false).with_detach(true).build());
    let _ = fs::remove_file(&console);
    let mut container = match built {
        Ok(container) => container,
        Err(error) => {
            drop(report_end);
            return Err(explain(&error, read_report(&report), places.log, mark));
        }
    };
    let pid = container.pid().ok_or_else(|| create("the runtime tells no process"))?;
    let pid = Pid::from_raw(pid.as_raw());
    // The limits are in force and nothing of the container has run: the watch misses nothing.
    let oom = match group.as_deref().map(|group| groups.watch_oom(group)) {
        Some(Ok(watch)) => watch,
        Some(Err(_)) | None => None,
    };
    let (stdout, stderr) = match &listener {
        None => (stdout, Some(stderr)),
        Some(listener) => match receive_terminal(listener) {
            Ok(terminal) => (terminal, None),
            Err(error) => {
                end_now(pid);
                return Err(create(format_args!("no terminal: {error}")));
            }
        },
    };
    let begun = container.start();
    drop(report_end);
    if let Err(error) = begun {
        end_now(pid);
        return Err(explain(&error, read_report(&report), places.log, mark));
    }
    if let Some(reason) = read_report(&report) {
        let _ = waitpid(pid, None);
        return Err(not_runnable(&reason));
    }
    for fd in [Some(&stdout), stderr.as_ref()].into_iter().flatten() {
        let _ = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    }
    Ok(Started { pid, stdout, stderr, stdin, oom })
}

fn not_runnable(reason: &str) -> Failure {
    Failure { kind: FailureKind::Start, message: format!("unable to start container process: {reason}") }
}

fn explain(error: &LibcontainerError, report: Option<String>, log: &Path, mark: u64) -> Failure {
    if let Some(reason) = report {
        return not_runnable(&reason);
    }
    // The library's errors pass process boundaries as bare text, without their causes; those are in the log.
    let detail: Vec<String> = fs::read(log)
        .ok()
        .and_then(|bytes| bytes.get(mark as usize..).map(|new| String::from_utf8_lossy(new).into_owned()))
        .unwrap_or_default()
        .lines()
        .take(3)
        .map(str::to_owned)
        .collect();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    if !detail.is_empty() {
        message = format!("{message} ({})", detail.join("; "));
    }
    create(message)
}

fn log_size(log: &Path) -> u64 {
    fs::metadata(log).map(|m| m.len()).unwrap_or(0)
}

fn end_now(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    let _ = waitpid(pid, None);
}

/// Puts the identity into the specification; returns what is to be executed.
fn complete(spec: &mut Spec, rootfs: &Path, identity: &user::Identity) -> (Vec<String>, Vec<String>) {
    let mut root = spec.root().clone().unwrap_or_default();
    root.set_path(rootfs.to_owned());
    spec.set_root(Some(root));
    let Some(process) = spec.process_mut() else { return (Vec::new(), Vec::new()) };
    let user = process.user_mut();
    user.set_uid(identity.uid).set_gid(identity.gid).set_additional_gids(Some(identity.groups.clone()));
    let mut environment = process.env().clone().unwrap_or_default();
    if process.terminal() == Some(true) && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", identity.home));
    }
    process.set_env(Some(environment.clone()));
    (process.args().clone().unwrap_or_default(), environment)
}

fn mount_root(bundle: &Path, rootfs: &Path, lower: &[PathBuf]) -> io::Result<()> {
    // A container that runs again starts from its image, not from what its last run left.
    for dir in ["upper", "work"] {
        let dir = bundle.join(dir);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
    }
    fs::create_dir_all(rootfs)?;
    let lower: Vec<String> = lower.iter().map(|path| escape(path)).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(&bundle.join("upper")),
        escape(&bundle.join("work")),
    );
    if options.len() >= 4096 {
        return Err(io::Error::other("the image has too many layers for one mount"));
    }
    mount(Some("overlay"), rootfs, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}

/// Mounts a volume in memory.
pub fn mount_tmpfs(volume: &Tmpfs) -> io::Result<()> {
    fs::create_dir_all(&volume.path)?;
    let mut options = format!("mode={:o}", volume.mode);
    if let Some(size) = volume.size {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &volume.path, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(())
}

/// Overlay's options are separated by `,` and layers by `:`.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Makes the working directory, as every runtime does, without ever following a link out of the root.
fn make_working_directory(rootfs: &Path, spec: &Spec) -> io::Result<()> {
    let Some(cwd) = spec.process().as_ref().map(|p| p.cwd().clone()) else { return Ok(()) };
    let root = fs::File::open(rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut so_far = PathBuf::from(".");
    for part in cwd.components() {
        let std::path::Component::Normal(name) = part else { continue };
        let parent = openat2(&root, &so_far, how)?;
        so_far.push(name);
        match openat2(&root, &so_far, how) {
            Ok(_) => {}
            Err(Errno::ENOENT) => nix::sys::stat::mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Takes a container's file system away. Its upper layer stays until the next run or the pod's end.
pub fn unmount(places: &Places<'_>, name: &str) {
    let _ = umount2(&places.rootfs(name), MntFlags::MNT_DETACH);
    let parts = places.container(name).join("sub");
    for part in fs::read_dir(parts).into_iter().flatten().flatten() {
        let _ = umount2(&part.path(), MntFlags::MNT_DETACH);
    }
}

/// Forgets a run that has ended.
pub fn forget(places: &Places<'_>, groups: &Hierarchies, name: &str, id: &str, group: &str) {
    unmount(places, name);
    let _ = fs::remove_dir_all(places.runtime().join(id));
    let _ = groups.remove(group);
}

/// A command that runs in a container.
pub struct Command {
    /// Its process.
    pub pid: Pid,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
}

/// Runs a command in a running container.
pub fn exec(
    places: &Places<'_>,
    container: &str,
    id: &str,
    command: Vec<String>,
    stdio: Option<[OwnedFd; 3]>,
    seccomp: bool,
    serial: u64,
) -> Result<Command, Failure> {
    let bundle = places.container(container);
    let spec = Spec::load(bundle.join("config.json")).map_err(create)?;
    let base = spec.process().as_ref().ok_or_else(|| create("the container has no process"))?;
    let mut environment = base.env().clone().unwrap_or_default();
    let tty = stdio.is_none();
    if tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    let mut process = ProcessBuilder::default()
        .args(command.clone())
        .env(environment.clone())
        .cwd(base.cwd().clone())
        .user(base.user().clone())
        .terminal(tty)
        .build()
        .map_err(create)?;
    process.set_capabilities(base.capabilities().clone());
    process.set_no_new_privileges(base.no_new_privileges());
    process.set_rlimits(base.rlimits().clone());
    let file = bundle.join(format!("exec-{serial}.json"));
    fs::write(&file, serde_json::to_vec(&process).map_err(create)?).map_err(create)?;

    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).map_err(create)?;
    let report_end = Rc::new(report_end);
    let payload = Payload::new(command, environment, Rc::clone(&report_end), seccomp);
    let mark = log_size(places.log);
    let console = places.dir.join(format!("tty-{serial}"));
    let listener = if tty { Some(listen(&console)) } else { None };
    let built = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(payload)
        .with_root_path(places.runtime())
        .map(|builder| match stdio {
            Some([stdin, stdout, stderr]) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
            None => builder.with_console_socket(Some(console.clone())),
        })
        .and_then(|builder| builder.as_tenant().with_detach(true).with_process(Some(file.clone())).build());
    drop(report_end);
    let _ = fs::remove_file(&file);
    let _ = fs::remove_file(&console);
    let pid = match built {
        Ok(pid) => Pid::from_raw(pid.as_raw()),
        Err(error) => return Err(explain(&error, read_report(&report), places.log, mark)),
    };
    if let Some(reason) = read_report(&report) {
        let _ = waitpid(pid, None);
        return Err(not_runnable(&reason));
    }
    let terminal = match listener {
        None => None,
        Some(listener) => match listener.and_then(|listener| receive_terminal(&listener)) {
            Ok(terminal) => Some(terminal),
            Err(error) => {
                end_now(pid);
                return Err(create(format_args!("no terminal: {error}")));
            }
        },
    };
    Ok(Command { pid, terminal })
}

fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    // The address of a socket is short and the pod's directory may not be: bind by a short name through its descriptor.
    let dir = fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn receive_terminal(listener: &std::os::unix::net::UnixListener) -> io::Result<OwnedFd> {
    let patience = Duration::from_secs(5);
    if !wait_readable(listener, patience) {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    let (socket, _) = listener.accept()?;
    if !wait_readable(&socket, patience) {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    let mut buffer = [0u8; 256];
    let (_, mut fds) = sys::recv_with_fds(&socket, &mut buffer)?;
    fds.pop().ok_or_else(|| io::Error::other("the runtime sent no descriptor"))
}
