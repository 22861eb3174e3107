//! What the program is told: flags win over the environment, that over the file, that over defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, Parser, value_parser};
use controller::{Config, LeaderElection};
use telemetry::logs::Format;

/// Why the program cannot start as it was told. Its exit code is 2.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The command line cannot be used, or asks for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or has keys that are not known.
    #[error("the configuration {path} cannot be used: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value that must be given is not.
    #[error("{0} is missing: give it as a flag, as {1}, or in the file")]
    Missing(&'static str, &'static str),
    /// A secret file cannot be used.
    #[error("{flag} {path}: {message}")]
    Secret {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A value cannot be used.
    #[error("{flag} {value:?}: {message}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Keeps Pools warm and gives their pods to BatchSandboxes.
#[derive(Debug, Parser)]
#[command(version, about, name = "opensandbox-controller")]
struct Flags {
    /// TOML file whose keys are these flags' names.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_CONFIG")]
    config: Option<PathBuf>,
    /// Namespaces to look after, separated by commas; all of them when none is named.
    #[arg(long, visible_alias = "namespace", value_delimiter = ',', env = "OPENSANDBOX_CONTROLLER_NAMESPACES")]
    namespaces: Vec<String>,
    /// File with the 32 raw bytes of the signing key's seed.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_SIGNER_SEED_FILE")]
    signer_seed_file: Option<PathBuf>,
    /// File with the 32 raw bytes of which execd tokens are derived.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_TOKEN_SECRET_FILE")]
    token_secret_file: Option<PathBuf>,
    /// Lead only while holding a Lease.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", action = ArgAction::Set, env = "OPENSANDBOX_CONTROLLER_LEADER_ELECT")]
    leader_elect: bool,
    /// Namespace of the Lease; POD_NAMESPACE, else opensandbox-system.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Our name among the candidates; POD_NAME, else opensandbox-controller. A random part is added.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_IDENTITY")]
    identity: Option<String>,
    /// Seconds for which the lease holds without being renewed.
    #[arg(long, default_value_t = 15, value_parser = value_parser!(u64).range(5..=600), env = "OPENSANDBOX_CONTROLLER_LEASE_SECONDS")]
    lease_seconds: u64,
    /// Address of /healthz and /readyz; 0 turns it off.
    #[arg(long, default_value = ":8081", env = "OPENSANDBOX_CONTROLLER_HEALTH_PROBE_BIND_ADDRESS")]
    health_probe_bind_address: String,
    /// Address of /metrics; 0 turns it off.
    #[arg(long, default_value = ":8080", env = "OPENSANDBOX_CONTROLLER_METRICS_BIND_ADDRESS")]
    metrics_bind_address: String,
    /// Objects worked on at once: a number, or NAME=NUMBER;NAME=NUMBER, of which the largest counts.
    #[arg(long, default_value = "32", env = "OPENSANDBOX_CONTROLLER_CONCURRENCY")]
    concurrency: String,
    /// Log level: error, warn, info, debug, trace, or directives such as info,controller=debug.
    #[arg(long, visible_alias = "zap-log-level", default_value = "info", env = "OPENSANDBOX_CONTROLLER_LOG_LEVEL")]
    log_level: String,
    /// Log format: text or json.
    #[arg(long, visible_alias = "zap-encoder", default_value = "text", env = "OPENSANDBOX_CONTROLLER_LOG_FORMAT")]
    log_format: String,
    /// kubeconfig to use instead of KUBECONFIG or the pod's service account.
    #[arg(long, env = "OPENSANDBOX_CONTROLLER_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

/// Flags of published controllers that ask for what is not here. They are accepted, so that an old Deployment's
/// arguments start this one, and named in the log. Limits of requests are the API server's own: priority and fairness.
const IGNORED: [&str; 28] = [
    "kube-client-qps",
    "kube-client-burst",
    "metrics-secure",
    "metrics-cert-path",
    "metrics-cert-name",
    "metrics-cert-key",
    "webhook-cert-path",
    "webhook-cert-name",
    "webhook-cert-key",
    "enable-http2",
    "allow-weak-tls-keylengths",
    "expectation-timeout",
    "image-committer-image",
    "containerd-socket-path",
    "commit-job-timeout",
    "snapshot-registry",
    "snapshot-registry-insecure",
    "snapshot-push-secret",
    "resume-pull-secret",
    "enable-file-log",
    "log-file-path",
    "log-max-size",
    "log-max-backups",
    "log-max-age",
    "log-compress",
    "zap-devel",
    "zap-stacktrace-level",
    "zap-time-encoding",
];

/// What the program does with what it was told.
#[derive(Debug)]
pub struct Options {
    /// The controller's settings.
    pub config: Config,
    /// Where health and readiness are served, if anywhere.
    pub health: Option<SocketAddr>,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Level of the logs.
    pub log_level: String,
    /// Format of the logs.
    pub log_format: Format,
    /// kubeconfig, if one was named.
    pub kubeconfig: Option<PathBuf>,
    /// Flags that were given and have no effect.
    pub ignored: Vec<&'static str>,
}

impl Options {
    /// Reads arguments, environment and file.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let arguments: Vec<OsString> = arguments.into_iter().map(two_dashes).collect();
        let matches = command().try_get_matches_from(&arguments)?;
        let matches = match matches.get_one::<PathBuf>("config") {
            Some(path) => with_defaults(command(), &file(path)?, path)?.try_get_matches_from(&arguments)?,
            None => matches,
        };
        let flags = Flags::from_arg_matches(&matches)?;
        let ignored = IGNORED.into_iter().filter(|name| matches.contains_id(name)).collect();
        Self::settle(flags, ignored)
    }

    fn settle(flags: Flags, ignored: Vec<&'static str>) -> Result<Self, OptionsError> {
        let seed = secret("--signer-seed-file", "OPENSANDBOX_CONTROLLER_SIGNER_SEED_FILE", flags.signer_seed_file)?;
        let token = secret("--token-secret-file", "OPENSANDBOX_CONTROLLER_TOKEN_SECRET_FILE", flags.token_secret_file)?;
        let mut config = Config::new(seed, token);
        config.concurrency = concurrency(&flags.concurrency)?;
        config.namespaces =
            flags.namespaces.into_iter().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        config.namespaces.sort();
        config.namespaces.dedup();
        config.namespaces.iter().try_for_each(|n| label("--namespaces", n))?;
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let namespace =
            flags.lease_namespace.or_else(|| env("POD_NAMESPACE")).unwrap_or("opensandbox-system".to_owned());
        label("--lease-namespace", &namespace)?;
        let identity = flags.identity.or_else(|| env("POD_NAME")).unwrap_or("opensandbox-controller".to_owned());
        config.leader_election = flags.leader_elect.then(|| LeaderElection {
            namespace,
            name: LeaderElection::LEASE_NAME.to_owned(),
            identity: format!("{identity}_{}", uuid::Uuid::new_v4()),
            duration: Duration::from_secs(flags.lease_seconds),
        });
        let log_format = flags.log_format.parse().map_err(|error: telemetry::logs::LogsError| OptionsError::Value {
            flag: "--log-format",
            value: flags.log_format.clone(),
            message: error.to_string(),
        })?;
        Ok(Self {
            config,
            health: address("--health-probe-bind-address", &flags.health_probe_bind_address)?,
            metrics: address("--metrics-bind-address", &flags.metrics_bind_address)?,
            log_level: flags.log_level,
            log_format,
            kubeconfig: flags.kubeconfig,
            ignored,
        })
    }
}

fn command() -> Command {
    let ignored = IGNORED.map(|name| {
        // Of some the value may be left out, as Go's flags allow for truth values.
        Arg::new(name).long(name).hide(true).num_args(0..=1).default_missing_value("true")
    });
    // As with Go: what is given twice is what was given last.
    Flags::command().args(ignored).args_override_self(true)
}

/// Published controllers take flags with one dash or two.
fn two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        _ => argument,
    }
}

