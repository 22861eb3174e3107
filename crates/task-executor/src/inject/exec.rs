//! Running the program, without a shell: the search along PATH happens in the container's own root.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, chdir, execve};

use super::{Launch, LaunchError};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters the directory the task asked for.
pub fn change_directory(cwd: Option<&str>) -> Result<(), LaunchError> {
    let Some(cwd) = cwd else { return Ok(()) };
    chdir(cwd).map_err(|e| LaunchError::Start {
        code: 126,
        message: format!("the working directory {cwd} can't be entered in the sandbox container: {}", e.desc()),
    })
}

/// Replaces this process by the program. Returns only when that failed.
pub fn run(launch: &Launch) -> LaunchError {
    let text = |bytes: &[u8]| CString::new(bytes).ok();
    let argv: Option<Vec<CString>> = launch.argv.iter().map(|a| text(a.as_bytes())).collect();
    let env: Vec<CString> = launch.env.iter().filter_map(|(k, v)| text(&[k, &b"="[..], v].concat())).collect();
    let (Some(argv), Some(program)) = (argv, launch.argv.first()) else {
        return LaunchError::Start { code: 126, message: "an argument holds a NUL byte".into() };
    };
    let mut failure = Errno::ENOENT;
    for path in candidates(program, &launch.env) {
        let Some(path) = text(&path) else { continue };
        let Err(error) = execve(&path, &argv, &env);
        match error {
            // Something is there, so a missing file is its interpreter: later directories may still have better.
            Errno::ENOENT if access(path.as_c_str(), AccessFlags::F_OK).is_ok() => failure = Errno::ENOEXEC,
            Errno::ENOENT | Errno::ENOTDIR => {}
            other => failure = other,
        }
    }
    refused(program, failure)
}

fn refused(program: &str, failure: Errno) -> LaunchError {
    let (code, why) = match failure {
        Errno::ENOENT if program.contains('/') => (127, "no such file in the sandbox container".to_owned()),
        Errno::ENOENT => (127, "not found along PATH of the sandbox container".to_owned()),
        Errno::ENOEXEC => (126, "no program this machine can run, or its interpreter is missing".to_owned()),
        Errno::EACCES => (126, "not executable, a directory, or not permitted".to_owned()),
        other => (126, other.desc().to_owned()),
    };
    LaunchError::Start { code, message: format!("{program} can't be started: {why}") }
}

/// Paths to try, in order.
fn candidates(program: &str, env: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
    if program.contains('/') {
        return vec![program.as_bytes().to_vec()];
    }
    let path = env.iter().rfind(|(k, _)| k == b"PATH").map_or(DEFAULT_PATH.as_bytes(), |(_, v)| v.as_slice());
    path.split(|b| *b == b':')
        .map(|dir| [if dir.is_empty() { b"." } else { dir }, b"/", program.as_bytes()].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_and_a_path_is_not() {
        let env = vec![(b"PATH".to_vec(), b"/a::/b".to_vec())];
        let want: Vec<Vec<u8>> = ["/a/x", "./x", "/b/x"].iter().map(|p| p.as_bytes().to_vec()).collect();
        assert_eq!(candidates("x", &env), want);
        assert_eq!(candidates("./x", &env), vec![b"./x".to_vec()]);
        assert_eq!(candidates("x", &[]).len(), 6);
    }

    #[test]
    fn what_is_missing_is_127_and_what_can_not_run_is_126() {
        assert!(matches!(refused("x", Errno::ENOENT), LaunchError::Start { code: 127, .. }));
        assert!(matches!(refused("/x", Errno::EACCES), LaunchError::Start { code: 126, .. }));
    }
}
