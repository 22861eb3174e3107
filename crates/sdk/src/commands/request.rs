//! What to run and how.

use std::time::Duration;

use api_types::execd::{RunCommandRequest, RunRequest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{Error, Result};

/// Bytes of output kept in memory unless set.
const DEFAULT_OUTPUT_LIMIT: usize = 64 << 20;

/// A command to run.
///
/// ```
/// use std::time::Duration;
/// use opensandbox::RunCommand;
///
/// let build = RunCommand::shell("make all").cwd("/src").env("CC", "clang").timeout(Duration::from_secs(300));
/// let exact = RunCommand::argv(["printf", "%s", "no shell looks at $THIS"]);
/// # let _ = (build, exact);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing runs before it is given to run_with or stream"]
pub struct RunCommand {
    body: RunRequest,
    timeout: Option<Duration>,
    output_limit: usize,
    exact: bool,
}

impl RunCommand {
    /// Shell text.
    pub fn shell(command: impl Into<String>) -> Self {
        Self::new(RunCommandRequest { command: Some(command.into()), ..RunCommandRequest::default() })
    }

    /// Program and arguments, run without a shell.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self::new(RunCommandRequest { argv: Some(argv), ..RunCommandRequest::default() })
    }

    fn new(request: RunCommandRequest) -> Self {
        let body = RunRequest { published: request, ..RunRequest::default() };
        Self { body, timeout: None, output_limit: DEFAULT_OUTPUT_LIMIT, exact: false }
    }

    /// Sets the working directory, which must exist.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.body.published.cwd = Some(directory.into());
        self
    }

    /// Sets a variable over the sandbox's own environment.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.body.published.envs.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// Sets after how long the whole process group is killed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Runs as this user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.body.published.uid = Some(i64::from(uid));
        self
    }

    /// Runs as this group; needs a user too.
    pub fn gid(mut self, gid: u32) -> Self {
        self.body.published.gid = Some(i64::from(gid));
        self
    }

    /// Runs as this user, by name or number; home, user name and log name follow.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.body.user = Some(user.into());
        self
    }

    /// Gives these bytes to its standard input, which has nothing otherwise.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.body.stdin_base64 = Some(STANDARD.encode(bytes));
        self
    }

    /// Leaves its standard input open for [`Commands::write_stdin`](crate::Commands::write_stdin).
    pub fn open_stdin(mut self) -> Self {
        self.body.stdin_open = Some(true);
        self
    }

    /// Stops it when nobody reads its stream any more, so also when this program or its network goes: its stream is
    /// then not taken up again.
    pub fn kill_on_disconnect(mut self) -> Self {
        self.body.kill_on_disconnect = Some(true);
        self
    }

    /// Takes its output as the bytes that were written, in pieces instead of lines, see
    /// [`OutputMessage::exact`](crate::OutputMessage::exact). Daemons that only know lines give lines.
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Returns once it has started; its output is had by [`Commands::logs`](crate::Commands::logs).
    pub fn background(mut self) -> Self {
        self.body.published.background = Some(true);
        self
    }

    /// Sets how many bytes of output [`Execution`](crate::Execution) keeps; 64 MiB when not set.
    /// What comes after is counted, not kept.
    pub fn keep_output(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    pub(crate) fn output_limit(&self) -> usize {
        self.output_limit
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The request, if it can be made.
    pub(crate) fn request(self) -> Result<RunRequest> {
        let mut body = self.body;
        let request = &mut body.published;
        let blank = request.command.as_ref().is_some_and(|text| text.trim().is_empty());
        let no_program = request.argv.as_ref().is_some_and(|argv| argv.first().is_none_or(String::is_empty));
        if blank || no_program {
            return Err(Error::invalid("run command: there is no command"));
        }
        if request.gid.is_some() && request.uid.is_none() {
            return Err(Error::invalid("run command: a group needs a user; set uid too"));
        }
        if let Some(timeout) = self.timeout {
            // 0 would mean none.
            let millis = timeout.as_millis().max(1);
            request.timeout =
                Some(i64::try_from(millis).map_err(|_| Error::invalid("run command: the timeout is too long"))?);
        }
        Ok(body)
    }

    /// The request of a run in a session, which has its variables and user already.
    pub(crate) fn session_request(self) -> Result<(RunRequest, bool)> {
        let exact = self.exact;
        let body = self.request()?;
        let RunCommandRequest { argv, background, uid, gid, envs, .. } = &body.published;
        let foreign = argv.is_some() || background.is_some() || uid.is_some() || gid.is_some() || envs.is_some();
        if foreign || (RunRequest { published: body.published.clone(), ..RunRequest::default() }) != body {
            let what = "run in session: a session takes shell text, a working directory and a timeout only; \
                        set variables with export";
            return Err(Error::invalid(what));
        }
        Ok((body, exact))
    }
}

impl From<&str> for RunCommand {
    fn from(command: &str) -> Self {
        Self::shell(command)
    }
}

impl From<String> for RunCommand {
    fn from(command: String) -> Self {
        Self::shell(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_is_refused() {
        assert!(RunCommand::shell(" \n").request().is_err());
        assert!(RunCommand::argv(Vec::<String>::new()).request().is_err());
        assert!(RunCommand::shell("id").gid(1).request().is_err());
    }

    #[test]
    fn the_wire_has_milliseconds_and_only_what_was_set() {
        let request =
            RunCommand::argv(["id"]).uid(1).gid(2).timeout(Duration::from_nanos(1)).background().request().unwrap();
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"argv":["id"],"background":true,"timeout":1,"uid":1,"gid":2}"#
        );
    }
}
