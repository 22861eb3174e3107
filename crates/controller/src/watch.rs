//! Watches that feed the world.

use std::fmt::Debug;
use std::sync::Arc;

use api_types::crd::{BatchSandbox, Pool};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::ControllerError;
use crate::act::Context;
use crate::world::{Kind, PodView, World};

/// Feeds pods.
pub(crate) async fn pods(ctx: Arc<Context>, api: Api<Pod>) -> Result<(), ControllerError> {
    let apply = |world: &mut World, pod: Pod| PodView::of(&pod).into_iter().for_each(|view| world.apply_pod(view));
    let remove = |world: &mut World, uid: &str| world.remove_pod(uid);
    follow(&ctx, api, Kind::Pod, "pods", apply, remove).await
}

/// Feeds Pools.
pub(crate) async fn pools(ctx: Arc<Context>, api: Api<Pool>) -> Result<(), ControllerError> {
    follow(&ctx, api, Kind::Pool, "pools", World::apply_pool, World::remove_pool).await
}

/// Feeds BatchSandboxes.
pub(crate) async fn batches(ctx: Arc<Context>, api: Api<BatchSandbox>) -> Result<(), ControllerError> {
    follow(&ctx, api, Kind::Batch, "batchsandboxes", World::apply_batch, World::remove_batch).await
}

async fn follow<K>(
    ctx: &Context,
    api: Api<K>,
    kind: Kind,
    name: &'static str,
    apply: impl Fn(&mut World, K),
    remove: impl Fn(&mut World, &str),
) -> Result<(), ControllerError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => ctx.update(|world| world.begin_list(kind)),
            Ok(Event::InitApply(object) | Event::Apply(object)) => ctx.update(|world| apply(world, object)),
            Ok(Event::InitDone) => {
                ctx.update(|world| world.end_list(kind));
                ctx.synced.notify_one();
            }
            Ok(Event::Delete(object)) => {
                let uid = object.uid().unwrap_or_default();
                ctx.update(|world| remove(world, &uid));
            }
            Err(error) => tracing::warn!(kind = name, %error, "watch"),
        }
    }
    Err(ControllerError::WatchEnded { kind: name })
}
