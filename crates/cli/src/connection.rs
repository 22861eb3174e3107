//! Which platform is spoken to: flags, then the environment, then the configuration file, then the
//! platform that `osb up` started on this machine.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use opensandbox::{
    Client, ConnectionConfig, ENV_API_KEY, ENV_DOMAIN, ENV_PROTOCOL, ENV_REQUEST_TIMEOUT, ENV_USE_SERVER_PROXY,
    Protocol,
};
use serde::Deserialize;

use crate::cli::Globals;

/// Directory of the platform on this machine, unless it is the usual one.
const ENV_OSB_HOME: &str = "OSB_HOME";

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct File {
    connection: FileConnection,
    output: FileOutput,
    pub defaults: FileDefaults,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileConnection {
    api_key: Option<String>,
    domain: Option<String>,
    protocol: Option<String>,
    request_timeout: Option<f64>,
    use_server_proxy: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileOutput {
    color: Option<bool>,
}

/// What a create takes when its options say nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FileDefaults {
    pub image: Option<String>,
    pub timeout: Option<String>,
}

/// What `osb up` writes down.
#[derive(Debug, Deserialize)]
struct Local {
    domain: String,
    api_key: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment,
    File,
    Local,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Local => "osb up",
            Self::Default => "default",
        })
    }
}

/// Every setting with its source.
#[derive(Debug)]
pub struct Resolved {
    pub api_key: (Option<String>, Source),
    pub domain: (String, Source),
    pub protocol: (String, Source),
    pub request_timeout: (f64, Source),
    pub use_server_proxy: (bool, Source),
    pub defaults: FileDefaults,
}

/// The configuration file's path.
pub fn config_path(globals: &Globals) -> Result<PathBuf> {
    if let Some(path) = &globals.config {
        return Ok(path.clone());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("HOME is not set, so there is no configuration file; name one with --config")?;
    Ok(Path::new(&home).join(".opensandbox/config.toml"))
}

/// Reads the configuration file; one that is not there is empty.
pub fn load(globals: &Globals) -> Result<File> {
    let path = match config_path(globals) {
        Ok(path) => path,
        Err(_) => return Ok(File::default()),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("the configuration file {} cannot be read", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && globals.config.is_none() => Ok(File::default()),
        Err(error) => Err(error).with_context(|| format!("the configuration file {} cannot be read", path.display())),
    }
}

/// Whether the configuration file leaves colour on. A broken file is reported by who needs it.
pub fn color_wanted(globals: &Globals) -> bool {
    load(globals).ok().and_then(|file| file.output.color).unwrap_or(true)
}

/// Every setting with its source.
pub fn resolve(globals: &Globals) -> Result<Resolved> {
    merge(globals, load(globals)?, |name| std::env::var(name).ok(), local)
}

/// The client for what was resolved, and the defaults of the configuration file.
pub fn connect(globals: &Globals) -> Result<(Client, FileDefaults)> {
    let resolved = resolve(globals)?;
    let protocol: Protocol = resolved.protocol.0.parse()?;
    let timeout = Duration::try_from_secs_f64(resolved.request_timeout.0).ok().filter(|timeout| !timeout.is_zero());
    let timeout = timeout.context("the request timeout must be seconds above 0")?;
    let mut config = ConnectionConfig::default()
        .protocol(protocol)
        .domain(&resolved.domain.0)
        .request_timeout(timeout)
        .use_server_proxy(resolved.use_server_proxy.0)
        .user_agent(concat!("osb/", env!("CARGO_PKG_VERSION")));
    if let Some(key) = resolved.api_key.0 {
        config = config.api_key(key);
    }
    Ok((Client::new(config)?, resolved.defaults))
}

fn merge(
    globals: &Globals,
    file: File,
    env: impl Fn(&str) -> Option<String>,
    local: impl Fn() -> Option<Local>,
) -> Result<Resolved> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let pick = |flag: &Option<String>, name: &str, file: Option<String>| {
        let flag = flag.clone().filter(|value| !value.is_empty()).map(|value| (value, Source::Flag));
        flag.or_else(|| env(name).map(|value| (value, Source::Environment)))
            .or_else(|| file.map(|value| (value, Source::File)))
    };
    let domain = pick(&globals.domain, ENV_DOMAIN, file.connection.domain);
    let key = pick(&globals.api_key, ENV_API_KEY, file.connection.api_key);
    // The key of the platform here is for the platform here: it never goes elsewhere.
    let local = if domain.is_none() { local() } else { None };
    let (local_domain, local_key) = local.map_or((None, None), |local| (Some(local.domain), local.api_key));
    let protocol = pick(&globals.protocol, ENV_PROTOCOL, file.connection.protocol);
    let timeout =
        pick(&globals.request_timeout, ENV_REQUEST_TIMEOUT, file.connection.request_timeout.map(|t| t.to_string()));
    let timeout = match timeout {
        Some((text, source)) => match text.parse() {
            Ok(seconds) => (seconds, source),
            Err(_) => bail!("the request timeout must be seconds, not {text:?} (from the {source})"),
        },
        None => (30.0, Source::Default),
    };
    let proxy = match (globals.use_server_proxy, globals.no_use_server_proxy, env(ENV_USE_SERVER_PROXY)) {
        (true, _, _) => (true, Source::Flag),
        (_, true, _) => (false, Source::Flag),
        (_, _, Some(text)) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => (true, Source::Environment),
            "0" | "false" | "no" | "off" => (false, Source::Environment),
            _ => bail!("{ENV_USE_SERVER_PROXY} must be true or false, not {text:?}"),
        },
        _ => file.connection.use_server_proxy.map_or((false, Source::Default), |yes| (yes, Source::File)),
    };
    let api_key = match (key, local_key) {
        (Some((key, source)), _) => (Some(key), source),
        (None, Some(key)) => (Some(key), Source::Local),
        (None, None) => (None, Source::Default),
    };
    Ok(Resolved {
        api_key,
        domain: domain
            .or(local_domain.map(|d| (d, Source::Local)))
            .unwrap_or_else(|| ("127.0.0.1:8088".to_owned(), Source::Default)),
        protocol: protocol.unwrap_or_else(|| ("http".to_owned(), Source::Default)),
        request_timeout: timeout,
        use_server_proxy: proxy,
        defaults: file.defaults,
    })
}

