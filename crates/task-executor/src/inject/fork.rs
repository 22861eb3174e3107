//! Fork, enter, run: the child reports over a pipe that exec closes, so its silence is success.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};

use super::{Launch, LaunchError, exec};
use crate::sys;

/// Longest time a start may take, e.g. on a filesystem that does not answer.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Starts the program in a child that first enters the container by `enter`.
pub fn launch(launch: &Launch, enter: impl FnOnce() -> Result<(), LaunchError>) -> Result<Pid, LaunchError> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| LaunchError::step("pipe", e))?;
    match sys::fork_single_threaded().map_err(|e| LaunchError::step("fork", e))? {
        ForkResult::Child => {
            drop(read);
            let error = prepare(launch).and_then(|()| enter()).map_or_else(|error| error, |()| exec::run(launch));
            report(write, &error);
            sys::exit_now(127)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let outcome = listen(read);
            if outcome.is_err() {
                let _ = kill(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
            }
            outcome.map(|()| child)
        }
    }
}

/// Own session and group, own standard streams, no signal masked, nothing left open.
fn prepare(launch: &Launch) -> Result<(), LaunchError> {
    setsid().map_err(|e| LaunchError::step("setsid", e))?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| LaunchError::step("open /dev/null", e))?;
    dup2_stdin(null.as_fd())
        .and_then(|()| dup2_stdout(launch.stdout.as_fd()))
        .and_then(|()| dup2_stderr(launch.stderr.as_fd()))
        .map_err(|e| LaunchError::step("set standard streams", e))?;
    sys::close_on_exec_from_3();
    sys::default_signals();
    SigSet::empty().thread_set_mask().map_err(|e| LaunchError::step("unmask signals", e))
}

fn report(pipe: OwnedFd, error: &LaunchError) {
    let text = match error {
        LaunchError::Unavailable(why) => format!("U{why}"),
        LaunchError::Start { code, message } => format!("S{code} {message}"),
    };
    let _ = File::from(pipe).write_all(text.as_bytes());
}

fn parse(text: &str) -> Result<(), LaunchError> {
    if let Some(why) = text.strip_prefix('U') {
        return Err(LaunchError::Unavailable(why.to_owned()));
    }
    match text.strip_prefix('S').and_then(|t| t.split_once(' ')) {
        Some((code, message)) => {
            Err(LaunchError::Start { code: code.parse().unwrap_or(126), message: message.to_owned() })
        }
        None => Ok(()),
    }
}

fn listen(pipe: OwnedFd) -> Result<(), LaunchError> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut pipe = File::from(pipe);
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(LaunchError::Unavailable("the start took longer than 20 s".into())),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(LaunchError::step("wait for the start", error)),
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk) {
            Ok(0) => return parse(&String::from_utf8_lossy(&text)),
            Ok(n) => text.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(error) => return Err(LaunchError::step("wait for the start", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for error in [
            LaunchError::Unavailable("setns mnt: EPERM".into()),
            LaunchError::Start { code: 127, message: "x can't be started: no".into() },
        ] {
            let (mut read, write) = std::io::pipe().unwrap();
            report(write.into(), &error);
            let mut text = String::new();
            read.read_to_string(&mut text).unwrap();
            assert_eq!(parse(&text), Err(error));
        }
        assert_eq!(parse(""), Ok(()));
    }
}
