//! Tells pods their owner: the claim, and the label for people.

use std::sync::Arc;
use std::time::Duration;

use api_types::execd::ClaimRequest;
use api_types::ids::{PodUid, SandboxId, SandboxUid};
use api_types::names::{EXECD_PORT, TASK_EXECUTOR_PORT};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{ActError, Context};
use crate::daemons::{DaemonAddress, DaemonError};
use crate::guard::{Guard, stands};
use crate::planner::batch::{CLAIM_REJECTED, OLD_DAEMON};
use crate::world::{BatchSnapshot, ClaimSeen, Claimant, PodView, Trouble, Uid};

/// First and longest wait between two tries: a daemon that was just started listens soon.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(250));

/// Reason of a claim that was not answered in time.
const CLAIM_FAILED: &str = "ClaimFailed";

/// Starts a claim. Its outcome comes back through the world.
pub(super) fn start(ctx: &Arc<Context>, s: &BatchSnapshot, pod: PodView, epoch: i64) {
    ctx.update(|world| world.observe_claim(&s.uid, &pod.uid, epoch, ClaimSeen::InFlight));
    let claim = s.batch.spec.claim.clone().unwrap_or_default();
    let (sandbox, pod_uid) = (SandboxUid::new(&*s.uid), PodUid::new(&*pod.uid));
    let request = ClaimRequest {
        sandbox_id: SandboxId::new(s.batch.name_any()),
        token: ctx.token_secret.execd_token(&sandbox, &pod_uid),
        sandbox_uid: sandbox,
        pod_uid,
        epoch: u64::try_from(epoch).unwrap_or(0),
        env: claim.env,
        entrypoint: claim.entrypoint,
    };
    let (ctx, batch) = (ctx.clone(), s.uid.clone());
    let background = ctx.clone();
    background.spawn(async move {
        let begun = Instant::now();
        let seen = claim_pod(&ctx, &batch, &pod, &request).await;
        ctx.metrics.waited("claim", begun.elapsed());
        ctx.metrics.claimed(match &seen {
            ClaimSeen::Accepted(_) => "accepted",
            ClaimSeen::Refused(trouble) if trouble.reason == CLAIM_REJECTED => "rejected",
            ClaimSeen::Refused(trouble) if trouble.reason == CLAIM_FAILED => "silent",
            ClaimSeen::Refused(_) | ClaimSeen::InFlight => "refused",
        });
        ctx.update(|world| world.observe_claim(&batch, &pod.uid, epoch, seen));
    });
}

async fn claim_pod(ctx: &Context, batch: &Uid, pod: &PodView, request: &ClaimRequest) -> ClaimSeen {
    let port = match pod.claimant {
        Claimant::Execd => EXECD_PORT,
        Claimant::TaskExecutor => TASK_EXECUTOR_PORT,
        Claimant::Label => return claim_by_label(ctx, batch, pod, request).await,
    };
    let Some(ip) = pod.ip.clone() else {
        return ClaimSeen::Refused(Trouble::new("NoAddress", "the pod has no address"));
    };
    let at = DaemonAddress { ip, port, pod: request.pod_uid.clone() };
    let deadline = Instant::now() + ctx.config.claim_deadline;
    let mut wait = RETRY.0;
    loop {
        let answer = {
            let Ok(_permit) = ctx.calls.acquire().await else {
                return ClaimSeen::Refused(Trouble::new("ShuttingDown", "the controller ends"));
            };
            ctx.daemons.claim(&at, request).await
        };
        let words = match answer {
            Ok(status) => return ClaimSeen::Accepted(status.entrypoint),
            Err(DaemonError::Unknown) => return claim_by_label(ctx, batch, pod, request).await,
            Err(DaemonError::Rejected { code, message }) => {
                return ClaimSeen::Refused(Trouble::new(CLAIM_REJECTED, format!("{code}: {message}")));
            }
            Err(DaemonError::Refused { .. }) if !stands(Guard::ClaimRefusal) => return ClaimSeen::Accepted(None),
            Err(DaemonError::Refused { code, message }) => return ClaimSeen::Refused(Trouble::new(code, message)),
            Err(DaemonError::Unreachable(words)) => words,
        };
        let there = ctx.world.lock().pod(&pod.uid).is_some_and(|p| !p.deleting && !p.is_over());
        if !there || Instant::now() + wait >= deadline {
            return ClaimSeen::Refused(Trouble::new(CLAIM_FAILED, words));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// A pod without a daemon that takes claims is marked itself. It cannot be told anything.
async fn claim_by_label(ctx: &Context, batch: &Uid, pod: &PodView, request: &ClaimRequest) -> ClaimSeen {
    if !request.env.is_empty() || !request.entrypoint.is_empty() {
        if pod.claimant != Claimant::Label && !pod.keyed {
            let message = "spec.claim asks for env or an entrypoint, and the pod's daemon is of an older version";
            return ClaimSeen::Refused(Trouble::new(OLD_DAEMON, message));
        }
        let message = "spec.claim asks for env or an entrypoint, and the pod has no daemon that takes claims";
        return ClaimSeen::Refused(Trouble::new(CLAIM_REJECTED, message));
    }
    let deadline = Instant::now() + ctx.config.claim_deadline;
    let mut wait = RETRY.0;
    loop {
        let known = ctx.world.lock().pod(&pod.uid).cloned();
        let Some(current) = known.filter(|p| !p.deleting) else {
            return ClaimSeen::Refused(Trouble::new("PodDeleted", "the pod is gone"));
        };
        match current.claimed_by.as_deref() {
            Some(by) if *by == **batch => return ClaimSeen::Accepted(None),
            Some(by) => {
                let message = format!("the pod is marked as held by {by}");
                return ClaimSeen::Refused(Trouble::new("CLAIMED_BY_ANOTHER", message));
            }
            None => {}
        }
        let words = match ctx.writer.mark_pod(&current, batch, true).await {
            Ok(pod) => {
                ctx.update(|world| PodView::of(&pod).into_iter().for_each(|view| world.apply_pod(view)));
                continue;
            }
            Err(ActError::Gone) => return ClaimSeen::Refused(Trouble::new("PodDeleted", "the pod is gone")),
            Err(error) => error.to_string(),
        };
        // The pod has changed, or nobody knows: what it is now decides.
        if let Ok(found) = ctx.writer.pod(&crate::world::ObjectName::new(&pod.namespace, &pod.name)).await {
            ctx.update(|world| match found.as_ref().and_then(PodView::of) {
                Some(view) => world.apply_pod(view),
                None => world.remove_pod(&pod.uid),
            });
        }
        if Instant::now() + wait >= deadline {
            return ClaimSeen::Refused(Trouble::new(CLAIM_FAILED, words));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Labels a claimed pod with its holder, off the critical path. One try at a time for each pod.
pub(super) fn mark(ctx: &Arc<Context>, s: &BatchSnapshot, pod: PodView) {
    if !ctx.watches.begin_mark(&pod.uid) {
        return;
    }
    let (ctx, holder) = (ctx.clone(), s.uid.clone());
    let background = ctx.clone();
    background.spawn(async move {
        let marked = match ctx.calls.acquire().await {
            Ok(_permit) => ctx.writer.mark_pod(&pod, &holder, false).await,
            Err(_) => Err(ActError::NotLeader),
        };
        match marked {
            Ok(marked) => ctx.update(|world| PodView::of(&marked).into_iter().for_each(|view| world.apply_pod(view))),
            Err(error) => tracing::debug!(pod = %pod.name, %error, "pod not labelled with its holder"),
        }
        ctx.watches.end_mark(&pod.uid);
    });
}