/// The keys of the file, named like flags, with their values as text.
fn file(path: &Path) -> Result<BTreeMap<String, Vec<String>>, OptionsError> {
    let text = std::fs::read_to_string(path).map_err(|source| OptionsError::File { path: path.to_owned(), source })?;
    let wrong = |message: String| OptionsError::Syntax { path: path.to_owned(), message };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
    let value = |name: &str, value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        other => Err(wrong(format!("{name} is of type {}", other.type_str()))),
    };
    let mut keys = BTreeMap::new();
    for (name, given) in &table {
        let values = match given {
            toml::Value::Array(list) => list.iter().map(|v| value(name, v)).collect::<Result<Vec<_>, _>>()?,
            plain => vec![value(name, plain)?],
        };
        keys.insert(name.replace('_', "-"), values);
    }
    Ok(keys)
}

/// The command with the file's values in the place of its defaults.
fn with_defaults(
    mut command: Command,
    keys: &BTreeMap<String, Vec<String>>,
    path: &Path,
) -> Result<Command, OptionsError> {
    for (key, values) in keys {
        let named = |a: &&Arg| {
            let names = a.get_long_and_visible_aliases().unwrap_or_default();
            key != "config" && names.iter().any(|name| name == key)
        };
        let Some(id) = command.get_arguments().find(named).map(|a| a.get_id().clone()) else {
            let known = command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long());
            let known: Vec<&str> = known.filter(|name| !matches!(*name, "config" | "help" | "version")).collect();
            return Err(OptionsError::Syntax {
                path: path.to_owned(),
                message: format!("unknown key {key:?}; known are {}", known.join(", ")),
            });
        };
        command = command.mut_arg(id, |arg| arg.default_values(values.clone()));
    }
    Ok(command)
}

