//! Decides what a request runs, or why nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use api_types::execd::{RunCommandRequest, RunRequest};
use base64::Engine as _;

use super::super::{ApiError, App};
use crate::envs::{self, Env};
use crate::exec::{Credentials, Input, Launch};
use crate::paths;
use crate::users::Users;

/// The launch of a request.
pub fn plan(app: &App, request: &RunRequest) -> Result<Launch, ApiError> {
    let published = &request.published;
    let own = published.envs.clone().unwrap_or_default();
    envs::validate(&own).map_err(|e| ApiError::invalid(format!("envs: {e}")))?;
    let mut env = app.command_env();
    let credentials = credentials(request, &mut env)?;
    envs::overlay(&mut env, &own);
    let cwd = published.cwd.as_deref().filter(|cwd| !cwd.is_empty());
    let cwd = cwd.map(|cwd| directory(app, cwd, &env)).transpose()?;
    let timeout = timeout(published.timeout)?;
    let (argv, content) = argv(published, &env)?;
    if argv.iter().any(|arg| arg.as_encoded_bytes().contains(&0)) {
        return Err(ApiError::invalid("the command contains a zero byte"));
    }
    let background = request.background();
    let while_read = request.kill_on_disconnect.unwrap_or(false);
    if background && while_read {
        return Err(ApiError::invalid("kill_on_disconnect: a background command has no stream to depend on"));
    }
    let (env, input) = (env.into_iter().collect(), input(request)?);
    Ok(Launch { argv, env, cwd, credentials, split: !background, timeout, content, input, while_read, outlives: false })
}

fn credentials(request: &RunRequest, env: &mut Env) -> Result<Option<Credentials>, ApiError> {
    let (uid, gid) = (number("uid", request.published.uid)?, number("gid", request.published.gid)?);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (user, group) = (given(&request.user), given(&request.group));
    if (uid, gid, &user, &group) == (None, None, &None, &None) {
        return Ok(None);
    }
    let users = Users::load();
    let one = |name: &str, number: Option<u32>, word: Option<String>, find: &dyn Fn(&str) -> Option<u32>| match (
        number, word,
    ) {
        (Some(_), Some(_)) => Err(ApiError::invalid(format!("give either {name}id or its name, not both"))),
        (number, None) => Ok(number),
        (None, Some(word)) => {
            find(&word).map(Some).ok_or_else(|| ApiError::invalid(format!("{name}: there is no {word:?} here")))
        }
    };
    let uid = one("u", uid, user, &|name| users.uid_of(name))?;
    let gid = one("g", gid, group, &|name| users.gid_of(name))?;
    let Some(uid) = uid else { return Err(ApiError::invalid("gid needs uid")) };
    if let Some(user) = users.user(uid) {
        let of_user = [("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name)];
        env.extend(of_user.map(|(name, value)| (name.into(), value.into())));
    }
    Ok(Some(users.credentials(uid, gid)))
}

fn number(name: &str, value: Option<i64>) -> Result<Option<u32>, ApiError> {
    let wrong = |_| ApiError::invalid(format!("{name} must be between 0 and {}", u32::MAX));
    value.map(u32::try_from).transpose().map_err(wrong)
}

fn input(request: &RunRequest) -> Result<Input, ApiError> {
    let bytes = match (&request.stdin, &request.stdin_base64) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("give either stdin or stdin_base64, not both")),
        (Some(text), None) => Some(text.clone().into_bytes()),
        (None, Some(text)) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            Some(decoded.map_err(|e| ApiError::invalid(format!("stdin_base64: {e}")))?)
        }
        (None, None) => None,
    };
    Ok(match (bytes, request.stdin_open.unwrap_or(false)) {
        (bytes, true) => Input::Open(bytes.unwrap_or_default()),
        (Some(bytes), false) => Input::Bytes(bytes),
        (None, false) => Input::Null,
    })
}

/// Milliseconds as a duration; 0 and none are none.
pub fn timeout(milliseconds: Option<i64>) -> Result<Option<Duration>, ApiError> {
    match milliseconds.unwrap_or(0) {
        0 => Ok(None),
        given => {
            let given = u64::try_from(given).map_err(|_| ApiError::invalid("timeout must not be negative"))?;
            Ok(Some(Duration::from_millis(given)))
        }
    }
}

/// A working directory that is there.
pub fn directory(app: &App, cwd: &str, env: &Env) -> Result<PathBuf, ApiError> {
    let path = paths::directory_path(cwd, env, &app.cwd).map_err(|e| ApiError::invalid(format!("cwd: {e}")))?;
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(path),
        Ok(_) => Err(ApiError::invalid(format!("working directory is not a directory: {}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(ApiError::invalid(format!("working directory does not exist: {}", path.display())))
        }
        Err(e) => Err(ApiError::invalid(format!("working directory {}: {e}", path.display()))),
    }
}

fn argv(request: &RunCommandRequest, env: &Env) -> Result<(Vec<OsString>, String), ApiError> {
    let command = request.command.as_deref().filter(|c| !c.is_empty());
    let argv = request.argv.as_deref().filter(|a| !a.is_empty());
    match (command, argv) {
        (Some(_), Some(_)) => Err(ApiError::invalid("give either command or argv, not both")),
        (None, None) => Err(ApiError::invalid("command is required; or give argv")),
        (None, Some([program, ..])) if program.is_empty() => Err(ApiError::invalid("argv[0] is empty")),
        (None, Some(argv)) => Ok((argv.iter().map(Into::into).collect(), argv.join(" "))),
        (Some(command), None) => Ok((vec![shell(env).0, "-c".into(), command.into()], command.to_owned())),
    }
}

/// `bash` where the sandbox has it, else `sh`, and whether it is bash; starting fails where there is neither.
pub fn shell(env: &Env) -> (OsString, bool) {
    let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    let found = |name: &str| {
        let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
        places.find(|p| nix::unistd::access(p, nix::unistd::AccessFlags::X_OK).is_ok() && p.is_file())
    };
    match found("bash") {
        Some(bash) => (bash.into(), true),
        None => (found("sh").map_or_else(|| "sh".into(), Into::into), false),
    }
}
