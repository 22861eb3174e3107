//! `osb pool`: the pools that sandboxes are taken from.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::{cli::Globals, connection, output::Printer, views::PoolView};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List pools
    List,
    /// Show a pool
    Get {
        /// Its name
        name: String,
    },
}

/// Runs a verb.
pub async fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    let printer = Printer::structured(globals.output)?;
    let (client, _) = connection::connect(globals)?;
    match verb {
        Verb::List => {
            let pools: Vec<PoolView> = client.pools().list().await?.into_iter().map(Into::into).collect();
            printer.list(
                &serde_json::json!({ "items": &pools }),
                &pools,
                HEADER,
                row,
                "there are no pools; apply one with kubectl",
            )?;
        }
        Verb::Get { name } => {
            let pool = PoolView::from(client.pools().get(&name).await?);
            let lines: Vec<_> = HEADER.iter().copied().zip(row(&pool)).collect();
            printer.object(&pool, &lines)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const HEADER: &[&str] = &["NAME", "TOTAL", "ALLOCATED", "AVAILABLE", "BUFFER", "POOL", "CREATED"];

fn row(pool: &PoolView) -> Vec<String> {
    let count = |n: Option<i32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        pool.name.clone(),
        count(pool.total),
        count(pool.allocated),
        count(pool.available),
        format!("{}-{}", pool.buffer_min, pool.buffer_max),
        format!("{}-{}", pool.pool_min, pool.pool_max),
        pool.created_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
    ]
}
