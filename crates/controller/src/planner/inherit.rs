//! Taking over what an older controller left: annotations become grants, and live pods stay where they are.

use api_types::crd::{BatchPhase, BatchSandboxStatus, Condition, Grant, GrantState};
use api_types::names::annotations;

use super::batch::{Action, BatchPlan, Mode, micros, restarted_before};
use super::{Note, batch_status, conditions};
use crate::world::{BatchSnapshot, Claimant, Inherited, PodView};

/// Reason of a grant whose pod was gone, or another's, when it was taken over.
const NOT_FOUND: &str = "PodNotFound";
/// Reason of a sandbox whose record cannot be read.
const MALFORMED: &str = "MalformedAllocation";

/// Plans the one write that makes the inheritance durable. Nothing else is done before.
pub(super) fn plan(
    s: &BatchSnapshot,
    mode: &Mode,
    old: &BatchSandboxStatus,
    inherited: &Result<Vec<Inherited>, String>,
    mut plan: BatchPlan,
) -> BatchPlan {
    let mut notes = Vec::new();
    let status = match inherited {
        Ok(inherited) => {
            let grants = grants(inherited);
            notes.push(Note::normal("TakenOver", told(&grants)));
            batch_status::compute(s, mode, old, &grants, &mut notes)
        }
        Err(error) => {
            let message = format!(
                "annotation {} cannot be read, so nobody knows which pods this holds: {error}; mend it, or delete the \
                 sandbox. Until then its pool gives away no pod of the older controller",
                annotations::ALLOC_STATUS
            );
            notes.push(Note::warning(MALFORMED, message.clone()));
            let condition = Condition::holds("InvalidSpec", MALFORMED, message, conditions::seconds(s.now));
            BatchSandboxStatus {
                conditions: conditions::replace(&old.conditions, &["InvalidSpec"], vec![condition]),
                ..old.clone()
            }
        }
    };
    if status != *old {
        plan.actions.push(Action::Status(Box::new(status)));
        plan.actions.extend(notes.into_iter().map(Action::Note));
    }
    plan
}

fn grants(inherited: &[Inherited]) -> Vec<Grant> {
    let grant = |(at, i): (usize, &Inherited)| {
        let index = i32::try_from(at).unwrap_or(i32::MAX);
        Grant {
            index,
            pod: i.name.clone(),
            pod_uid: i.pod.as_ref().map(|p| p.uid.to_string()).unwrap_or_default(),
            pod_ip: i.pod.as_ref().and_then(|p| p.ip.clone()),
            epoch: i64::from(index) + 1,
            state: i.state,
            reason: match i.state {
                GrantState::Lost => Some(NOT_FOUND.to_owned()),
                GrantState::Claimed => i.pod.as_ref().and_then(restarted_before),
                _ => None,
            },
            pod_ready_at: i.pod.as_ref().and_then(|p| p.ready_since).map(micros),
            ..Grant::default()
        }
    };
    inherited.iter().enumerate().map(grant).collect()
}

fn told(grants: &[Grant]) -> String {
    let count = |wanted: GrantState| grants.iter().filter(|g| g.state == wanted).count();
    format!(
        "taken over from an older controller: {} pods held, {} being given back, {} given back, {} not found",
        count(GrantState::Claimed),
        count(GrantState::Releasing),
        count(GrantState::Released),
        count(GrantState::Lost)
    )
}

/// Whether a pod of the sandbox's own was made by an older controller, and runs as its sandbox already.
pub(super) fn is_running_of_old(s: &BatchSnapshot, pod: &PodView) -> bool {
    let was_running = |st: &BatchSandboxStatus| st.phase == Some(BatchPhase::Succeed) && st.grants.is_empty();
    // What brings a claim was made by our server, and its pods by a controller that gives them a key.
    !pod.keyed
        && s.batch.spec.claim.is_none()
        && (pod.claimant == Claimant::Execd || s.batch.status.as_ref().is_some_and(was_running))
}
