//! Commands in a running container, as the node starts them: probes, hooks, and what users run.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::shim::client::{Session, Shim, ShimError};
use crate::shim::proto::{ExecProcess, Reply, Request};

/// Most output of a probe or hook that is kept.
const MAX_OUTPUT: u64 = 10 * 1024;

/// A running command.
pub struct Command {
    /// Its connection to the shim: closing it ends the command.
    pub session: Session,
    /// Writing end of its standard input.
    pub stdin: Option<OwnedFd>,
    /// Reading end of its standard output.
    pub stdout: Option<OwnedFd>,
    /// Reading end of its standard error.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
}

/// Which of a command's streams are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal in place of all three.
    pub tty: bool,
}

/// Starts a command.
pub async fn start(shim: &Shim, container: &str, command: Vec<String>, wanted: Wanted) -> Result<Command, ShimError> {
    let mut session = shim.connect().await?;
    let request = Request::Exec(ExecProcess { container: container.to_owned(), command, tty: wanted.tty });
    let mut ours: [Option<OwnedFd>; 3] = [None, None, None];
    if wanted.tty {
        session.send(&request, &[]).await?;
    } else {
        let mut theirs = Vec::with_capacity(3);
        for (index, asked) in [wanted.stdin, wanted.stdout, wanted.stderr].into_iter().enumerate() {
            if asked {
                let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
                let (mine, its) = if index == 0 { (write, read) } else { (read, write) };
                ours[index] = Some(mine);
                theirs.push(its);
            } else {
                theirs.push(std::fs::File::options().read(true).write(true).open("/dev/null")?.into());
            }
        }
        let numbers: Vec<i32> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        session.send(&request, &numbers).await?;
    }
    match session.receive().await? {
        Reply::Running { .. } => {}
        Reply::Failed { kind, message } => return Err(ShimError::Failed { kind, message }),
        _ => return Err(ShimError::Protocol),
    }
    let terminal = if wanted.tty { Some(session.take_fds().pop().ok_or(ShimError::Protocol)?) } else { None };
    let [stdin, stdout, stderr] = ours;
    Ok(Command { session, stdin, stdout, stderr, terminal })
}

impl Command {
    /// Waits for the command's end.
    pub async fn wait(session: &mut Session) -> Result<i32, ShimError> {
        match session.receive().await? {
            Reply::Exited { code } => Ok(code),
            _ => Err(ShimError::Protocol),
        }
    }
}

/// Runs a command to its end, within `patience`; returns its exit code and its output. `None` when the time is over,
/// and then it has been killed.
pub async fn run(
    shim: &Shim,
    container: &str,
    command: Vec<String>,
    patience: Duration,
) -> Result<Option<(i32, String)>, ShimError> {
    let run = async {
        let wanted = Wanted { stdout: true, ..Wanted::default() };
        let mut command = start(shim, container, command, wanted).await?;
        let mut output = Vec::new();
        if let Some(fd) = command.stdout.take() {
            let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(fd)?;
            let _ = receiver.take(MAX_OUTPUT).read_to_end(&mut output).await;
        }
        let code = Command::wait(&mut command.session).await?;
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    };
    match tokio::time::timeout(patience, run).await {
        Ok(result) => result.map(Some),
        Err(_) => Ok(None),
    }
}
