//! The daemon's configuration: flags over environment over defaults, in the names of OpenSandbox 1.1.1.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use api_types::names::{EXECD_PORT, env as names};
use clap::{Parser, Subcommand};

/// Environment variable that names the directory of the daemon's durable state.
pub const STATE_DIR_ENV: &str = "OPENSANDBOX_STATE_DIR";

/// execd: runs commands and moves files inside a sandbox.
#[derive(Parser, Debug, Clone)]
#[command(name = "execd", version, disable_help_subcommand = true)]
pub struct Config {
    /// TCP port to listen on, on every IPv4 address.
    #[arg(long, default_value_t = EXECD_PORT, global = true)]
    pub port: u16,

    /// 0 to 2 fatal only, 3 errors, 4 warnings, 5 and 6 information, 7 everything.
    #[arg(long, default_value_t = 4, global = true)]
    pub log_level: u8,

    /// Static token that every call must carry, where no claim brings one.
    #[arg(long, env = names::EXECD_ACCESS_TOKEN, default_value = "", hide_env_values = true, hide_default_value = true)]
    pub access_token: String,

    /// File of `KEY=VALUE` lines, read before every command.
    #[arg(long, env = names::EXECD_ENVS)]
    pub envs: Option<PathBuf>,

    /// Directory of the daemon's durable state; a writable one is found when absent.
    #[arg(long, env = STATE_DIR_ENV)]
    pub state_dir: Option<PathBuf>,

    /// Public key of the platform; makes the pod one that must be claimed.
    #[arg(long, env = names::DAEMON_KEY, default_value = "", hide = true)]
    pub daemon_key: String,

    /// UID of the pod.
    #[arg(long, env = names::POD_UID, default_value = "", hide = true)]
    pub pod_uid: String,

    /// Longest time a stop waits for open answers.
    #[arg(long, env = "EXECD_API_GRACE_SHUTDOWN", default_value = "1s", value_parser = grace)]
    pub graceful_shutdown_timeout: Duration,

    /// Bytes of memory for the output of all commands.
    #[arg(long, env = "EXECD_JOURNAL_MEMORY", default_value_t = 32 << 20)]
    pub journal_memory: usize,

    /// Bytes on the disk for the output of all commands; 0 keeps it in memory alone.
    #[arg(long, env = "EXECD_JOURNAL_DISK", default_value_t = 512 << 20)]
    pub journal_disk: u64,

    /// Bytes of output that one command keeps.
    #[arg(long, env = "EXECD_JOURNAL_EXECUTION", default_value_t = 256 << 20)]
    pub journal_execution: u64,

    /// Time for which an ended command stays readable.
    #[arg(long, env = "EXECD_JOURNAL_KEEP", default_value = "1h", value_parser = go_duration)]
    pub journal_keep: Duration,

    /// Commands that may run at once.
    #[arg(long, env = "EXECD_MAX_EXECUTIONS", default_value_t = 2048)]
    pub max_executions: usize,

    /// Shell sessions, and terminals, that there may be at once.
    #[arg(long, env = "EXECD_MAX_SESSIONS", default_value_t = 256)]
    pub max_sessions: usize,

    /// Time without use after which a session or terminal is ended.
    #[arg(long, env = "EXECD_SESSION_IDLE", default_value = "24h", value_parser = go_duration)]
    pub session_idle: Duration,

    /// Accepted; code contexts are not part of this daemon yet.
    #[arg(long, env = "JUPYTER_HOST", default_value = "", hide = true)]
    pub jupyter_host: String,

    /// Accepted; code contexts are not part of this daemon yet.
    #[arg(long, env = "JUPYTER_TOKEN", default_value = "", hide = true, hide_env_values = true)]
    pub jupyter_token: String,

    /// Accepted; code contexts are not part of this daemon yet.
    #[arg(long, env = "EXECD_JUPYTER_IDLE_POLL_INTERVAL", default_value = "100ms", hide = true)]
    pub jupyter_idle_poll_interval: String,

    /// Lets older container engines start programs: `1`, `true`, `yes`, `on`, or `reexec`.
    #[arg(long, env = "EXECD_CLONE3_COMPAT", default_value = "", hide = true)]
    pub clone3_compat: String,

    /// Attributes for exported metrics, `k=v,k2=v2`.
    #[arg(long, env = "OPENSANDBOX_EXECD_METRICS_EXTRA_ATTRS", default_value = "", hide = true)]
    pub metrics_extra_attrs: String,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Verbs beside serving.
#[derive(Subcommand, Debug, Clone)]
pub enum Verb {
    /// Serve, and run a program as the container's main process; ends with its exit code.
    Run {
        /// Program and arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run the hook that comes before the container's program, if there is one; ends with 1 when it fails.
    PreStart,
    /// Exit 0 when an execd answers on the port of this container, 1 when none does.
    Alive,
    /// Print the version.
    Version,
}

/// Reads the arguments, also in the forms of Go programs (`-port=1`, `-port 1`).
pub fn normalise(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut ours = true;
    for (index, arg) in args.enumerate() {
        let text = arg.to_string_lossy();
        ours &= index == 0 || !(text == "--" || text == "run");
        let single = ours && text.len() > 2 && text.starts_with('-') && !text.starts_with("--");
        if single { out.push(format!("-{text}").into()) } else { out.push(arg) }
    }
    out
}

/// As [`go_duration`], but what is none is passed over: images set this variable to all kinds of things.
fn grace(text: &str) -> Result<Duration, std::convert::Infallible> {
    Ok(go_duration(text).unwrap_or(Duration::from_secs(1)))
}

/// A duration as Go writes it: `1s`, `500ms`, `1m30s`, `1.5h`.
///
/// # Errors
/// What is wrong with the text.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write it as 500ms, 3s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = after;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(sum).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Config {
        Config::parse_from(normalise(args.iter().map(OsString::from)))
    }

    #[test]
    fn both_dashes_are_understood() {
        for args in [&["execd", "-port=1234", "-log-level", "7"], &["execd", "--port=1234", "--log-level", "7"]] {
            let config = parse(args);
            assert_eq!((config.port, config.log_level), (1234, 7));
        }
    }

    #[test]
    fn what_follows_run_is_left_alone() {
        let config = parse(&["execd", "-port=1", "run", "--", "sh", "-cx", "-port=2"]);
        let Some(Verb::Run { command }) = config.verb else { panic!("run expected") };
        assert_eq!(command, ["sh", "-cx", "-port=2"]);
        assert_eq!(config.port, 1);
    }

    #[test]
    fn durations_of_go() {
        assert_eq!(go_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(go_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(go_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "1x", "-1s"] {
            assert!(go_duration(wrong).is_err(), "{wrong}");
        }
    }
}
