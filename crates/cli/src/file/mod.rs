//! `osb file`: files of a sandbox.

pub mod transfer;
mod tree;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use opensandbox::types::Permission;

use crate::{cli::Globals, connection};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print a file, byte for byte
    Cat(transfer::Cat),
    /// Write a file, from standard input unless --content is given
    Write(transfer::Write),
    /// Copy a file into a sandbox
    Upload(transfer::Upload),
    /// Copy a file out of a sandbox
    Download(transfer::Download),
    /// Remove files
    Rm(tree::Paths),
    /// Move a file or directory
    Mv(tree::Move),
    /// Make directories
    Mkdir(tree::Mkdir),
    /// Remove directories and all below them
    Rmdir(tree::Paths),
    /// Find files by a pattern of their names
    Search(tree::Search),
    /// Show what is known of files
    Info(tree::Paths),
    /// Change mode and owners
    Chmod(tree::Chmod),
    /// Replace a text in a file
    Replace(tree::Replace),
}

/// Mode and owners.
#[derive(Debug, Args)]
pub struct Permissions {
    /// Mode in octal digits, e.g. 644
    #[arg(long, value_parser = crate::args::mode)]
    mode: Option<u32>,
    /// Owner, by name or number
    #[arg(long)]
    owner: Option<String>,
    /// Group, by name or number
    #[arg(long)]
    group: Option<String>,
}

impl Permissions {
    fn to_wire(&self) -> Permission {
        // The wire has octal digits in a decimal number.
        let mode = self.mode.and_then(|mode| format!("{mode:o}").parse().ok());
        Permission { mode, owner: self.owner.clone(), group: self.group.clone() }
    }
}

/// Runs a verb.
pub async fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let output = globals.output;
    match verb {
        Verb::Cat(options) => transfer::cat(&client, output, &options).await,
        Verb::Write(options) => transfer::write(&client, output, options).await,
        Verb::Upload(options) => transfer::upload(&client, output, &options).await,
        Verb::Download(options) => transfer::download(&client, output, &options).await,
        Verb::Rm(options) => tree::rm(&client, output, &options).await,
        Verb::Mv(options) => tree::mv(&client, output, &options).await,
        Verb::Mkdir(options) => tree::mkdir(&client, output, &options).await,
        Verb::Rmdir(options) => tree::rmdir(&client, output, &options).await,
        Verb::Search(options) => tree::search(&client, output, &options).await,
        Verb::Info(options) => tree::info(&client, output, &options).await,
        Verb::Chmod(options) => tree::chmod(&client, output, &options).await,
        Verb::Replace(options) => tree::replace(&client, output, &options).await,
    }
}
