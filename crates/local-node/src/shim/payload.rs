//! The last steps before a container's program runs, inside the container, and the program's name resolved there.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};
use oci_spec::runtime::Spec;

use crate::sys;

/// Runs one program in place of the runtime's own process.
#[derive(Clone)]
pub struct Payload {
    arguments: Vec<String>,
    environment: Vec<String>,
    /// Closes when the program runs; carries the reason when it does not.
    report: Rc<OwnedFd>,
    seccomp: bool,
}

impl Payload {
    /// A program with its arguments and environment; `report` must be close-on-exec.
    pub fn new(arguments: Vec<String>, environment: Vec<String>, report: Rc<OwnedFd>, seccomp: bool) -> Self {
        Self { arguments, environment, report, seccomp }
    }

    fn find(&self) -> Result<PathBuf, String> {
        let program = self.arguments.first().ok_or("no command specified")?;
        let search = self
            .environment
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or(crate::pod::spec::DEFAULT_PATH);
        find_program(program, search, |path| {
            match std::fs::metadata(path) {
                Ok(found) if found.is_dir() => return Err(Errno::EISDIR),
                Ok(_) => {}
                Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
            }
            access(path, AccessFlags::X_OK)
        })
    }

    fn fail(&self, message: &str) -> ExecutorError {
        let _ = nix::unistd::write(&*self.report, message.as_bytes());
        ExecutorError::Other(message.to_owned())
    }
}

/// Finds a program as execvp(3) does; the messages are those that users of Kubernetes know.
fn find_program(program: &str, search: &str, runnable: impl Fn(&Path) -> Result<(), Errno>) -> Result<PathBuf, String> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match runnable(&path) {
            Ok(()) => Ok(path),
            Err(Errno::ENOENT) => Err(format!("exec: {program:?}: stat {program}: no such file or directory")),
            Err(Errno::EISDIR) => Err(format!("exec: {program:?}: permission denied")),
            Err(errno) => Err(format!("exec: {program:?}: {}", errno.desc().to_lowercase())),
        };
    }
    let mut refused = None;
    for dir in search.split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(program);
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::EACCES) => refused = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(errno) => format!("exec: {program:?}: {}", errno.desc().to_lowercase()),
        None => format!("exec: {program:?}: executable file not found in $PATH"),
    })
}

impl Executor for Payload {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.find().map(drop).map_err(|message| {
            let _ = nix::unistd::write(&*self.report, message.as_bytes());
            ExecutorValidationError::ArgValidationError(message)
        })
    }

    /// The environment is handed to execve as it is; the process' own is never used.
    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let path = self.find().map_err(|message| self.fail(&message))?;
        let strings = |list: &[String]| -> Result<Vec<CString>, ExecutorError> {
            list.iter()
                .map(|text| CString::new(text.as_str()).map_err(|_| self.fail("exec: an argument contains a NUL byte")))
                .collect()
        };
        let arguments = strings(&self.arguments)?;
        let environment = strings(&self.environment)?;
        let program = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| self.fail("exec: the path contains a NUL byte"))?;
        sys::reset_signals();
        // A container does not outlive its shim, which alone could tell how it ended. Nothing between here and
        // execve may change credentials, which would clear this.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        if self.seccomp {
            super::seccomp::apply().map_err(|error| self.fail(&format!("seccomp: {error}")))?;
        }
        let Err(errno) = nix::unistd::execve(&program, &arguments, &environment);
        Err(self.fail(&format!("exec: {:?}: {}", self.arguments[0], errno.desc().to_lowercase())))
    }
}

/// Reads the report of a payload: `None` when its program runs.
pub fn read_report(report: &OwnedFd) -> Option<String> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        match nix::unistd::read(report, &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        if text.len() > 8192 {
            break;
        }
    }
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_run_is_told_as_kubernetes_users_know_it() {
        let world = |path: &Path| match path.to_str().unwrap() {
            "/bin/sh" => Ok(()),
            "/bin/data" | "/etc/passwd" => Err(Errno::EACCES),
            "/etc" => Err(Errno::EISDIR),
            _ => Err(Errno::ENOENT),
        };
        let find = |program| find_program(program, "/usr/bin:/bin", world);
        assert_eq!(find("sh"), Ok("/bin/sh".into()));
        assert_eq!(find("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(find("nope").unwrap_err(), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(find("/no/pe").unwrap_err(), "exec: \"/no/pe\": stat /no/pe: no such file or directory");
        assert_eq!(find("/etc/passwd").unwrap_err(), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(find("data").unwrap_err(), "exec: \"data\": permission denied");
        assert_eq!(find("/etc").unwrap_err(), "exec: \"/etc\": permission denied");
    }
}
