//! Flags and environment. The published names are kept, also written with a single dash.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use api_types::auth::{AuthError, DaemonKey};
use api_types::ids::PodUid;
use api_types::names::EXECD_PORT;
use clap::Parser;

use crate::store::{Store, StoreError};
use crate::target::Mode;

/// Where tasks are kept unless another place is named.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/sandbox/tasks";
/// Where they are kept where that place can't be written.
const FALLBACK_DATA_DIRS: [&str; 2] = ["/tmp/opensandbox-tasks", "/dev/shm/opensandbox-tasks"];

/// Starts processes in the sandbox container of its pod.
#[derive(Debug, Clone, Parser)]
#[command(name = "task-executor", version)]
pub struct Args {
    /// Directory for the tasks' records and output [default: /var/lib/sandbox/tasks]
    #[arg(long, env = "DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:5758", value_parser = listen_addr)]
    pub listen_addr: SocketAddr,
    /// Accepted for compatibility, has no effect
    #[arg(long, env = "CRI_SOCKET", default_value = "/var/run/containerd/containerd.sock", hide = true)]
    pub cri_socket: String,
    /// Run tasks only in another container of the pod (true) or only in this one (false) [default: found out]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub enable_sidecar_mode: Option<bool>,
    /// Value of SANDBOX_MAIN_CONTAINER in the container to use [default: main, or whichever there is]
    #[arg(long, env = "MAIN_CONTAINER_NAME")]
    pub main_container_name: Option<String>,
    /// How many tasks may be active at once
    #[arg(long, env = "MAX_ACTIVE_TASKS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub max_active: u32,
    /// Port of execd on this pod's loopback; 0 never hands tasks to execd
    #[arg(long, env = "EXECD_HANDOVER_PORT", default_value_t = EXECD_PORT)]
    pub execd_port: u16,
    /// Seconds between the polite and the final signal when a task is stopped
    #[arg(long, env = "STOP_GRACE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub stop_grace_seconds: u64,
    /// MiB after which an output file of a task is rotated; one older file is kept
    #[arg(long, env = "OUTPUT_MAX_MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub output_max_mib: u64,
    /// Accepted for compatibility; the log goes to standard error
    #[arg(long, hide = true)]
    pub log_dir: Option<PathBuf>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub log_max_size: Option<u64>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub log_max_backups: Option<u64>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub log_max_age: Option<u64>,
}

/// A host may be left out, as in `:5758`.
fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("{text:?} is no address of the form 0.0.0.0:5758"))
}

/// The words for true and false that published command lines use.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Gives long flags written with one dash their second.
pub fn two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let fix = |arg: OsString| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        _ => arg,
    };
    args.into_iter().map(fix).collect()
}

impl Args {
    /// Where tasks are placed. A flag overrides the environment, of which only the text `true` counts as yes.
    pub fn mode(&self, env: Option<&str>) -> Mode {
        match (self.enable_sidecar_mode, env) {
            (Some(true), _) | (None, Some("true")) => Mode::Sidecar,
            (Some(false), _) => Mode::Host,
            (None, Some(text)) if !text.is_empty() => Mode::Host,
            (None, _) => Mode::Auto,
        }
    }

    /// Opens the data directory: the one that was named, or the first of the usual ones that can be written.
    pub fn store(&self) -> Result<Store, StoreError> {
        if let Some(dir) = &self.data_dir {
            return Store::open(dir);
        }
        let first = match Store::open(DEFAULT_DATA_DIR.as_ref()) {
            Err(error @ StoreError::NotWritable { .. }) => error,
            other => return other,
        };
        for dir in FALLBACK_DATA_DIRS {
            if let Ok(store) = Store::open(dir.as_ref()) {
                tracing::warn!(%first, using = dir, "tasks are kept elsewhere and do not outlive this container");
                return Ok(store);
            }
        }
        Err(first)
    }
}

/// Why the pod's key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is there, but not the pod's UID, so nothing could be checked.
    #[error("OPENSANDBOX_DAEMON_KEY is set but OPENSANDBOX_POD_UID is not; both come from the controller")]
    NoPodUid,
    /// The key is none.
    #[error("OPENSANDBOX_DAEMON_KEY: {0}")]
    Bad(#[from] AuthError),
}

/// The key that calls must be signed for, if the pod carries one.
pub fn daemon_key(key: Option<&str>, pod: Option<&str>) -> Result<Option<DaemonKey>, KeyError> {
    let Some(key) = key.filter(|k| !k.is_empty()) else { return Ok(None) };
    let pod = pod.filter(|p| !p.is_empty()).ok_or(KeyError::NoPodUid)?;
    Ok(Some(DaemonKey::new(key, PodUid::new(pod))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        let args = std::iter::once("task-executor").chain(args.iter().copied()).map(OsString::from);
        Args::try_parse_from(two_dashes(args)).unwrap()
    }

    #[test]
    fn published_command_lines_are_taken() {
        let args = parse(&[
            "-data-dir=/d",
            "-listen-addr=:1",
            "-cri-socket",
            "/s",
            "-enable-sidecar-mode=true",
            "-main-container-name=m",
            "-log-max-size=1",
            "-log-max-backups",
            "2",
            "-log-max-age=3",
            "-log-dir=logs",
        ]);
        assert_eq!(args.data_dir, Some("/d".into()));
        assert_eq!(args.listen_addr, "0.0.0.0:1".parse().unwrap());
        assert_eq!(args.main_container_name.as_deref(), Some("m"));
        assert_eq!(args.mode(None), Mode::Sidecar);
        assert_eq!(parse(&["-enable-sidecar-mode"]).mode(None), Mode::Sidecar);
        assert_eq!(parse(&["--enable-sidecar-mode=F"]).mode(Some("true")), Mode::Host);
    }

    #[test]
    fn the_environment_says_sidecar_by_one_text_only() {
        for (text, mode) in
            [(None, Mode::Auto), (Some(""), Mode::Auto), (Some("true"), Mode::Sidecar), (Some("1"), Mode::Host)]
        {
            assert_eq!(parse(&[]).mode(text), mode);
        }
    }

    #[test]
    fn a_key_without_a_pod_is_refused() {
        let key = api_types::auth::Signer::from_seed(&[1; 32]).daemon_key();
        assert!(matches!(daemon_key(Some(&key), None), Err(KeyError::NoPodUid)));
        assert!(matches!(daemon_key(Some("x"), Some("p")), Err(KeyError::Bad(_))));
        assert!(daemon_key(Some(&key), Some("p")).unwrap().is_some());
        assert!(daemon_key(None, Some("p")).unwrap().is_none() && daemon_key(Some(""), None).unwrap().is_none());
    }
}
