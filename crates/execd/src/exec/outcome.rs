//! How an execution ended, and how that is told.

use std::time::Duration;

use jiff::Timestamp;

use crate::sys::ExitStatus;

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ended by itself or by a signal.
    Ended(ExitStatus),
    /// It could not be started.
    NotStarted {
        /// 127 where nothing of that name is, 126 for any other reason.
        code: i32,
        /// The system's reason.
        reason: String,
    },
    /// It ended, but its status could not be had.
    Unknown,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The end of its process.
    pub end: End,
    /// Its timeout was reached.
    pub timed_out: Option<Duration>,
    /// A stop was asked for.
    pub stopped: bool,
    /// It ended as by KILL, and the kernel had killed for want of memory meanwhile.
    pub out_of_memory: bool,
    /// When.
    pub finished_at: Timestamp,
    /// How long it ran.
    pub elapsed: Duration,
    /// Offset in the journal up to which its output belongs before the end.
    pub output_end: u64,
}

impl Outcome {
    /// An end now of which nothing else is known: nobody saw it run.
    pub fn unseen(end: End) -> Self {
        Self {
            end,
            timed_out: None,
            stopped: false,
            out_of_memory: false,
            finished_at: Timestamp::now(),
            elapsed: Duration::ZERO,
            output_end: 0,
        }
    }

    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.end == End::Ended(ExitStatus::Code(0))
    }

    /// The exit code as the published wire has it: -1 for a signal.
    pub fn wire_code(&self) -> i32 {
        match &self.end {
            End::Ended(ExitStatus::Code(code)) => *code,
            End::Ended(ExitStatus::Signal { .. }) => -1,
            End::NotStarted { code, .. } => *code,
            End::Unknown => 1,
        }
    }

    /// The exit code as a shell has it: 128 + signal.
    pub fn shell_code(&self) -> i32 {
        match &self.end {
            End::Ended(ExitStatus::Signal { number, .. }) => 128 + number,
            _ => self.wire_code(),
        }
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        match self.end {
            End::Ended(ExitStatus::Signal { number, .. }) => Some(number),
            _ => None,
        }
    }

    /// `exit status 3`, `signal: killed`, `signal: segmentation fault (core dumped)`, or why it could not start.
    pub fn describe(&self) -> String {
        match &self.end {
            End::Ended(ExitStatus::Code(code)) => format!("exit status {code}"),
            End::Ended(ExitStatus::Signal { number, core }) => {
                let dumped = if *core { " (core dumped)" } else { "" };
                format!("signal: {}{dumped}", signal_name(*number))
            }
            End::NotStarted { reason, .. } => reason.clone(),
            End::Unknown => "exit status unknown".to_owned(),
        }
    }

    /// All that a person should know of a failure; the first line is [`Self::describe`].
    pub fn details(&self) -> Vec<String> {
        let mut lines = vec![self.describe()];
        if let Some(limit) = self.timed_out {
            lines.push(format!("timeout: the process group was killed after {} ms", limit.as_millis()));
        } else if self.stopped {
            lines.push("interrupted on request".to_owned());
        } else if self.out_of_memory {
            lines.push("out of memory: the kernel killed a process of this sandbox".to_owned());
        }
        lines
    }
}

/// A signal in words, as the system describes it.
pub fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Whether an end looks like that by KILL: its own, or that of a child as a shell tells it.
pub fn looks_killed(end: &End) -> bool {
    matches!(end, End::Ended(ExitStatus::Signal { number: 9, .. } | ExitStatus::Code(137)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: End) -> Outcome {
        let zero = Duration::ZERO;
        Outcome {
            end,
            timed_out: None,
            stopped: false,
            out_of_memory: false,
            finished_at: Timestamp::UNIX_EPOCH,
            elapsed: zero,
            output_end: 0,
        }
    }

    #[test]
    fn codes_and_words() {
        for (end, wire, shell, words) in [
            (End::Ended(ExitStatus::Code(0)), 0, 0, "exit status 0"),
            (End::Ended(ExitStatus::Code(3)), 3, 3, "exit status 3"),
            (End::Ended(ExitStatus::Signal { number: 9, core: false }), -1, 137, "signal: killed"),
            (End::Ended(ExitStatus::Signal { number: 6, core: true }), -1, 134, "signal: aborted (core dumped)"),
            (End::NotStarted { code: 127, reason: "x: not found".into() }, 127, 127, "x: not found"),
        ] {
            let outcome = outcome(end);
            assert_eq!((outcome.wire_code(), outcome.shell_code(), outcome.describe().as_str()), (wire, shell, words));
        }
    }

    #[test]
    fn a_timeout_is_named() {
        let end = End::Ended(ExitStatus::Signal { number: 9, core: false });
        let outcome = Outcome { timed_out: Some(Duration::from_millis(50)), ..outcome(end) };
        assert_eq!(outcome.details(), ["signal: killed", "timeout: the process group was killed after 50 ms"]);
    }
}
