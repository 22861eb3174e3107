//! What the executor tells a supervisor, and the launch that comes of it.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::inject::{Launch, LaunchError, Target};
use crate::proc::{self, Credentials, EnvPair, ProcId};

/// Everything one task's supervisor needs. It may hold secrets, so it is never on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables over the container's own; the last of a name wins.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Seconds after which the process group is stopped.
    pub timeout_seconds: Option<u64>,
    /// Milliseconds between the polite and the final signal.
    pub grace_ms: u64,
    /// Bytes after which an output file is rotated.
    pub output_limit: u64,
    /// Where it runs.
    pub place: Where,
}

/// Where a task runs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Where {
    /// In the executor's container.
    Own,
    /// In the container of this process.
    Container(ProcId),
}

impl Plan {
    /// Looks at the target and puts the launch together.
    pub fn launch(&self, stdout: OwnedFd, stderr: OwnedFd) -> Result<Launch, LaunchError> {
        let (target, base) = match self.place {
            Where::Own => (None, proc::own_environ()),
            Where::Container(id) => {
                let gone = || LaunchError::Unavailable("the sandbox container's process has ended".into());
                let credentials = Credentials::read(id.pid).ok_or_else(gone)?;
                let env = proc::environ(id.pid).map_err(|e| {
                    LaunchError::Unavailable(format!(
                        "the sandbox container's environment can't be read ({e}); CAP_SYS_PTRACE is needed"
                    ))
                })?;
                if !id.exists() {
                    return Err(gone());
                }
                (Some(Target { id, credentials }), env)
            }
        };
        let env = overlay(base, &self.env);
        Ok(Launch { argv: self.argv.clone(), env, cwd: self.cwd.clone(), target, stdout, stderr })
    }
}

/// The last of a name wins and stands where the first stood.
fn overlay(mut base: Vec<EnvPair>, over: &[(String, String)]) -> Vec<EnvPair> {
    for (key, value) in over {
        let value = value.clone().into_bytes();
        match base.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some(entry) => entry.1 = value,
            None => base.push((key.clone().into_bytes(), value)),
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_wins() {
        let base = vec![(b"A".to_vec(), b"1".to_vec()), (b"B".to_vec(), b"2".to_vec())];
        let over = [("A", "3"), ("C", "4"), ("C", "5")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let got = overlay(base, &over);
        let want = [("A", "3"), ("B", "2"), ("C", "5")].map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        assert_eq!(got, want);
    }
}
