//! `execd run -- CMD`: the container's main process beside the daemon, for images without a shell.

use std::ffi::OsString;
use std::io;

use nix::libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exec::Child;
use crate::sys::{self, ExitStatus, Input, Sink, SpawnPlan};

/// Signals that are passed on to the main process.
const FORWARDED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// The main process, and the signals it is to get.
pub struct MainProcess {
    child: Child,
    signals: Vec<(i32, Signal)>,
}

impl MainProcess {
    /// Starts it with the daemon's own input and output and the whole environment.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(argv: &[OsString]) -> io::Result<Self> {
        // Listened to before the start, so that none falls between.
        let listen = |number| Ok((number, signal(SignalKind::from_raw(number))?));
        let signals = FORWARDED.into_iter().map(listen).collect::<io::Result<_>>()?;
        let env: Vec<_> = crate::envs::base(std::env::vars_os()).into_iter().collect();
        let plan =
            SpawnPlan { argv, env: &env, cwd: None, credentials: None, sink: Sink::Inherit, input: Input::Inherit };
        Ok(Self { child: Child::lasting(sys::spawn(plan)?)?, signals })
    }

    /// Passes signals on until it has ended; its exit code as a shell tells it.
    pub async fn wait(mut self) -> i32 {
        loop {
            let received = futures::future::select_all(self.signals.iter_mut().map(|(number, signal)| {
                Box::pin(async {
                    signal.recv().await;
                    *number
                })
            }));
            tokio::select! {
                _ = self.child.exited() => break,
                (number, _, _) = received => self.child.signal_group(number),
            }
        }
        match self.child.reap() {
            Some(ExitStatus::Code(code)) => code,
            Some(ExitStatus::Signal { number, .. }) => 128 + number,
            None => 1,
        }
    }
}
