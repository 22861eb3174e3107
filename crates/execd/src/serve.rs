//! The daemon: state made from the configuration, a socket, and an end within a bound.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api_types::auth::{AuthError, DaemonKey};
use api_types::ids::PodUid;
use axum::ServiceExt;
use axum::extract::Request;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower::util::MapRequestLayer;

use crate::claim::{Claims, StateDir, Store, TokenHash};
use crate::config::Config;
use crate::envs;
use crate::exec::{Engine, Settings};
use crate::hooks::{HookError, Hooks};
use crate::http::{App, router, strip_identity, strip_self};
use crate::journal::{self, Limits};
use crate::metrics::{Meter, Source};
use crate::pty::Terminals;
use crate::session::Sessions;

/// Time in which open answers end once all that runs has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the daemon does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours to take.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The pod carries a key that is none.
    #[error("OPENSANDBOX_DAEMON_KEY: {0}")]
    Key(AuthError),
    /// A key without the pod's UID would let the claim of one pod open another.
    #[error("OPENSANDBOX_DAEMON_KEY is set, but OPENSANDBOX_POD_UID is not")]
    NoPodUid,
    /// The hooks can't be used, or one failed.
    #[error(transparent)]
    Hooks(#[from] HookError),
    /// Serving broke.
    #[error("serving ended: {0}")]
    Serve(io::Error),
}

/// A daemon that knows what it is to do.
pub struct Daemon {
    app: App,
    hooks: Hooks,
    state: Option<std::path::PathBuf>,
}

/// A daemon that has its socket.
pub struct Bound {
    app: Arc<App>,
    hooks: Hooks,
    listener: TcpListener,
    grace: Duration,
}

impl Daemon {
    /// Reads the configuration and finds an earlier claim.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: &Config) -> Result<Self, ServeError> {
        let given = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        let pod = given(&config.pod_uid);
        let key = match (given(&config.daemon_key), &pod) {
            (None, _) => None,
            (Some(_), None) => return Err(ServeError::NoPodUid),
            (Some(key), Some(pod)) => Some(DaemonKey::new(&key, PodUid::from(pod.as_str())).map_err(ServeError::Key)?),
        };
        let dir = StateDir::find(config.state_dir.as_deref());
        let mut base = envs::base(std::env::vars_os());
        let envs_file = config.envs.clone().or_else(|| default_envs(&dir));
        if let Some(path) = &envs_file {
            // Programs append to this file to set variables for later commands.
            base.insert(api_types::names::env::EXECD_ENVS.into(), path.into());
        }
        let engine = engine(config, &dir);
        let state = dir.path().map(Path::to_owned);
        let app = App {
            base,
            envs_file,
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            port: config.port,
            claims: Claims::load(Store::new(dir), key.is_some(), pod),
            key,
            static_token: given(&config.access_token).map(|token| TokenHash::of(&token)),
            terminals: Terminals::new(engine.store().clone(), config.max_sessions, config.session_idle),
            engine,
            sessions: Sessions::new(config.max_sessions, config.session_idle),
            tasks: crate::tasks::Tasks::default(),
            meter: Meter::new(Source::find()),
            ports: Default::default(),
        };
        let hooks = Hooks::of(&app.base)?;
        Ok(Self { app, hooks, state })
    }

    /// Runs what comes before the container's program.
    ///
    /// # Errors
    /// It failed.
    pub async fn pre_start(&self) -> Result<(), ServeError> {
        Ok(self.hooks.pre_start(&self.app.engine, &self.app.command_env()).await?)
    }

    /// Binds the port.
    ///
    /// # Errors
    /// It can't be had.
    pub async fn bind(mut self, config: &Config) -> Result<Bound, ServeError> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.port));
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        // Only now: one that serves on another port may own the same directory.
        if let Some(dir) = &self.state {
            match crate::exec::open_ledger(dir) {
                Ok(None) => tracing::warn!(dir = %dir.display(), "another execd notes there what runs"),
                Ok(Some(0)) => {}
                Ok(Some(ended)) => tracing::warn!(ended, "ended what an execd before this one left running"),
                Err(error) => tracing::warn!(%error, "cannot note what runs"),
            }
        }
        self.app.port = listener.local_addr().map_or(config.port, |address| address.port());
        let grace = config.graceful_shutdown_timeout;
        Ok(Bound { app: Arc::new(self.app), hooks: self.hooks, listener, grace })
    }
}

impl Bound {
    /// Runs what comes before the container's program.
    ///
    /// # Errors
    /// It failed.
    pub async fn pre_start(&self) -> Result<(), ServeError> {
        Ok(self.hooks.pre_start(&self.app.engine, &self.app.command_env()).await?)
    }

    /// Serves until told to stop. What runs is then ended, by TERM and after the grace by KILL, so that
    /// open streams tell its end.
    ///
    /// # Errors
    /// The socket breaks.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), ServeError> {
        let port = self.app.port;
        let app = self.app.clone();
        let hooked = app.clone();
        self.hooks.run_periodic(&app.engine, move || hooked.command_env());
        let rewrite = MapRequestLayer::new(move |mut request: Request| {
            if let Some(uri) = strip_self(request.uri(), port) {
                *request.uri_mut() = uri;
            }
            if let Some((identity, uri)) = strip_identity(request.uri()) {
                *request.uri_mut() = uri;
                request.extensions_mut().insert(identity);
            }
            request
        });
        let service = rewrite.layer(router(self.app));
        let make = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
        let listener = self.listener.tap_io(|tcp| {
            let _ = tcp.set_nodelay(true);
        });
        tracing::info!(port, "execd serves");
        let served = axum::serve(listener, make).with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut served = std::pin::pin!(served.into_future());
        let ended = async {
            stop.cancelled().await;
            app.end(self.grace).await;
        };
        tokio::select! {
            result = &mut served => {
                result.map_err(ServeError::Serve)?;
                // Nobody is connected; what runs is ended all the same.
                if stop.is_cancelled() {
                    app.end(self.grace).await;
                }
            }
            () = ended => {
                // Time for the ends to be sent.
                let _ = tokio::time::timeout(LAST_WORDS, served).await;
            }
        }
        Ok(())
    }
}

fn engine(config: &Config, dir: &StateDir) -> Engine {
    let limits = Limits {
        memory: config.journal_memory,
        disk: config.journal_disk,
        execution: config.journal_execution,
        ..Limits::default()
    };
    let temporary = std::env::temp_dir();
    // The state may be in memory; output is to be where a disk is.
    let dirs = dir.path().into_iter().chain([temporary.as_path(), Path::new("/var/tmp"), Path::new("/tmp")]);
    Engine::new(Settings {
        max_running: config.max_executions,
        keep: config.journal_keep,
        store: Arc::new(journal::Store::new(limits, dirs)),
        cgroup: Source::find(),
    })
}

/// Where the file of `EXECD_ENVS` is when nobody says: the usual place if it can be had there, else
/// with the daemon's state.
fn default_envs(dir: &StateDir) -> Option<std::path::PathBuf> {
    let usual = std::path::PathBuf::from("/opt/opensandbox/.env");
    let touch = |path: &Path| std::fs::OpenOptions::new().append(true).create(true).open(path).is_ok();
    if usual.parent().is_some_and(|parent| parent.is_dir()) && touch(&usual) {
        return Some(usual);
    }
    dir.path().map(|dir| dir.join("env")).filter(|path| touch(path))
}
