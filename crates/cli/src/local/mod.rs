//! The embedded platform: `osb up`, `down`, `status`, `kubeconfig`, `image` and `demo`.

mod demo;
mod detach;
mod down;
mod home;
mod image;
mod keys;
mod kubeconfig;
mod platform;
mod status;
mod up;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Globals;

/// The verbs of the embedded platform.
#[derive(Debug, Subcommand)]
pub enum LocalCommand {
    /// Start the platform on this machine
    Up(up::Options),
    /// End the platform and every sandbox on it
    Down(down::Options),
    /// Tell whether the platform runs, and what it holds
    Status(status::Options),
    /// Print the platform's kubeconfig, for kubectl
    Kubeconfig(kubeconfig::Options),
    /// Bring images on to this machine
    #[command(subcommand)]
    Image(image::Command),
    /// Start a platform, run an agent in a sandbox, show what it took, clean up
    Demo(demo::Options),
}

/// Runs a verb of the embedded platform.
pub fn run(globals: &Globals, command: LocalCommand) -> anyhow::Result<ExitCode> {
    match command {
        LocalCommand::Up(options) => up::run(globals, &options),
        LocalCommand::Down(options) => down::run(&options),
        LocalCommand::Status(options) => status::run(globals, &options),
        LocalCommand::Kubeconfig(options) => kubeconfig::run(&options),
        LocalCommand::Image(command) => image::run(globals, command),
        LocalCommand::Demo(options) => demo::run(&options),
    }
}

/// A runtime for verbs that talk to the platform.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// A client of the platform's Kubernetes API, by its kubeconfig.
async fn client(home: &home::Home) -> anyhow::Result<kube::Client> {
    use anyhow::Context as _;
    let path = home.kubeconfig();
    let config = kube::config::Kubeconfig::read_from(&path)
        .with_context(|| format!("cannot read {}; start a platform with `osb up`", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
