//! `osb status`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use api_types::crd::{BatchPhase, BatchSandbox, Pool};
use clap::Args;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};

use super::home::Home;
use crate::cli::Globals;
use crate::output::{Format, Printer, plain_table, print_table};

/// How long the platform may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What `osb status` may be told.
#[derive(Debug, Args)]
pub struct Options {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    running: bool,
    pid: Option<i32>,
    directory: String,
    domain: Option<String>,
    api_key: Option<String>,
    kubeconfig: String,
    memory_kib: Option<u64>,
    pools: Vec<PoolLine>,
    sandboxes: SandboxCounts,
}

#[derive(Debug, Serialize)]
struct PoolLine {
    name: String,
    total: i32,
    allocated: i32,
    available: i32,
}

#[derive(Debug, Default, Serialize)]
struct SandboxCounts {
    running: usize,
    pending: usize,
    failed: usize,
}

/// The file from which SDK users and `osb` learn where the platform is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Address of the lifecycle API.
    pub domain: String,
    /// Its key.
    pub api_key: String,
}

/// Tells how the platform is. Exit code 3 when it does not run.
pub fn run(globals: &Globals, _: &Options) -> Result<ExitCode> {
    let home = Home::from_environment();
    let report = super::runtime()?.block_on(report(&home))?;
    match globals.output.unwrap_or(Format::Table) {
        Format::Table => print(&report)?,
        format => Printer::structured(Some(format))?.value(&report)?,
    }
    Ok(if report.running { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

async fn report(home: &Home) -> Result<Report> {
    let pid = home.holder();
    let connection: Option<Connection> =
        std::fs::read_to_string(home.connection()).ok().and_then(|text| toml::from_str(&text).ok());
    let mut report = Report {
        running: pid.is_some(),
        pid: pid.map(nix::unistd::Pid::as_raw),
        directory: home.root().display().to_string(),
        domain: connection.as_ref().map(|c| c.domain.clone()),
        api_key: connection.map(|c| c.api_key),
        kubeconfig: home.kubeconfig().display().to_string(),
        memory_kib: pid.and_then(|p| resident_kib(p.as_raw())),
        pools: Vec::new(),
        sandboxes: SandboxCounts::default(),
    };
    if report.running {
        tokio::time::timeout(LIMIT, holdings(home, &mut report))
            .await
            .context("the platform runs but does not answer; its log is osb.log in its directory")??;
    }
    Ok(report)
}

async fn holdings(home: &Home, report: &mut Report) -> Result<()> {
    let client = super::client(home).await?;
    let all = ListParams::default();
    let pools: Api<Pool> = Api::all(client.clone());
    for pool in pools.list(&all).await.context("cannot list the pools")? {
        let status = pool.status.clone().unwrap_or_default();
        report.pools.push(PoolLine {
            name: format!("{}/{}", pool.namespace().unwrap_or_default(), pool.name_any()),
            total: status.total,
            allocated: status.allocated,
            available: status.available,
        });
    }
    let batches: Api<BatchSandbox> = Api::all(client);
    for batch in batches.list(&all).await.context("cannot list the sandboxes")? {
        match batch.status.and_then(|s| s.phase) {
            Some(BatchPhase::Succeed) => report.sandboxes.running += 1,
            Some(BatchPhase::Failed) => report.sandboxes.failed += 1,
            _ => report.sandboxes.pending += 1,
        }
    }
    Ok(())
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn print(report: &Report) -> Result<()> {
    if !report.running {
        anstream::println!("no platform runs from {}; start one with `osb up`", report.directory);
        return Ok(());
    }
    let mut table = plain_table();
    let pid = report.pid.map(|p| p.to_string()).unwrap_or_default();
    let memory = report.memory_kib.map(|k| format!("{:.1} MiB", k as f64 / 1024.0)).unwrap_or_default();
    for (name, value) in [
        ("process", pid.as_str()),
        ("memory", &memory),
        ("lifecycle API", report.domain.as_deref().unwrap_or("unknown")),
        ("API key", report.api_key.as_deref().unwrap_or("unknown")),
        ("kubeconfig", &report.kubeconfig),
    ] {
        table.add_row([name, value]);
    }
    let SandboxCounts { running, pending, failed } = report.sandboxes;
    table.add_row(["sandboxes", &format!("{running} running, {pending} pending, {failed} failed")]);
    print_table(&table)?;
    if !report.pools.is_empty() {
        let mut table = plain_table();
        table.set_header(["POOL", "TOTAL", "ALLOCATED", "AVAILABLE"]);
        for pool in &report.pools {
            table.add_row([
                pool.name.clone(),
                pool.total.to_string(),
                pool.allocated.to_string(),
                pool.available.to_string(),
            ]);
        }
        anstream::println!();
        print_table(&table)?;
    }
    Ok(())
}
