//! `osb top`: pools and sandboxes, and what they use.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use futures::{StreamExt, stream};
use opensandbox::{Client, ListSandboxes, Usage};
use serde::Serialize;

use crate::{
    args::duration,
    cli::Globals,
    connection,
    output::{Format, Printer, line, plain_table, print_table},
    views::{PoolView, SandboxView},
};

/// Sandboxes asked at the same time.
const PARALLEL: usize = 16;
/// Time in which a sandbox tells what it uses, or is shown without.
const LIMIT: Duration = Duration::from_secs(2);

/// Options of `osb top`.
#[derive(Debug, Args)]
pub struct Options {
    /// Time between two looks
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    interval: Duration,
    /// Looks after which it ends; without it, it goes on until it is interrupted
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Sandboxes that are shown, up to 200
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    sandbox: SandboxView,
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Look {
    pools: Vec<PoolView>,
    sandboxes: Vec<Row>,
    total_sandboxes: u64,
}

async fn look(client: &Client, limit: u32) -> Result<Look> {
    let (pools, clients) = (client.pools(), client.clone());
    let (pools, page) = tokio::join!(pools.list(), clients.list(ListSandboxes::new().page_size(limit)));
    let page = page?;
    let sandboxes = stream::iter(page.items)
        .map(|info| async move {
            let sandbox = SandboxView::from(info);
            if sandbox.status.state != "Running" {
                return Row { sandbox, usage: None };
            }
            let handle = client.attach(&sandbox.id);
            let usage = match tokio::time::timeout(LIMIT, handle.usage()).await {
                Ok(Ok(usage)) => Some(usage),
                _ => None,
            };
            Row { sandbox, usage }
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let pools = pools?.into_iter().map(PoolView::from).collect();
    Ok(Look { pools, sandboxes, total_sandboxes: page.pagination.total_items })
}

/// Runs it.
pub async fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    let table = matches!(globals.output, None | Some(Format::Table));
    let printer = Printer::structured(globals.output)?;
    let (client, _) = connection::connect(globals)?;
    let clear = table && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(options.interval);
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            _ = ticks.tick() => {}
            ended = tokio::signal::ctrl_c() => {
                ended?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let now = look(&client, options.limit).await?;
        if !table {
            printer.value(&now)?;
        } else {
            if clear {
                // Home, and everything below it away.
                anstream::print!("\u{1b}[H\u{1b}[J");
            }
            print(&now)?;
        }
        left -= 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(now: &Look) -> Result<()> {
    let mut table = plain_table();
    table.set_header(["POOL", "TOTAL", "ALLOCATED", "AVAILABLE", "MAX"]);
    let count = |n: Option<i32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    table.add_rows(now.pools.iter().map(|pool| {
        [pool.name.clone(), count(pool.total), count(pool.allocated), count(pool.available), pool.pool_max.to_string()]
    }));
    print_table(&table)?;
    line("")?;
    let mut table = plain_table();
    table.set_header(["SANDBOX", "STATE", "FROM", "CPU", "MEMORY", "PROCESSES", "ENDS"]);
    table.add_rows(now.sandboxes.iter().map(|row| {
        let dash = || "-".to_owned();
        let used = row.usage.map(|usage| usage.metrics);
        [
            row.sandbox.id.clone(),
            row.sandbox.status.state.clone(),
            row.sandbox.origin(),
            used.map_or_else(dash, |m| format!("{:.1} %", m.cpu_used_pct)),
            used.map_or_else(dash, |m| format!("{:.0}/{:.0} MiB", m.mem_used_mib, m.mem_total_mib)),
            row.usage.and_then(|usage| usage.pids).map_or_else(dash, |n| n.to_string()),
            row.sandbox.end(),
        ]
    }));
    print_table(&table)?;
    let shown = now.sandboxes.len() as u64;
    if shown < now.total_sandboxes {
        line(&format!("{shown} of {} sandboxes; --limit shows more", now.total_sandboxes))?;
    }
    Ok(())
}
