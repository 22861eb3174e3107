//! Carries out the plan of a BatchSandbox.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::api::Deleted;
use super::pool::delete_pod;
use super::{ActError, Context, PODS_AT_ONCE, claims, measure, refusals};
use crate::events::Subject;
use crate::guard::{Guard, stands};
use crate::planner::Note;
use crate::planner::batch::{self, Action};
use crate::world::{BatchSnapshot, ObjectName, PodView, Refusal};

/// Plans carried out in one go before others get their turn: a create takes three.
const STEPS: usize = 8;

/// Looks at a BatchSandbox and does what its plan says, until there is nothing more to do at once.
pub(super) async fn reconcile(ctx: &Arc<Context>, name: &ObjectName) -> Result<Option<Duration>, ActError> {
    for _ in 0..STEPS {
        let (now, steady) = (ctx.clock.now(), Instant::now());
        let Some(snapshot) = ctx.world.lock().batch_snapshot(name, now, steady) else {
            ctx.watches.forget(name);
            return Ok(None);
        };
        let plan = batch::plan(&snapshot, &ctx.settings);
        ctx.watches.keep(ctx, name, &snapshot, &plan.entrypoint_watches, &plan.task_watches);
        match carry_out(ctx, name, &snapshot, plan.actions).await {
            Ok(true) => {}
            Ok(false) => {
                let wake = plan.wake_at.map(|at| until(ctx.clock.now(), at));
                let retry = plan.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
                return Ok([wake, retry].into_iter().flatten().min());
            }
            Err(ActError::Conflict) => refresh(ctx, name, &snapshot).await?,
            Err(ActError::Gone) => {
                refresh(ctx, name, &snapshot).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Duration::ZERO))
}

/// Time from `now` to `at`, and a little more, so that the clock has passed it then.
fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO) + Duration::from_millis(1)
}

/// Whether anything was done that calls for another plan.
async fn carry_out(
    ctx: &Arc<Context>,
    name: &ObjectName,
    s: &BatchSnapshot,
    actions: Vec<Action>,
) -> Result<bool, ActError> {
    let subject = Subject::of(&*s.batch);
    let mut progress = false;
    let (mut create, mut delete) = (Vec::new(), Vec::new());
    for action in actions {
        match action {
            Action::Delete { why } => {
                tracing::info!(batch = %name, why, "deleting");
                let outcome = ctx.writer.delete_batch(name, &s.uid).await?;
                if outcome == Deleted::Gone {
                    return Err(ActError::Gone);
                }
                // The answer to a deletion may be the object or not; the object itself says what it is now.
                refresh(ctx, name, s).await?;
                progress = true;
            }
            Action::Finalizers(list) => {
                let batch = ctx.writer.finalizers(&s.batch, &list).await?;
                let gone = list.is_empty() && s.batch.metadata.deletion_timestamp.is_some();
                ctx.update(|world| if gone { world.remove_batch(&s.uid) } else { world.apply_batch(batch) });
                progress = true;
            }
            Action::Status(status) => {
                let begun = Instant::now();
                let written = ctx.writer.batch_status(&s.batch, *status).await;
                match &written {
                    Err(error @ ActError::OldCrd { .. }) => ctx.health.crds.fail(error.to_string()),
                    Ok(batch) if batch.status.as_ref().is_some_and(|s| !s.grants.is_empty()) => ctx.health.crds.pass(),
                    _ => {}
                }
                let batch = written?;
                measure::status(&ctx.metrics, s, &batch, begun.elapsed());
                ctx.update(|world| world.apply_batch(batch));
                progress = true;
            }
            Action::Annotate(annotations) => {
                let batch = ctx.writer.annotate(&s.batch, &annotations).await?;
                ctx.update(|world| world.apply_batch(batch));
                progress = true;
            }
            Action::ReturnReserved(pods) => {
                ctx.update(|world| world.return_reserved(&s.uid, &pods));
                progress = true;
            }
            Action::Claim { pod, epoch } => claims::start(ctx, s, pod, epoch),
            Action::Mark(pod) => claims::mark(ctx, s, pod),
            Action::Note(note) => ctx.notes.tell(&subject, note),
            Action::CreatePod(pod) => create.push(pod),
            Action::DeletePod { pod, why } => delete.push((pod, why)),
        }
    }
    progress |= !delete.is_empty() || !create.is_empty();
    let deleting: Vec<_> = delete.into_iter().map(|(pod, why)| delete_pod(ctx, pod, why)).collect();
    let deleted: Vec<_> = futures::stream::iter(deleting).buffer_unordered(PODS_AT_ONCE).collect().await;
    deleted.into_iter().collect::<Result<Vec<()>, _>>()?;
    let creating: Vec<_> = create.into_iter().map(|pod| create_own(ctx, s, &subject, pod)).collect();
    let created: Vec<_> = futures::stream::iter(creating).buffer_unordered(PODS_AT_ONCE).collect().await;
    created.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(progress)
}

/// Creates a pod of a BatchSandbox's own. Its name says which it is, so that a second try finds the first.
async fn create_own(ctx: &Context, s: &BatchSnapshot, subject: &Subject, pod: Box<Pod>) -> Result<(), ActError> {
    let result = match ctx.writer.create_pod(&pod).await {
        Err(ActError::Conflict) => {
            let name = ObjectName::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &pod.name_any());
            let found = ctx.writer.pod(&name).await?;
            let ours = |p: &Pod| p.owner_references().iter().any(|o| *o.uid == *s.uid);
            match found {
                Some(found) if ours(&found) || !stands(Guard::OwnPod) => Ok(found),
                _ => {
                    let message = format!("a pod {} exists that is not this BatchSandbox's", name.name);
                    Err(ActError::Refused { code: 409, message })
                }
            }
        }
        other => other,
    };
    match result {
        Ok(created) => {
            ctx.metrics.created("created");
            ctx.update(|world| {
                PodView::of(&created).into_iter().for_each(|view| world.apply_pod(view));
                world.observe_creation(&s.uid, None);
            });
            Ok(())
        }
        Err(error) => {
            ctx.metrics.created(if matches!(error, ActError::Unknown(_)) { "unknown" } else { "refused" });
            let Some(trouble) = refusals::trouble(&error, &s.batch.namespace().unwrap_or_default()) else {
                let words = format!("a pod could not be created: {error}");
                ctx.notes.tell(subject, Note::warning("FailedCreate", words));
                return Err(error);
            };
            let words = format!("a pod could not be created: {}: {}", trouble.reason, trouble.message);
            ctx.notes.tell(subject, Note::warning("FailedCreate", words));
            let times = s.refusal.as_ref().map_or(0, |r| r.times).saturating_add(1);
            let after = Instant::now() + refusals::pause(times);
            ctx.update(|world| world.observe_creation(&s.uid, Some(Refusal { trouble, times, after })));
            Ok(())
        }
    }
}

/// Reads the object again: what is known of it is older than what the API server has.
async fn refresh(ctx: &Context, name: &ObjectName, s: &BatchSnapshot) -> Result<(), ActError> {
    let fresh = ctx.writer.batch(name).await?;
    ctx.update(|world| match fresh {
        Some(batch) => world.apply_batch(batch),
        None => world.remove_batch(&s.uid),
    });
    Ok(())
}
