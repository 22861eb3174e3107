//! `osb sandbox create`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use opensandbox::{
    Client, Sandbox, SandboxBuilder,
    types::{CreateSandboxRequest, ImageSpec},
};
use serde::Serialize;

use crate::{
    args::{Lifetime, duration, lifetime, pair},
    connection::FileDefaults,
    output::{Printer, notice, spinner},
};

/// Options of `osb sandbox create`.
#[derive(Debug, Args)]
pub struct Options {
    /// File with a create request, JSON or YAML; other options replace what it says; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Image; a pool has its own [config: defaults.image]
    #[arg(short, long)]
    image: Option<String>,
    /// Account for the image's registry
    #[arg(long, value_name = "NAME", requires = "image_auth_password")]
    image_auth_username: Option<String>,
    /// Password for the image's registry
    #[arg(long, value_name = "PASSWORD", requires = "image_auth_username")]
    image_auth_password: Option<String>,
    /// Take it from this pool; short for --extension poolRef=NAME
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// How long it lives, e.g. 10m; "none" for until it is killed [config: defaults.timeout] [default: 10m]
    #[arg(short, long, value_parser = lifetime)]
    timeout: Option<Lifetime>,
    /// Variable of every command's environment; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Label to find it by; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Further wish; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    extension: Vec<(String, String)>,
    /// Limit, e.g. cpu=500m; repeatable
    #[arg(long, value_name = "NAME=QUANTITY", value_parser = pair)]
    resource: Vec<(String, String)>,
    /// One word of the program to start and its arguments; repeatable
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Do not wait until it answers
    #[arg(long)]
    skip_health_check: bool,
    /// How long to wait until it answers, e.g. 30s [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ready_timeout: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct Created<'a> {
    id: &'a str,
    status: &'a str,
    warnings: &'a [String],
}

/// The request of the file, with image and pool of the options.
fn from_file(client: &Client, path: &Path, image: Option<&str>, pool: Option<&str>) -> Result<SandboxBuilder> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?
    };
    // JSON is YAML as well.
    let mut request: CreateSandboxRequest = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("{} is no create request", path.display()))?;
    if let Some(uri) = image {
        request.image = Some(ImageSpec { uri: uri.to_owned(), auth: None });
    }
    let builder = SandboxBuilder::from_request(request).client(client);
    Ok(match pool {
        Some(pool) => builder.pool(pool),
        None => builder,
    })
}

/// Runs it.
pub async fn run(client: &Client, defaults: &FileDefaults, printer: Printer, options: Options) -> Result<ExitCode> {
    let of_file = match &options.file {
        Some(path) => Some(from_file(client, path, options.image.as_deref(), options.pool.as_deref())?),
        None => None,
    };
    let pooled = options.pool.is_some() || options.extension.iter().any(|(key, _)| key == "poolRef");
    let image = options.image.or_else(|| defaults.image.clone().filter(|_| !pooled));
    let mut builder = match (of_file, image, &options.pool) {
        (Some(builder), ..) => builder,
        (None, Some(image), Some(pool)) => client.sandbox(image).pool(pool),
        (None, Some(image), None) => client.sandbox(image),
        (None, None, Some(pool)) => Sandbox::from_pool(pool).client(client),
        (None, None, None) => match options.extension.iter().find(|(key, _)| key == "poolRef") {
            Some((_, pool)) => Sandbox::from_pool(pool).client(client),
            None => bail!("there is neither an image nor a pool; give --pool NAME or --image IMAGE"),
        },
    };
    for (key, value) in options.extension {
        builder = builder.extension(key, value);
    }
    for (key, value) in options.metadata {
        builder = builder.metadata(key, value);
    }
    for (name, quantity) in options.resource {
        builder = builder.resource(name, quantity);
    }
    if let (Some(name), Some(password)) = (options.image_auth_username, options.image_auth_password) {
        builder = builder.image_auth(name, password);
    }
    let time = match (options.timeout, &defaults.timeout) {
        (Some(time), _) => Some(time),
        (None, Some(text)) => {
            Some(lifetime(text).map_err(anyhow::Error::msg).context("defaults.timeout of the configuration file")?)
        }
        (None, None) => None,
    };
    // What the file says of its lifetime stands against the configuration's default.
    let time = time.filter(|_| options.file.is_none() || options.timeout.is_some());
    builder = match time {
        Some(Lifetime::Limited(time)) => builder.timeout(time),
        Some(Lifetime::Unlimited) => builder.no_timeout(),
        None => builder,
    };
    if let Some(timeout) = options.ready_timeout {
        builder = builder.ready_timeout(timeout);
    }
    if !options.entrypoint.is_empty() {
        builder = builder.entrypoint(options.entrypoint);
    }
    builder = builder.envs(options.env).skip_health_check(options.skip_health_check);

    let waiting = spinner("creating a sandbox");
    let created = builder.create().await;
    waiting.finish_and_clear();
    let sandbox = created?;
    for warning in sandbox.warnings() {
        notice(&format!("warning: {warning}"))?;
    }
    let status = if options.skip_health_check { "Created" } else { "Running" };
    let view = Created { id: sandbox.id(), status, warnings: sandbox.warnings() };
    printer.object(&view, &[("id", view.id.to_owned()), ("status", view.status.to_owned())])?;
    Ok(ExitCode::SUCCESS)
}
