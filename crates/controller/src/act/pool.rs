//! Carries out the plan of a Pool.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::api::Deleted;
use super::{ActError, Context, PODS_AT_ONCE, refusals};
use crate::events::Subject;
use crate::guard::{Guard, stands};
use crate::planner::{Note, pool_plan, template};
use crate::world::{ObjectName, PodView, PoolSnapshot, Template, Trouble, Uid};

/// First and longest wait between two questions after a pod whose creation was not answered.
const SETTLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Looks at a Pool and does what its plan says.
pub(super) async fn reconcile(ctx: &Arc<Context>, name: &ObjectName) -> Result<Option<Duration>, ActError> {
    let now = Instant::now();
    let Some(snapshot) = ctx.world.lock().pool_snapshot(name) else { return Ok(None) };
    let plan = pool_plan::plan(&snapshot, ctx.clock.now(), now, ctx.config.pool_status_interval);
    let create = plan.create;
    ctx.update(|world| {
        world.remember(&snapshot.uid, |memory| {
            memory.filling = plan.filling;
            memory.false_starts = plan.false_starts;
            memory.create_after = plan.create_after;
            memory.creating += create;
            if plan.status.is_some() {
                memory.status_written = Some(now);
            }
        });
    });
    let subject = Subject::of(&*snapshot.pool);
    for note in plan.notes {
        ctx.notes.tell(&subject, note);
    }
    // One that was promised since the plan was made is left to whom it was promised.
    let doomed = ctx.update(|world| {
        let goes = |(pod, _): &(PodView, &'static str)| world.doom(&pod.uid);
        plan.delete.into_iter().filter(goes).collect::<Vec<_>>()
    });
    let deletions: Vec<_> = doomed.into_iter().map(|(pod, why)| delete_pod(ctx, pod, why)).collect();
    let creations: Vec<_> = (0..create).map(|_| create_pod(ctx, &snapshot, &subject)).collect();
    let status = async {
        match plan.status {
            Some(status) => match ctx.writer.pool_status(&snapshot.pool, *status).await {
                Ok(pool) => {
                    ctx.update(|world| {
                        world.apply_pool(pool);
                        // Who waits is told the same as the pool.
                        world.touch_waiting(name);
                    });
                    Ok(())
                }
                Err(ActError::Conflict) => refresh(ctx, name, &snapshot.uid).await,
                Err(ActError::Gone) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    };
    let (deleted, created, written) = tokio::join!(
        futures::stream::iter(deletions).buffer_unordered(PODS_AT_ONCE).collect::<Vec<_>>(),
        futures::stream::iter(creations).buffer_unordered(PODS_AT_ONCE).collect::<Vec<_>>(),
        status
    );
    let refused = created.iter().any(|c| matches!(c, Ok(Creation::Refused)));
    let again = if refused { Some(back_off(ctx, &snapshot)) } else { None };
    deleted.into_iter().collect::<Result<Vec<()>, _>>()?;
    created.into_iter().collect::<Result<Vec<Creation>, _>>()?;
    written?;
    let next = [plan.wake_at, again].into_iter().flatten().min();
    Ok(next.map(|at| at.saturating_duration_since(Instant::now())))
}

/// Creations are refused: the next try is later, and later each time, whatever else happens to the pool.
fn back_off(ctx: &Context, s: &PoolSnapshot) -> Instant {
    let times = s.memory.refusals.saturating_add(1);
    let after = Instant::now() + refusals::pause(times);
    ctx.update(|world| {
        world.remember(&s.uid, |memory| {
            memory.refusals = times;
            memory.create_after = Some(memory.create_after.map_or(after, |old| old.max(after)));
        });
    });
    after
}

/// What became of a creation.
enum Creation {
    /// It is there, or it will be known whether it is.
    Done,
    /// The API server refused it, and would again.
    Refused,
}

async fn refresh(ctx: &Context, name: &ObjectName, uid: &Uid) -> Result<(), ActError> {
    let fresh = ctx.writer.pool(name).await?;
    ctx.update(|world| match fresh {
        Some(pool) => world.apply_pool(pool),
        None => world.remove_pool(uid),
    });
    Ok(())
}

/// Deletes a pod and remembers that it goes.
pub(super) async fn delete_pod(ctx: &Context, pod: PodView, why: &'static str) -> Result<(), ActError> {
    let outcome = ctx.writer.delete_pod(&pod).await?;
    tracing::debug!(pod = %pod.name, uid = %pod.uid, why, ?outcome, "pod deleted");
    ctx.update(|world| match outcome {
        Deleted::Accepted => world.assume_deleting(&pod.uid),
        Deleted::Gone => world.remove_pod(&pod.uid),
    });
    Ok(())
}

async fn create_pod(ctx: &Arc<Context>, s: &PoolSnapshot, subject: &Subject) -> Result<Creation, ActError> {
    let Template::Usable { template, revision } = &s.template else {
        answered(ctx, &s.uid, None, None);
        return Ok(Creation::Done);
    };
    let pod = template::pool_pod(&s.pool, template, revision, &ctx.ids.suffix(), &ctx.settings.daemon_key);
    match ctx.writer.create_pod(&pod).await {
        Ok(created) => {
            ctx.metrics.created("created");
            answered(ctx, &s.uid, Some(created), None);
            Ok(Creation::Done)
        }
        Err(ActError::Unknown(message)) => {
            ctx.metrics.created("unknown");
            // It may exist. Its place stays taken until somebody knows.
            if stands(Guard::Settled) {
                ctx.spawn(settle(ctx.clone(), s.uid.clone(), pod));
            } else {
                answered(ctx, &s.uid, None, None);
            }
            Err(ActError::Unknown(message))
        }
        Err(error) => {
            let trouble = refusals::trouble(&error, s.pool.metadata.namespace.as_deref().unwrap_or_default());
            if let Some(trouble) = &trouble {
                let words = format!("a pod could not be created: {}: {}", trouble.reason, trouble.message);
                ctx.notes.tell(subject, Note::warning("FailedCreate", words));
            }
            ctx.metrics.created("refused");
            let refused = trouble.is_some();
            answered(ctx, &s.uid, None, trouble);
            if refused { Ok(Creation::Refused) } else { Err(error) }
        }
    }
}

/// One creation less is under way.
fn answered(ctx: &Context, pool: &Uid, pod: Option<Pod>, error: Option<Trouble>) {
    ctx.update(|world| {
        let created = pod.is_some();
        if let Some(view) = pod.as_ref().and_then(PodView::of).filter(|_| stands(Guard::AssumedCreation)) {
            world.apply_pod(view);
        }
        world.remember(pool, |memory| {
            memory.creating = memory.creating.saturating_sub(1);
            if created {
                memory.refusals = 0;
            }
            if created || error.is_some() {
                memory.create_error = error;
            }
        });
        world.touch_pool(pool);
    });
}

/// Asks until it is known whether a pod was created.
async fn settle(ctx: Arc<Context>, pool: Uid, pod: Pod) {
    let meta = &pod.metadata;
    let name = ObjectName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let mut wait = SETTLE.0;
    loop {
        match ctx.writer.pod(&name).await {
            Ok(found) => return answered(&ctx, &pool, found, None),
            Err(error) => tracing::warn!(pod = %name, %error, "cannot tell whether a pod was created"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(SETTLE.1);
    }
}