/// Reads a secret of exactly 32 bytes. Its content is never told.
fn secret(flag: &'static str, variable: &'static str, path: Option<PathBuf>) -> Result<[u8; 32], OptionsError> {
    let path = path.filter(|p| !p.as_os_str().is_empty()).ok_or(OptionsError::Missing(flag, variable))?;
    let wrong = |message: String| OptionsError::Secret { flag, path: path.clone(), message };
    let bytes = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| wrong(format!("it has {length} bytes, and must have exactly 32 raw ones")))
}

fn concurrency(text: &str) -> Result<usize, OptionsError> {
    let wrong = |message: &str| OptionsError::Value {
        flag: "--concurrency",
        value: text.to_owned(),
        message: format!("{message}; give a number, or NAME=NUMBER;NAME=NUMBER"),
    };
    let mut largest = None;
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let number = part.split_once('=').map_or(part, |(_, number)| number);
        let number: usize = number.trim().parse().map_err(|_| wrong(&format!("{part:?} has no number")))?;
        if number == 0 {
            return Err(wrong("it must be at least 1"));
        }
        largest = largest.max(Some(number));
    }
    largest.ok_or_else(|| wrong("it is empty"))
}

/// `host:port`, `:port` for every address of the machine, `0` or nothing for none.
fn address(flag: &'static str, text: &str) -> Result<Option<SocketAddr>, OptionsError> {
    let wrong = |message: String| OptionsError::Value { flag, value: text.to_owned(), message };
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| wrong("the port is no number below 65536".to_owned()))?;
        return Ok(Some((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    text.parse().map(Some).map_err(|_| wrong("give ADDRESS:PORT, :PORT, or 0 for none".to_owned()))
}

/// Kubernetes: a namespace's name is a DNS label.
fn label(flag: &'static str, name: &str) -> Result<(), OptionsError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good =
        (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if good {
        return Ok(());
    }
    let message = "no name of a namespace: at most 63 lower-case letters, digits and inner hyphens".to_owned();
    Err(OptionsError::Value { flag, value: name.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with two secrets, removed with the test.
    struct Keys(PathBuf);

    impl Drop for Keys {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Keys {
        fn new(name: &str) -> Self {
            let keys = Self(std::env::temp_dir().join(format!("controller-options-{name}-{}", std::process::id())));
            std::fs::create_dir_all(&keys.0).unwrap();
            keys.write("seed", &[1; 32]);
            keys.write("short", &[1; 31]);
            keys
        }

        fn write(&self, name: &str, bytes: &[u8]) -> String {
            std::fs::write(self.0.join(name), bytes).unwrap();
            self.path(name)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_string_lossy().into_owned()
        }

        fn read(&self, more: &[&str]) -> Result<Options, String> {
            let seed = self.path("seed");
            let fixed = ["x", "--signer-seed-file", &seed, "--token-secret-file", &seed];
            Options::read(fixed.iter().chain(more).map(Into::into)).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn an_old_deployments_arguments_start_it() {
        let keys = Keys::new("old");
        let options = keys
            .read(&[
                "--leader-elect",
                "--health-probe-bind-address=:8081",
                "--zap-log-level=info",
                "--kube-client-qps=100",
                "--kube-client-burst=200",
                "-metrics-bind-address=0",
                "--concurrency=batchsandbox=32;pool=16",
                "--metrics-secure=false",
            ])
            .unwrap();
        assert_eq!(options.config.concurrency, 32);
        assert!(options.config.leader_election.is_some());
        assert_eq!(options.metrics, None);
        assert_eq!(options.ignored, ["kube-client-qps", "kube-client-burst", "metrics-secure"]);
    }

    #[test]
    fn flags_win_over_the_file_and_that_over_defaults() {
        let keys = Keys::new("file");
        let path = keys.write(
            "c.toml",
            b"leader-elect = true\nnamespaces = [\"a\", \"b\"]\nconcurrency = 5\nlog_format = \"json\"\n",
        );
        let options = keys.read(&["--config", &path, "--concurrency", "7"]).unwrap();
        assert_eq!((options.config.concurrency, options.log_format), (7, Format::Json));
        assert_eq!(options.config.namespaces, ["a", "b"]);
        assert!(options.config.leader_election.is_some());
        let options = keys.read(&["--config", &path, "--leader-elect=false", "--namespace", "c"]).unwrap();
        assert!(options.config.leader_election.is_none());
        assert_eq!((options.config.concurrency, options.config.namespaces), (5, vec!["c".to_owned()]));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let keys = Keys::new("bad");
        let unknown = keys.write("unknown.toml", b"leader-elekt = true\n");
        let broken = keys.write("broken.toml", b"leader-elect = \n");
        let typed = keys.write("typed.toml", b"[concurrency]\na = 1\n");
        let (short, missing) = (keys.path("short"), keys.path("none"));
        for (arguments, words) in [
            (vec!["--config", &unknown], "unknown key \"leader-elekt\""),
            (vec!["--config", &broken], "broken.toml"),
            (vec!["--config", &typed], "concurrency is of type table"),
            (vec!["--config", &missing], "cannot read the configuration"),
            (vec!["--signer-seed-file", &missing], "--signer-seed-file"),
            (vec!["--token-secret-file", &short], "31 bytes"),
            (vec!["--concurrency", "pool=many"], "\"pool=many\" has no number"),
            (vec!["--concurrency", "0"], "at least 1"),
            (vec!["--metrics-bind-address", "here"], "--metrics-bind-address \"here\""),
            (vec!["--namespaces", "A_b"], "--namespaces \"A_b\""),
            (vec!["--log-format", "xml"], "\"xml\""),
            (vec!["--lease-seconds", "1"], "--lease-seconds"),
            (vec!["--lease-namespace", "UP"], "--lease-namespace"),
            (vec!["--no-such-flag"], "--no-such-flag"),
        ] {
            let error = keys.read(&arguments).expect_err(words);
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
        assert!(Options::read(["x".into()]).unwrap_err().to_string().contains("--signer-seed-file is missing"));
    }
}
