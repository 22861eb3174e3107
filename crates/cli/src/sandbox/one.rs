//! `osb sandbox get`, `kill`, `renew`, `endpoint`, `health` and `metrics`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use opensandbox::Client;
use serde_json::json;

use crate::{
    args::duration,
    output::{Format, Printer, line},
    report,
    views::SandboxView,
};

/// Sandboxes ended at the same time.
const PARALLEL: usize = 16;

/// A sandbox.
#[derive(Debug, Args)]
pub struct Id {
    /// Id of the sandbox
    id: String,
}

/// Options of `osb sandbox metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Id of the sandbox
    id: String,
    /// Print them each second until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Options of `osb sandbox resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// Id of the sandbox
    id: String,
    /// Do not wait until it answers
    #[arg(long)]
    skip_health_check: bool,
    /// How long to wait until it answers
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    resume_timeout: Duration,
}

/// Options of `osb sandbox kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Ids of the sandboxes
    #[arg(required = true)]
    ids: Vec<String>,
}

/// Options of `osb sandbox renew`.
#[derive(Debug, Args)]
pub struct Renew {
    /// Id of the sandbox
    id: String,
    /// How long from now, e.g. 30m
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
}

/// Options of `osb sandbox endpoint`.
#[derive(Debug, Args)]
pub struct Port {
    /// Id of the sandbox
    id: String,
    /// Port inside the sandbox
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

/// Shows a sandbox.
pub async fn get(client: &Client, printer: Printer, options: &Id) -> Result<ExitCode> {
    let sandbox = SandboxView::from(client.get(&options.id).await?);
    let mut rows = vec![("id", sandbox.id.clone()), ("state", sandbox.status.state.clone())];
    rows.extend(sandbox.status.reason.clone().map(|reason| ("reason", reason)));
    rows.extend(sandbox.status.message.clone().map(|message| ("message", message)));
    rows.push(("from", sandbox.origin()));
    if !sandbox.entrypoint.is_empty() {
        rows.push(("entrypoint", sandbox.entrypoint.join(" ")));
    }
    rows.extend(sandbox.metadata.iter().map(|(key, value)| ("metadata", format!("{key}={value}"))));
    rows.push(("created", sandbox.created_at.to_string()));
    rows.push(("ends", sandbox.end()));
    printer.object(&sandbox, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends sandboxes. All are tried; one that cannot be ended makes the exit code 1.
pub async fn kill(client: &Client, printer: Printer, options: &Kill) -> Result<ExitCode> {
    let outcomes: Vec<_> = stream::iter(&options.ids)
        .map(|id| async move { (id, client.kill(id).await) })
        .buffered(PARALLEL)
        .collect()
        .await;
    let rows: Vec<_> =
        outcomes.iter().map(|(id, outcome)| (*id, if outcome.is_ok() { "terminated" } else { "failed" })).collect();
    let whole: Vec<_> = rows.iter().map(|(id, status)| json!({ "sandbox_id": id, "status": status })).collect();
    printer.list(
        &whole,
        &rows,
        &["SANDBOX", "STATUS"],
        |(id, status)| vec![(*id).clone(), (*status).to_owned()],
        "",
    )?;
    let mut code = ExitCode::SUCCESS;
    for (_, outcome) in outcomes {
        if let Err(error) = outcome {
            code = report::exit_code(Err(error.into()));
        }
    }
    Ok(code)
}

/// Lets a sandbox live longer.
pub async fn renew(client: &Client, printer: Printer, options: &Renew) -> Result<ExitCode> {
    let end = client.renew(&options.id, options.timeout).await?;
    let whole = json!({ "sandbox_id": options.id, "expires_at": end });
    printer.object(&whole, &[("sandbox", options.id.clone()), ("ends", end.to_string())])?;
    Ok(ExitCode::SUCCESS)
}

/// Shows where a port is reached.
pub async fn endpoint(client: &Client, printer: Printer, options: &Port) -> Result<ExitCode> {
    let endpoint = client.endpoint(&options.id, options.port).await?;
    let mut rows = vec![("endpoint", endpoint.endpoint.clone())];
    rows.extend(endpoint.headers.iter().flatten().map(|(name, value)| ("header", format!("{name}: {value}"))));
    let whole = json!({ "endpoint": endpoint.endpoint, "headers": endpoint.headers.clone().unwrap_or_default() });
    printer.object(&whole, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks whether a sandbox answers.
pub async fn health(client: &Client, printer: Printer, options: &Id) -> Result<ExitCode> {
    // A sandbox that does not exist is an error, not an unhealthy sandbox.
    client.get(&options.id).await?;
    let healthy = client.attach(&options.id).is_healthy().await;
    printer.object(
        &json!({ "sandbox_id": options.id, "healthy": healthy }),
        &[("sandbox", options.id.clone()), ("healthy", healthy.to_string())],
    )?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Freezes a sandbox.
pub async fn pause(client: &Client, printer: Printer, options: &Id) -> Result<ExitCode> {
    client.pause(&options.id).await?;
    printer.done(&format!("sandbox {} is being paused", options.id))?;
    Ok(ExitCode::SUCCESS)
}

/// Goes on with a sandbox.
pub async fn resume(client: &Client, printer: Printer, options: &Resume) -> Result<ExitCode> {
    client.resume(&options.id).await?;
    if !options.skip_health_check {
        client.attach(&options.id).wait_until_ready(options.resume_timeout).await?;
    }
    printer.done(&format!("sandbox {} is resumed", options.id))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints processor and memory in use each second: a line each, or a JSON object each.
pub async fn watch_metrics(client: &Client, format: Option<Format>, options: &Metrics) -> Result<ExitCode> {
    let json = match format {
        None | Some(Format::Raw | Format::Table) => false,
        format => Printer::structured(format).map(|_| true)?,
    };
    let mut seconds = client.attach(&options.id).watch_usage().await?;
    while let Some(usage) = seconds.try_next().await? {
        let now = usage.metrics;
        line(&if json {
            serde_json::to_string(&usage)?
        } else {
            let (memory, limit) = (now.mem_used_mib, now.mem_total_mib);
            format!("cpu {:5.1} % of {}  memory {memory:.1} of {limit:.1} MiB", now.cpu_used_pct, now.cpu_count)
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows processor and memory in use.
pub async fn metrics(client: &Client, printer: Printer, options: &Metrics) -> Result<ExitCode> {
    let metrics = client.attach(&options.id).metrics().await?;
    printer.object(
        &metrics,
        &[
            ("cpu", format!("{:.1} % of {}", metrics.cpu_used_pct, metrics.cpu_count)),
            ("memory", format!("{:.1} of {:.1} MiB", metrics.mem_used_mib, metrics.mem_total_mib)),
        ],
    )?;
    Ok(ExitCode::SUCCESS)
}
