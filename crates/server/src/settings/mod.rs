//! What the program is told: flags over environment over a TOML file over defaults, each value with its source.
//!
//! One table names every setting once; flags, environment variables, the keys of the file, what is checked and what
//! `config --explain` prints are all made from it.

mod explain;
mod file;
mod program;
mod secrets;
mod table;
mod tenancy;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

pub use program::{Program, TlsFiles};
use table::{SETTINGS, Setting, Use};
use value::{Kind, Value};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// The built-in default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Values that can't be used: each says what is wrong, where it stands, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

/// What the command line asks for.
pub enum Asked {
    /// To serve.
    Serve(Box<Program>),
    /// To be told every effective value: this text.
    Explain(String),
}

/// One effective value.
#[derive(Debug, Clone)]
struct Effective {
    value: Option<Value>,
    source: Source,
}

/// Every effective value, by key.
#[derive(Debug)]
struct Settings {
    values: BTreeMap<&'static str, Effective>,
    notices: Vec<String>,
    problems: Vec<String>,
}

/// Reads the command line, the environment and the file. Wrong usage ends the process as clap does, with code 2.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Asked, SettingsError> {
    let matches = command().get_matches_from(arguments);
    let explain = matches.subcommand_matches("config");
    let matches = explain.unwrap_or(&matches);
    let settings = settle(matches, &environment)?;
    if explain.is_some() {
        return Ok(Asked::Explain(explain::text(&settings)));
    }
    Program::build(settings).map(|program| Asked::Serve(Box::new(program)))
}

/// The command line, made from the table.
fn command() -> Command {
    let flags = SETTINGS.iter().filter_map(|setting| {
        let flag = setting.flag?;
        let mut arg = Arg::new(flag).long(flag).global(true).help(help(setting)).value_name(setting.kind.name());
        if matches!(setting.kind, Kind::Bool) {
            // `--tls` and `--tls=false` are both understood.
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        Some(arg.action(ArgAction::Set))
    });
    let config = Arg::new("config").long("config").global(true).value_name("PATH").help(
        "Configuration file, TOML [env: OPENSANDBOX_SERVER_CONFIG, SANDBOX_CONFIG_PATH] [default: ~/.sandbox.toml where there is one]",
    );
    let explain = Command::new("config").about("Shows the configuration").arg(
        Arg::new("explain")
            .long("explain")
            .action(ArgAction::SetTrue)
            .required(true)
            .help("Print each effective value and where it came from"),
    );
    Command::new("opensandbox-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The OpenSandbox lifecycle server")
        .after_help("Flags win over environment variables, these over the file, this over defaults.\nExit codes: 0 stopped as asked; 1 failed while it ran; 2 wrong usage or configuration.")
        .arg(config)
        .args(flags)
        .subcommand(explain)
}

fn help(setting: &Setting) -> String {
    let mut text = setting.about.to_owned();
    let names: Vec<_> = setting.environment().collect();
    if !names.is_empty() {
        text.push_str(&format!(" [env: {}]", names.join(", ")));
    }
    if let Some(default) = setting.default {
        text.push_str(&format!(" [default: {default}]"));
    }
    text
}

/// Puts the sources together.
fn settle(matches: &ArgMatches, environment: &impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
    let mut problems = Vec::new();
    let mut notices = Vec::new();
    let file = file::find(matches.get_one::<String>("config"), environment);
    let mut from_file = match file {
        Some((path, must)) => file::read(&path, must, &mut problems),
        None => file::File::default(),
    };
    let mut values = BTreeMap::new();
    for setting in SETTINGS {
        let flag = setting.flag.filter(|flag| matches.value_source(flag) == Some(ValueSource::CommandLine));
        let of_flag = flag.and_then(|flag| Some((Source::Flag(flag), matches.get_one::<String>(flag)?.clone())));
        let of_environment = || {
            setting.environment().find_map(|name| {
                let value = environment(name).filter(|value| !value.is_empty() && !is_service_link(value))?;
                Some((Source::Environment(name), value))
            })
        };
        let written = from_file.take(setting.key);
        let given = match of_flag.or_else(of_environment) {
            Some((source, text)) => Some((setting.kind.parse(&text), source)),
            None => written.map(|value| (setting.kind.take(value), Source::File(from_file.path.clone()))),
        };
        let effective = match given {
            Some((Ok(value), source)) => {
                match setting.usage {
                    Use::Effective => {}
                    Use::NoEffect(why) => notices.push(format!("{} from {source} has no effect: {why}", setting.key)),
                    Use::Refused(harmless, why) if value.text() != harmless => {
                        problems.push(format!("{} from {source}: {} is refused: {why}", setting.key, value.shown()));
                    }
                    Use::Refused(..) => {}
                }
                Effective { value: Some(value), source }
            }
            Some((Err(why), source)) => {
                problems.push(format!("{} from {source}: {why}", setting.key));
                continue;
            }
            None => {
                let default = setting.default.and_then(|text| setting.kind.parse(text).ok());
                Effective { value: default, source: Source::Default }
            }
        };
        values.insert(setting.key, effective);
    }
    notices.append(&mut from_file.notices);
    from_file.leftovers(&mut problems);
    if !problems.is_empty() {
        return Err(SettingsError(problems));
    }
    Ok(Settings { values, notices, problems })
}

/// Kubernetes gives each pod variables for the Services of its namespace: one named `opensandbox-server` makes
/// `OPENSANDBOX_SERVER_PORT=tcp://10.0.0.1:80`. That is no setting of ours.
fn is_service_link(value: &str) -> bool {
    value.starts_with("tcp://") || value.starts_with("udp://")
}

impl Settings {
    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)?.value.as_ref()
    }

    fn source(&self, key: &str) -> String {
        self.values.get(key).map_or_else(|| "default".to_owned(), |effective| effective.source.to_string())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.value(key).map(|value| value.text().to_owned()).filter(|text| !text.trim().is_empty())
    }

    fn integer(&self, key: &str) -> Option<i64> {
        match self.value(key) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    fn truth(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn list(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// Notes that the value of a key can't be used.
    fn refuse(&mut self, key: &str, why: impl fmt::Display) {
        self.problems.push(format!("{key} from {}: {why}", self.source(key)));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
