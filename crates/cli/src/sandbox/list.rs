//! `osb sandbox list`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use opensandbox::{Client, ListSandboxes};

use crate::{
    args::pair,
    output::{Printer, notice},
    views::{PageView, SandboxView},
};

/// Options of `osb sandbox list`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only those in this state; repeatable
    #[arg(short, long)]
    state: Vec<String>,
    /// Only those with this label; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Page, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    page: Option<u32>,
    /// Sandboxes per page, up to 200
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    page_size: Option<u32>,
}

/// Runs it.
pub async fn run(client: &Client, printer: Printer, options: Options) -> Result<ExitCode> {
    let mut which = ListSandboxes::new();
    for state in options.state {
        which = which.state(state);
    }
    for (key, value) in options.metadata {
        which = which.metadata(key, value);
    }
    if let Some(page) = options.page {
        which = which.page(page);
    }
    if let Some(size) = options.page_size {
        which = which.page_size(size);
    }
    let page = client.list(which).await?;
    let items: Vec<SandboxView> = page.items.into_iter().map(Into::into).collect();
    let whole = PageView { items: &items, pagination: page.pagination.into() };
    printer.list(&whole, &items, &["ID", "STATE", "FROM", "CREATED", "ENDS"], row, "there are no sandboxes")?;
    if whole.pagination.has_next_page {
        notice(&format!("page {} of {}; see more with --page", whole.pagination.page, whole.pagination.total_pages))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(sandbox: &SandboxView) -> Vec<String> {
    vec![
        sandbox.id.clone(),
        sandbox.status.state.clone(),
        sandbox.origin(),
        sandbox.created_at.to_string(),
        sandbox.end(),
    ]
}
