//! The tree of verbs and the options that all of them take.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{ArgAction, Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    command, completion, config, connection, cp, diagnostics, doctor, events, explain, file, man, output::Format, pool,
    port_forward, run, sandbox, shell, top,
};

/// Create sandboxes, run commands in them, move files in and out.
#[derive(Debug, Parser)]
#[command(name = "osb", version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 130 interrupted; 141 output closed.\n\
    `osb run`, `osb shell` and `osb command run` end with the exit code of the command, 128 + signal when a signal ended it.";

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Globals {
    /// API key [env: OPEN_SANDBOX_API_KEY]
    #[arg(long, global = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Host and port of the platform, or its URL [env: OPEN_SANDBOX_DOMAIN]
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub domain: Option<String>,
    /// http or https [env: OPEN_SANDBOX_PROTOCOL]
    #[arg(long, global = true, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Seconds a request may take [env: OPEN_SANDBOX_REQUEST_TIMEOUT]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub request_timeout: Option<String>,
    /// Reach sandboxes through the server [env: OPEN_SANDBOX_USE_SERVER_PROXY]
    #[arg(long, global = true, overrides_with = "no_use_server_proxy")]
    pub use_server_proxy: bool,
    /// Reach sandboxes directly
    #[arg(long, global = true, overrides_with = "use_server_proxy")]
    pub no_use_server_proxy: bool,
    /// Configuration file [default: ~/.opensandbox/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Tell more; twice tells everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print without colour
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What `osb` does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create, list and end sandboxes
    #[command(subcommand)]
    Sandbox(sandbox::Verb),
    /// Make a sandbox, run a command in it, end it; the exit code is the command's
    Run(Box<run::Options>),
    /// Sit at a terminal of a sandbox
    Shell(shell::Options),
    /// Copy files and directories into a sandbox or out of it
    Cp(cp::Options),
    /// Reach a port of a sandbox on this machine
    PortForward(port_forward::Options),
    /// Show pools and sandboxes and what they use, anew every few seconds
    Top(top::Options),
    /// Check what stands between this machine and a sandbox, changing nothing
    Doctor,
    /// Show where a sandbox's time went, what it waits for, and how it ended
    Explain(explain::Options),
    /// Print a sandbox's state, and with -w each change until it is gone
    Events(events::Options),
    /// Read what the sandbox container wrote and what Kubernetes recorded
    #[command(subcommand)]
    Diagnostics(diagnostics::Verb),
    /// Run commands in a sandbox
    #[command(subcommand)]
    Command(command::Verb),
    /// Read and write files of a sandbox
    #[command(subcommand)]
    File(file::Verb),
    /// Look at pools of warm sandboxes
    #[command(subcommand)]
    Pool(pool::Verb),
    /// Show and change the configuration
    #[command(subcommand)]
    Config(config::Verb),
    /// Print the completion script of a shell
    Completion(completion::Options),
    /// Print the manual page
    Man,
    #[cfg(feature = "local")]
    #[command(flatten)]
    Local(crate::local::LocalCommand),
}

/// Reads the command line; ends the process on wrong usage.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Sets colour and logs up.
pub fn init(cli: &Cli) -> Result<()> {
    if cli.globals.no_color || !connection::color_wanted(&cli.globals) {
        anstream::ColorChoice::Never.write_global();
    }
    let level = match cli.globals.verbose {
        0 => "warn",
        1 => "info,opensandbox=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colour = std::io::stderr().is_terminal() && anstream::ColorChoice::global() != anstream::ColorChoice::Never;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    Ok(())
}

/// Does what was asked.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { globals, verb } = cli;
    match verb {
        Verb::Completion(options) => completion::run(&options),
        Verb::Config(verb) => config::run(&globals, verb),
        #[cfg(feature = "local")]
        Verb::Local(verb) => crate::local::run(&globals, verb),
        Verb::Man => man::run(),
        Verb::Run(options) => block_on(run::run(&globals, *options)),
        Verb::Shell(options) => block_on(shell::run(&globals, options)),
        Verb::Cp(options) => block_on(cp::run(&globals, &options)),
        Verb::PortForward(options) => block_on(port_forward::run(&globals, &options)),
        Verb::Top(options) => block_on(top::run(&globals, &options)),
        Verb::Doctor => block_on(doctor::run(&globals)),
        Verb::Sandbox(verb) => block_on(sandbox::run(&globals, verb)),
        Verb::Explain(options) => block_on(explain::run(&globals, &options)),
        Verb::Events(options) => block_on(events::run(&globals, &options)),
        Verb::Diagnostics(verb) => block_on(diagnostics::run(&globals, verb)),
        Verb::Command(verb) => block_on(command::run(&globals, verb)),
        Verb::File(verb) => block_on(file::run(&globals, verb)),
        Verb::Pool(verb) => block_on(pool::run(&globals, verb)),
    }
}

/// One call at a time needs one thread; starting more costs milliseconds.
fn block_on(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A read of standard input cannot be cancelled and must not keep the process.
    runtime.shutdown_background();
    outcome
}
