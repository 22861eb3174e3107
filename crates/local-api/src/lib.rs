//! The embedded cluster's API half: a Kubernetes API as a `tower::Service`, in memory or durable.
//!
//! [`Api::in_memory`] serves tests, [`Api::open`] keeps its objects in a directory. Either gives
//! [`kube::Client`]s in process, and serves HTTPS for kubectl. What is served and what is not is told in
//! `docs/design/0002-local-api.md`.

mod core;
mod crd;
mod discovery;
pub mod env;
pub mod error;
mod events;
mod gc;
mod http;
mod kinds;
mod namespaces;
mod object;
mod openapi;
mod patch;
mod pods;
mod protobuf;
mod reviews;
mod schema;
mod selector;
mod store;
pub mod streams;
mod table;
mod verbs;

use std::path::Path;
use std::sync::Arc;

pub use crate::http::{ApiBody, ApiService, Identity, IdentityError, ServeError};
pub use crate::store::{Limits, OpenError};

use crate::core::Core;
use crate::env::{Clock, Hook, Ids, NoHook, System};
use crate::store::Store;
use crate::streams::PodStreams;

/// What an API is made of besides its store.
#[derive(Clone)]
pub struct Options {
    /// Where timestamps come from.
    pub clock: Arc<dyn Clock>,
    /// Where UIDs and generated names come from.
    pub ids: Arc<dyn Ids>,
    /// Called around writes and before watch events.
    pub hook: Arc<dyn Hook>,
    /// How much is remembered and queued for watches.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(System), ids: Arc::new(System), hook: Arc::new(NoHook), limits: Limits::default() }
    }
}

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct Api {
    core: Arc<Core>,
}

impl Api {
    /// An API that forgets everything when it is dropped.
    pub fn in_memory() -> Self {
        Self::in_memory_with(Options::default())
    }

    /// The same, with its surroundings given.
    pub fn in_memory_with(options: Options) -> Self {
        Self::assemble(Store::in_memory(options.limits), options)
    }

    /// An API that keeps its objects in `directory`. One process at a time.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, Options::default())
    }

    /// The same, with its surroundings given.
    pub fn open_with(directory: &Path, options: Options) -> Result<Self, OpenError> {
        Ok(Self::assemble(Store::open(directory, options.limits)?, options))
    }

    fn assemble(store: Store, options: Options) -> Self {
        Self { core: Core::new(store, options.clock, options.ids, options.hook) }
    }

    /// The API as a service. Needs a Tokio runtime around it.
    pub fn service(&self) -> ApiService {
        ApiService::new(self.core.clone())
    }

    /// A client in this process; `namespace` is its default one.
    pub fn client(&self, namespace: &str) -> kube::Client {
        kube::Client::new(self.service(), namespace)
    }

    /// Who runs the pods: without it, logs, exec and port-forward answer 501.
    pub fn set_pod_streams(&self, streams: Arc<dyn PodStreams>) {
        *self.core.streams.write() = Some(streams);
    }

    /// Serves HTTPS on `listener` to who has the identity's token, until `shutdown` resolves.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        identity: &Identity,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        http::serve::serve(self.service(), listener, identity, shutdown).await
    }

    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.core.store.state().version()
    }

    /// Brings everything that was written to the disk, for an orderly end.
    pub fn sync(&self) -> std::io::Result<()> {
        self.core.store.sync()
    }
}
