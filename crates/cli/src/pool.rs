//! `osb pool`: the pools that sandboxes are taken from.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use opensandbox::types::{CreatePoolRequest, PoolCapacity};

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
    /// Make a pool
    Create {
        /// Its name
        name: String,
        /// File with the pod template, JSON or YAML
        #[arg(short, long, value_name = "FILE")]
        template: PathBuf,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Change the sizes of a pool; those that are not given stay
    Scale {
        /// Its name
        name: String,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Delete a pool
    Delete {
        /// Its name
        name: String,
    },
}

/// Sizes of a pool, in pods.
#[derive(Debug, Args)]
pub struct Sizes {
    /// Fewest warm pods at rest
    #[arg(long, value_name = "N")]
    buffer_min: Option<i32>,
    /// Most warm pods at rest
    #[arg(long, value_name = "N")]
    buffer_max: Option<i32>,
    /// Fewest pods in all
    #[arg(long, value_name = "N")]
    pool_min: Option<i32>,
    /// Most pods in all
    #[arg(long, value_name = "N")]
    pool_max: Option<i32>,
}

impl Sizes {
    fn over(&self, known: PoolCapacity) -> PoolCapacity {
        PoolCapacity {
            buffer_min: self.buffer_min.unwrap_or(known.buffer_min),
            buffer_max: self.buffer_max.unwrap_or(known.buffer_max),
            pool_min: self.pool_min.unwrap_or(known.pool_min),
            pool_max: self.pool_max.unwrap_or(known.pool_max),
        }
    }
}

/// Sizes of a new pool for which nothing is said.
const NEW: PoolCapacity = PoolCapacity { buffer_min: 1, buffer_max: 3, pool_min: 0, pool_max: 10 };

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
            show(printer, &pool)?;
        }
        Verb::Create { name, template, sizes } => {
            let text =
                std::fs::read_to_string(&template).with_context(|| format!("{} cannot be read", template.display()))?;
            let template: serde_json::Value = serde_saphyr::from_str(&text)
                .map_err(|error| anyhow::anyhow!("{error}"))
                .with_context(|| format!("{} is no pod template", template.display()))?;
            let request = CreatePoolRequest { name, template, capacity_spec: sizes.over(NEW) };
            show(printer, &client.pools().create(&request).await?.into())?;
        }
        Verb::Scale { name, sizes } => {
            let known = client.pools().get(&name).await?.capacity_spec;
            show(printer, &client.pools().update(&name, sizes.over(known)).await?.into())?;
        }
        Verb::Delete { name } => {
            client.pools().delete(&name).await?;
            printer.done(&format!("pool {name} is being deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(printer: Printer, pool: &PoolView) -> Result<()> {
    let lines: Vec<_> = HEADER.iter().copied().zip(row(pool)).collect();
    printer.object(pool, &lines)
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
