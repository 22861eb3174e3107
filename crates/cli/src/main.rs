//! `osb`: sandboxes from the command line, and a platform for them on this machine.

mod args;
mod cli;
mod command;
mod completion;
mod config;
mod connection;
mod cp;
mod diagnostics;
mod doctor;
mod events;
mod explain;
mod file;
#[cfg(feature = "local")]
mod local;
mod man;
mod output;
mod pool;
mod port_forward;
mod report;
mod run;
mod sandbox;
mod shell;
mod top;
mod views;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A pod's shim is this program again; it clones, so it must come before any thread.
    #[cfg(feature = "local")]
    local_node::shim::main_if_asked();
    let cli = cli::parse();
    let outcome = cli::init(&cli).and_then(|()| cli::run(cli));
    report::exit_code(outcome)
}
