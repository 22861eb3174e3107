//! The shell of a session: one process that lives from run to run.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::libc::SIGKILL;
use tokio::net::unix::pipe;

use super::script;
use crate::envs::Env;
use crate::exec::Child;
use crate::sys::{self, Input, Sink, SpawnPlan};

/// A running shell.
pub struct Shell {
    /// The process, leader of a group.
    pub child: Child,
    words: pipe::Sender,
    /// Held open so that the shell can open it.
    _words_read: OwnedFd,
    /// What it answers.
    answers: pipe::Receiver,
    answers_write: OwnedFd,
}

impl Shell {
    /// Starts one.
    ///
    /// # Errors
    /// The sandbox has no shell, or no room for a process.
    pub fn start(program: OsString, bash: bool, env: &Env, cwd: Option<&PathBuf>) -> io::Result<Self> {
        let (words_read, words) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (answers, answers_write) = crate::exec::pipe()?;
        let mut argv = vec![program];
        if bash {
            argv.extend(["--noprofile".into(), "--norc".into()]);
        }
        argv.push(script::descriptor(words_read.as_raw_fd()).into());
        let null = || -> io::Result<OwnedFd> { Ok(std::fs::File::options().write(true).open("/dev/null")?.into()) };
        let env: Vec<_> = env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let spawned = sys::spawn(SpawnPlan {
            argv: &argv,
            env: &env,
            cwd,
            credentials: None,
            sink: Sink::Split(null()?, null()?),
            input: Input::Null,
        })?;
        Ok(Self {
            child: Child::new(spawned)?,
            words: pipe::Sender::from_owned_fd(words)?,
            _words_read: words_read,
            answers,
            answers_write,
        })
    }

    /// Says as much of these words as it takes now; how many bytes. Cancel-safe.
    pub async fn write_some(&self, words: &[u8]) -> usize {
        loop {
            if self.words.writable().await.is_err() {
                std::future::pending::<()>().await;
            }
            match self.words.try_write(words) {
                Ok(count) => return count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // It has ended; whoever waits for that will see it.
                Err(_) => std::future::pending::<()>().await,
            }
        }
    }

    /// What it says next. Cancel-safe.
    pub async fn hear(&self) -> Vec<u8> {
        loop {
            if self.answers.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
            let mut bytes = Vec::with_capacity(4096);
            match self.answers.try_read_buf(&mut bytes) {
                Ok(count) if count > 0 => return bytes,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                _ => std::future::pending::<()>().await,
            }
        }
    }

    /// The descriptor by which it answers.
    pub fn answer_descriptor(&self) -> i32 {
        self.answers_write.as_raw_fd()
    }

    /// Its working directory.
    pub fn cwd(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.child.pid())).ok()
    }

    /// Ends it alone: what it left in the background lives on.
    pub fn end(mut self) {
        let _ = self.child.signal(SIGKILL);
        tokio::spawn(async move {
            let _ = self.child.exited().await;
            self.child.reap();
        });
    }
}
