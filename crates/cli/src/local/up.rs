//! `osb up`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use api_types::names::SERVER_PORT;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::detach::{self, Ready};
use super::home::{Home, require_root};
use super::platform::{self, Settings};
use crate::cli::Globals;

/// What `osb up` may be told. `--api-key` sets the key of the lifecycle API; one is made when none is given.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Address of the lifecycle API.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], SERVER_PORT)))]
    pub listen: SocketAddr,

    /// Address of the Kubernetes API, for kubectl.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6445")]
    pub kube_listen: SocketAddr,

    /// Allow `--listen` on an address that other machines reach.
    #[arg(long)]
    pub listen_beyond_loopback: bool,

    /// Let another image stand in for one that cannot be had, e.g. `nginx:latest=host`; `*` is any image.
    #[arg(long, value_name = "IMAGE=host")]
    pub stand_in: Vec<String>,

    /// A directory of this machine that pods may mount by hostPath, with all below it.
    #[arg(long, value_name = "DIR")]
    pub host_path: Vec<PathBuf>,

    /// Return once the platform is ready; it goes on in the background.
    #[arg(short, long)]
    pub detach: bool,

    /// Write one line of JSON to standard output when ready, and nothing else.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub report_ready: bool,
}

impl Options {
    /// The arguments that say the same, for the background process.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--listen".to_owned(),
            self.listen.to_string(),
            "--kube-listen".to_owned(),
            self.kube_listen.to_string(),
        ];
        if self.listen_beyond_loopback {
            arguments.push("--listen-beyond-loopback".to_owned());
        }
        for stand_in in &self.stand_in {
            arguments.extend(["--stand-in".to_owned(), stand_in.clone()]);
        }
        for path in &self.host_path {
            arguments.extend(["--host-path".to_owned(), path.display().to_string()]);
        }
        arguments
    }

    fn settings(&self, api_key: Option<&str>) -> Result<Settings> {
        if !self.listen.ip().is_loopback() && !self.listen_beyond_loopback {
            bail!(
                "--listen {} would let other machines create sandboxes here; add --listen-beyond-loopback if that is meant",
                self.listen
            );
        }
        let mut stand_ins = std::collections::BTreeMap::new();
        for text in &self.stand_in {
            let Some((image, stand_in)) = text.rsplit_once('=') else {
                bail!("--stand-in {text}: write IMAGE=host, for example nginx:latest=host");
            };
            if stand_in != "host" {
                bail!("--stand-in {text}: the only image that stands in for another is `host`, not `{stand_in}`");
            }
            stand_ins.insert(image.to_owned(), stand_in.to_owned());
        }
        Ok(Settings {
            listen: self.listen,
            kube_listen: self.kube_listen,
            api_key: api_key.map(str::to_owned),
            stand_ins,
            host_paths: self.host_path.clone(),
        })
    }
}

/// Starts the platform: here until a signal ends it, or in the background.
pub fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    require_root("up")?;
    let home = Home::from_environment();
    let settings = options.settings(globals.api_key.as_deref())?;
    if options.detach {
        if let Some(key) = &globals.api_key {
            // Not as an argument: every user of the machine reads those.
            home.create()?;
            super::keys::Keys::load_or_make(&home, Some(key))?;
        }
        print_ready(&home, &detach::start(&home, &options.arguments())?);
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    raise_descriptor_limit();
    home.create()?;
    let lock = home.lock()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut platform = platform::start(&home, settings).await?;
        let ready = Ready {
            pid: std::process::id(),
            domain: platform.domain.clone(),
            api_key: platform.api_key.clone(),
            kubernetes: platform.kubernetes.clone(),
            took_ms: started.elapsed().as_secs_f64() * 1000.0,
        };
        if options.report_ready {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "{}", serde_json::to_string(&ready)?).context("nobody waits for the platform")?;
            stdout.flush()?;
        } else {
            print_ready(&home, &ready);
            anstream::println!("\npress ctrl-c to stop; sandboxes live on until `osb down`");
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            failed = platform.failed() => {
                platform.stop().await;
                return Err(failed);
            }
        }
        platform.stop().await;
        Ok(())
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    drop(lock);
    done.map(|()| ExitCode::SUCCESS)
}

/// A pod takes some eight descriptors here, and the usual soft limit of 1,024 would end a pool at 128 pods.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is; many pods may not start");
    }
}

/// Tells how to go on.
pub fn print_ready(home: &Home, ready: &Ready) {
    anstream::println!(
        "ready in {:.0} ms\n\n  lifecycle API  http://{}\n  API key        {}\n  Kubernetes     {}\n  kubeconfig     {}",
        ready.took_ms,
        ready.domain,
        ready.api_key,
        ready.kubernetes,
        home.kubeconfig().display()
    );
    anstream::println!(
        "\nnext:\n  export KUBECONFIG={0} OPEN_SANDBOX_DOMAIN={1} OPEN_SANDBOX_API_KEY={2}\n  kubectl apply -f examples/pool-agent-production.yaml\n  osb sandbox create --pool agent-pool --env AGENT_ID=agent-1",
        home.kubeconfig().display(),
        ready.domain,
        ready.api_key
    );
}
