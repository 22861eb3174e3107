//! The HTTP face: routes, what each needs of its caller, and one form for every refusal.

mod absent;
mod claim;
mod command;
mod directories;
mod error;
mod files;
mod guard;
mod metrics;
mod ports;
mod proxy;
mod pty;
mod request;
mod session;
mod tasks;

use std::path::PathBuf;
use std::sync::Arc;

use api_types::ErrorCode;
use api_types::auth::DaemonKey;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, any, get, post};
use http::StatusCode;

pub use error::ApiError;
pub use files::strip_identity;
pub use proxy::strip_self;

use crate::claim::{Claims, TokenHash};
use crate::envs::{self, Env};
use crate::exec::{Engine, Stop};
use crate::metrics::Meter;
use crate::pty::Terminals;
use crate::session::Sessions;
use crate::tasks::Tasks;

/// What every handler sees of the daemon.
pub struct App {
    /// Environment of the container, without the daemon's secrets.
    pub base: Env,
    /// File that is read before every command.
    pub envs_file: Option<PathBuf>,
    /// The daemon's working directory.
    pub cwd: PathBuf,
    /// TCP port of this daemon.
    pub port: u16,
    /// The platform's key, in a pod that must be claimed.
    pub key: Option<DaemonKey>,
    /// Token from the configuration, in a pod that nobody claims.
    pub static_token: Option<TokenHash>,
    /// Who owns the pod.
    pub claims: Arc<Claims>,
    /// What runs.
    pub engine: Engine,
    /// Shells that stay.
    pub sessions: Sessions,
    /// Terminals.
    pub terminals: Terminals,
    /// Tasks of task-executor.
    pub tasks: Tasks,
    /// Measures the container.
    pub meter: Meter,
    /// Connections to ports of the sandbox.
    pub ports: proxy::Ports,
}

/// The state as handlers get it.
pub type Shared = Arc<App>;

impl App {
    /// Environment of the container and its owner, without any command's own.
    pub fn sandbox_env(&self) -> Env {
        let mut env = self.base.clone();
        self.claims.overlay(&mut env);
        env
    }

    /// Ends all that runs: TERM now, KILL after the grace.
    pub async fn end(&self, grace: std::time::Duration) {
        for terminal in self.terminals.list() {
            let _ = self.terminals.delete(&terminal.id);
        }
        let running = self.engine.running();
        futures::future::join_all(running.iter().map(|execution| execution.stop(Stop { grace }))).await;
    }

    /// Environment of the next command.
    pub fn command_env(&self) -> Env {
        let mut env = self.sandbox_env();
        if let Some(path) = &self.envs_file {
            envs::overlay_file(&mut env, path);
        }
        env
    }
}

/// Paths and their handlers: the one list of what there is.
fn table() -> Vec<(&'static str, MethodRouter<Shared>)> {
    let mut table = vec![
        ("/ping", get(|| async { StatusCode::OK })),
        ("/command", get(command::list).post(command::run).delete(command::interrupt)),
        ("/command/status/{id}", get(command::status)),
        ("/command/{id}/logs", get(command::logs)),
        ("/command/{id}/output", get(command::output)),
        ("/command/{id}/stdin", post(command::input)),
        ("/pty", get(pty::list).post(pty::create)),
        ("/pty/{id}", get(pty::get).delete(pty::delete)),
        ("/pty/{id}/ws", get(pty::connect)),
        ("/session", get(session::list).post(session::create)),
        ("/session/{id}", get(session::get).delete(session::delete)),
        ("/session/{id}/run", post(session::run)),
        ("/files", axum::routing::delete(files::delete)),
        ("/files/info", get(files::info)),
        ("/files/permissions", post(files::permissions)),
        ("/files/mv", post(files::mv)),
        ("/files/search", get(files::search)),
        ("/files/replace", post(files::replace)),
        ("/files/upload", post(files::upload)),
        ("/files/download", get(files::download)),
        ("/directories", post(directories::create).delete(directories::delete)),
        ("/files/checksum", get(files::checksum)),
        ("/files/watch", get(files::watch)),
        ("/directories/archive", get(files::archive::download).post(files::archive::upload)),
        ("/v1/filesystem/{*rest}", any(files::no_identity)),
        ("/directories/list", get(directories::list)),
        ("/metrics", get(metrics::once)),
        ("/metrics/watch", get(metrics::watch)),
        ("/metrics/prometheus", get(metrics::prometheus)),
        ("/ports", get(ports::list)),
        ("/ports/watch", get(ports::watch)),
        ("/v1/claim", get(claim::status).post(claim::claim)),
        ("/v1/claim/entrypoint", get(claim::entrypoint)),
        ("/v1/tasks", post(tasks::start)),
        ("/v1/tasks/{handle}", get(tasks::status).delete(tasks::stop)),
        ("/proxy/{port}", any(proxy::forward)),
        ("/proxy/{port}/", any(proxy::forward)),
        ("/proxy/{port}/{*rest}", any(proxy::forward)),
    ];
    table.extend(absent::rooms());
    table
}

/// Every path that is served, as the router writes it.
pub fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// All routes.
pub fn router(app: Shared) -> Router {
    let routes = table().into_iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    routes
        .fallback(|| async { ApiError::new(ErrorCode::RouteNotFound, "execd has no such route") })
        .method_not_allowed_fallback(|request: Request| async move {
            ApiError::new(ErrorCode::MethodNotAllowed, format!("this route does not take {}", request.method()))
        })
        .layer(from_fn_with_state(app.clone(), guard::check))
        .layer(from_fn(request::linger))
        .layer(from_fn(request::identify))
        .with_state(app)
}
