//! `osb man`: the manual page.

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use clap::CommandFactory;

/// Prints the page of `osb` and after it that of each verb.
pub fn run() -> Result<ExitCode> {
    let mut command = crate::cli::Cli::command();
    command.build();
    let mut page = Vec::new();
    print(command, &mut page)?;
    std::io::stdout().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}

fn print(command: clap::Command, page: &mut Vec<u8>) -> Result<()> {
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect();
    clap_mangen::Man::new(command).render(page)?;
    verbs.into_iter().try_for_each(|verb| print(verb, page))
}
