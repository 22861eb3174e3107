//! `osb image`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::HumanBytes;
use local_node::images::{ImageConfig, ImageStore};
use serde::Serialize;

use super::home::{Home, require_root};
use crate::cli::Globals;
use crate::output::{Printer, spinner};

/// The verbs of `osb image`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import an OCI layout, an OCI archive, or what `docker save` writes
    Import {
        /// Directory or file, plain or compressed
        path: PathBuf,
        /// Name of the image, when the file has none or another
        #[arg(long, value_name = "IMAGE")]
        name: Option<String>,
    },
    /// List the images on this machine
    List,
    /// Forget an image
    Rm {
        /// Name of the image
        image: String,
    },
}

#[derive(Serialize)]
struct Line {
    image: String,
    id: String,
    size: u64,
}

/// Works on the image store, whether a platform runs or not.
pub fn run(globals: &Globals, command: Command) -> Result<ExitCode> {
    require_root("image")?;
    let printer = Printer::structured(globals.output)?;
    let home = Home::from_environment();
    home.create()?;
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let guests = binary.parent().context("this program lies in no directory")?.to_owned();
    let store = ImageStore::open(ImageConfig::new(home.images(), guests))?;
    super::runtime()?.block_on(async {
        let images: Vec<Line> = match command {
            Command::Import { path, name } => {
                let spinner = spinner(&format!("importing {}", path.display()));
                let imported = store.import(&path, name.as_deref()).await;
                spinner.finish_and_clear();
                imported?.into_iter().map(|i| Line { image: i.reference, id: i.id, size: i.size }).collect()
            }
            Command::List => {
                store.list().await?.into_iter().map(|i| Line { image: i.reference, id: i.id, size: i.size }).collect()
            }
            Command::Rm { image } => {
                store.remove(&image).await?;
                anstream::eprintln!("{image} is forgotten");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let row = |i: &Line| vec![i.image.clone(), short(&i.id).to_owned(), HumanBytes(i.size).to_string()];
        printer.list(
            &images,
            &images,
            &["IMAGE", "ID", "SIZE"],
            row,
            "no images; bring one with `osb image import FILE`",
        )?;
        Ok(ExitCode::SUCCESS)
    })
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}
