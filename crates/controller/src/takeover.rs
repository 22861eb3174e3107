//! The first thing a new leader does: what the leader before it had read must not be written any more.
//!
//! The old leader may have a grant under way that the API server has not seen yet. It was made under the version of a
//! BatchSandbox that wanted pods. So every such BatchSandbox, as the API server has it now, is changed before anything
//! is granted: the late write is refused, and the two leaders cannot give one pod to two of them. One that is not in
//! this listing was created after the old leader's time, by its own clock, was over.

use std::time::Duration;

use api_types::crd::BatchSandbox;
use futures::StreamExt as _;

use crate::act::{ActError, Context};
use crate::guard::{Guard, stands};
use crate::planner::batch;

/// Changes made at once.
const AT_ONCE: usize = 32;
/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes the barrier, however long it takes; whoever waits for it ends when the lease is lost.
pub(crate) async fn barrier(ctx: &Context, mark: &str) {
    while stands(Guard::Barrier) {
        match attempt(ctx, mark).await {
            Ok(changed) => {
                tracing::info!(changed, "what an older leader may have under way is stale now");
                return;
            }
            Err(error) => tracing::warn!(%error, "taking over is tried again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn attempt(ctx: &Context, mark: &str) -> Result<usize, ActError> {
    let namespaces = &ctx.config.namespaces;
    let mut all = Vec::new();
    if namespaces.is_empty() {
        all = ctx.writer.batches(None).await?;
    }
    for namespace in namespaces {
        all.extend(ctx.writer.batches(Some(namespace)).await?);
    }
    let (open, settled): (Vec<_>, Vec<_>) = all.into_iter().partition(wants_pods);
    ctx.update(|world| settled.into_iter().for_each(|batch| world.apply_batch(batch)));
    let changes: Vec<_> = open.iter().map(|batch| ctx.writer.bump(batch, mark)).collect();
    let mut changed = 0;
    let mut changes = futures::stream::iter(changes).buffer_unordered(AT_ONCE);
    while let Some(result) = changes.next().await {
        match result {
            Ok(batch) => ctx.update(|world| world.apply_batch(batch)),
            // It is gone, or another of its name is there, which the old leader has not read.
            Err(ActError::Gone | ActError::Conflict) => {}
            Err(error) => return Err(error),
        }
        changed += 1;
    }
    Ok(changed)
}

fn wants_pods(batch: &BatchSandbox) -> bool {
    batch::pool_of(batch).is_some() && batch::need(batch) > 0
}
