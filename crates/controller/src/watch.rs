//! Watches that feed the world: three kinds in every namespace that is looked after.

use std::fmt::Debug;
use std::sync::Arc;

use api_types::crd::BatchSandbox;
use futures::StreamExt as _;
use futures::future::select_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use telemetry::kubernetes::watch_trouble;

use crate::ControllerError;
use crate::act::Context;
use crate::events::Subject;
use crate::health::Listings;
use crate::planner::obituary;
use crate::world::{Kind, PodView, Scope, World};

/// Feeds everything; ends only when a watch does, which is a fault.
pub(crate) async fn all(ctx: &Arc<Context>, client: &Client) -> Result<(), ControllerError> {
    let namespaces = &ctx.config.namespaces;
    let scopes: Vec<Scope> = match namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().map(|n| Some(n.as_str().into())).collect(),
    };
    let watches = scopes.iter().map(|scope| Box::pin(scoped(ctx, client, scope.clone())));
    select_all(watches).await.0
}

async fn scoped(ctx: &Arc<Context>, client: &Client, scope: Scope) -> Result<(), ControllerError> {
    let pod = |world: &mut World, pod: Pod| PodView::of(&pod).into_iter().for_each(|view| world.apply_pod(view));
    let remove_pod = |world: &mut World, uid: &str| world.remove_pod(uid);
    let last_word = |batch: &BatchSandbox| {
        if ctx.leads() && !obituary::is_told_in_teardown(batch) {
            ctx.notes.tell(&Subject::of(batch), obituary::last_word(batch, ctx.clock.now()));
        }
    };
    tokio::select! {
        biased;
        ended = follow(ctx, client, Kind::Pod, &scope, pod, remove_pod, |_| ()) => ended,
        ended = follow(ctx, client, Kind::Pool, &scope, World::apply_pool, World::remove_pool, |_| ()) => ended,
        ended = follow(ctx, client, Kind::Batch, &scope, World::apply_batch, World::remove_batch, last_word) => ended,
    }
}

async fn follow<K>(
    ctx: &Arc<Context>,
    client: &Client,
    kind: Kind,
    scope: &Scope,
    apply: impl Fn(&mut World, K),
    remove: impl Fn(&mut World, &str),
    gone: impl Fn(&K),
) -> Result<(), ControllerError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listings = Listings::new(ctx, kind, scope);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => ctx.update(|world| world.begin_list(kind, scope)),
            Ok(Event::InitApply(object) | Event::Apply(object)) => ctx.update(|world| apply(world, object)),
            Ok(Event::InitDone) => {
                ctx.update(|world| world.end_list(kind, scope));
                listings.listed();
                ctx.synced.notify_one();
            }
            Ok(Event::Delete(object)) => {
                let uid = object.uid().unwrap_or_default();
                ctx.update(|world| remove(world, &uid));
                gone(&object);
            }
            Err(error) => {
                let trouble = watch_trouble(&error, &K::plural(&()), &K::group(&()), scope.as_deref());
                listings.failed(&trouble.message);
            }
        }
    }
    Err(ControllerError::WatchEnded { kind: K::kind(&()).into_owned() })
}