/// What the platform on this machine wrote down, if there is one this user may speak to.
fn local() -> Option<Local> {
    let directories = match std::env::var_os(ENV_OSB_HOME).filter(|home| !home.is_empty()) {
        Some(home) => vec![PathBuf::from(home)],
        None => {
            let of_user = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share/opensandbox"));
            [Some(PathBuf::from("/var/lib/opensandbox")), of_user].into_iter().flatten().collect()
        }
    };
    directories.iter().find_map(|directory| {
        let text = std::fs::read_to_string(directory.join("connection.toml")).ok()?;
        toml::from_str(&text)
            .inspect_err(|error| tracing::warn!(directory = %directory.display(), %error, "connection.toml is damaged"))
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Option<Local> {
        Some(Local { domain: "127.0.0.1:9".to_owned(), api_key: Some("local".to_owned()) })
    }

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let globals = Globals { domain: Some("flag".to_owned()), ..Globals::default() };
        let env = |name: &str| match name {
            ENV_DOMAIN | ENV_API_KEY => Some("env".to_owned()),
            _ => None,
        };
        let resolved = merge(
            &globals,
            file("connection = { domain = 'file', api_key = 'file', request_timeout = 5 }"),
            env,
            running,
        )
        .unwrap();
        assert_eq!(resolved.domain, ("flag".to_owned(), Source::Flag));
        assert_eq!(resolved.api_key, (Some("env".to_owned()), Source::Environment));
        assert_eq!(resolved.request_timeout, (5.0, Source::File));
    }

    #[test]
    fn the_platform_here_is_the_last_choice_and_its_key_stays_here() {
        let nothing = |_: &str| None;
        let resolved = merge(&Globals::default(), File::default(), nothing, running).unwrap();
        assert_eq!((resolved.domain.0.as_str(), resolved.api_key.0.as_deref()), ("127.0.0.1:9", Some("local")));
        let elsewhere = Globals { domain: Some("example.com".to_owned()), ..Globals::default() };
        assert_eq!(merge(&elsewhere, File::default(), nothing, running).unwrap().api_key.0, None);
        let none = merge(&Globals::default(), File::default(), nothing, || None).unwrap();
        assert_eq!(none.domain, ("127.0.0.1:8088".to_owned(), Source::Default));
    }
}
