//! `GET /sandboxes/{id}/explain`: where the time went, what is waited for, and how it ended.

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, ConditionStatus, Daemons, Grant, Pool};
use api_types::explain::{Explanation, Obituary, PodFacts, PoolFigures, RecordedEvent, Step};
use api_types::ids::SandboxId;
use api_types::lifecycle::SandboxStatus;
use api_types::names::annotations;
use axum::Json;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt as _;

use super::diagnosis::diagnose;
use super::facts::{self, Facts, gather};
use super::find::fetch;
use super::state::{claimed, status};
use crate::app::App;
use crate::error::ApiError;
use crate::front::path::Path;
use crate::labels::is_object_name;

/// Answers from Kubernetes itself: who asks why wants what is true now.
pub async fn handle(app: App, Path(id): Path<String>) -> Result<Json<Explanation>, ApiError> {
    match fetch(&app, &id).await {
        Ok(object) => Ok(Json(explain(&object, &gather(&app, &object).await?))),
        Err(gone) if gone.code == ErrorCode::SandboxNotFound && is_object_name(&id) => {
            let mut events = facts::events(&app, "BatchSandbox", &id).await?;
            events.sort_by_key(facts::time);
            remembered(&id, &events).map(Json).ok_or(gone)
        }
        Err(error) => Err(error),
    }
}

/// Explains a sandbox: pure.
fn explain(object: &BatchSandbox, facts: &Facts) -> Explanation {
    let pool = object.spec.pool_ref.clone().filter(|p| !p.is_empty());
    let image = || object.metadata.annotations.as_ref()?.get(annotations::IMAGE).cloned();
    Explanation {
        id: SandboxId::new(object.name_any()),
        status: status(object),
        source: if pool.is_some() { "pool" } else { "image" }.to_owned(),
        from: pool.or_else(image),
        timeline: timeline(object, facts),
        waiting: diagnose(object, facts).map(|diagnosis| diagnosis.waiting),
        pool: facts.pool.as_deref().map(figures),
        pod: facts.pod.as_ref().map(pod_facts).or_else(|| granted_pod(object)),
        obituary: obituary(object, facts),
        events: facts.events.iter().map(recorded).collect(),
    }
}

/// What the events tell of a sandbox that is gone.
fn remembered(id: &str, events: &[Event]) -> Option<Explanation> {
    let last = events.last()?;
    let told = events.iter().rev().find(|e| e.type_.as_deref() == Some("Warning")).unwrap_or(last);
    let obituary = Obituary {
        reason: told.reason.clone().unwrap_or_else(|| "Deleted".to_owned()),
        message: told.message.clone().unwrap_or_else(|| "the sandbox is gone".to_owned()),
        at: facts::time(last),
        exit_code: None,
    };
    Some(Explanation {
        id: SandboxId::new(id),
        status: SandboxStatus {
            state: "Terminated".to_owned(),
            reason: Some(obituary.reason.clone()),
            message: Some("the sandbox is gone; this is what Kubernetes still remembers".to_owned()),
            last_transition_at: obituary.at,
        },
        source: "unknown".to_owned(),
        from: None,
        timeline: Vec::new(),
        waiting: None,
        pool: None,
        pod: None,
        obituary: Some(obituary),
        events: events.iter().map(recorded).collect(),
    })
}

/// A time and whether it is exact to less than a second.
type Moment = (Timestamp, bool);

fn micro(time: Option<&MicroTime>) -> Option<Moment> {
    time.map(|t| (t.0, true))
}

/// What has happened, oldest first. Kubernetes' own times have whole seconds, the controller's have microseconds.
fn timeline(object: &BatchSandbox, facts: &Facts) -> Vec<Step> {
    let state = object.status.as_ref();
    let latest = || state?.grants.iter().max_by_key(|g| g.epoch);
    let grant = claimed(object).or_else(latest);
    let observed = state.and_then(|s| micro(s.observed_at.as_ref()));
    let created = object.metadata.creation_timestamp.as_ref().map(|t| (t.0, false));
    let mut moments: Vec<(&str, Moment, Option<String>)> = Vec::new();
    let mut add = |name, moment: Option<Moment>, detail: Option<String>| {
        moments.extend(moment.map(|moment| (name, moment, detail)));
    };
    add("accepted", created, None);
    let queued_for = grant.and_then(|g| g.waited_for.clone());
    add(
        "queued",
        observed,
        Some(queued_for.map_or_else(|| "seen by the controller".to_owned(), |what| format!("waited for: {what}"))),
    );
    // A pod that was warm before the sandbox was asked for has no part in its time.
    let warm = grant
        .and_then(|g| g.pod_ready_at.as_ref())
        .map(|t| t.0)
        .zip(observed)
        .filter(|(ready, (seen, _))| ready <= seen);
    if warm.is_none()
        && let Some(pod) = &facts.pod
    {
        let since = created.map(|(at, _)| at);
        let fresh = pod.metadata.creation_timestamp.as_ref().is_some_and(|t| since.is_none_or(|since| t.0 >= since));
        if fresh {
            pod_moments(pod, &facts.events, &mut add);
        }
    }
    if let Some(grant) = grant {
        let detail = match (warm, &grant.pod) {
            (Some((ready, _)), pod) => format!("pod {pod}, warm since {ready:.0}"),
            (None, pod) => format!("pod {pod}"),
        };
        add(
            "ready",
            micro(grant.pod_ready_at.as_ref()).filter(|_| warm.is_none()),
            Some("the pod is ready".to_owned()),
        );
        add("granted", micro(grant.granted_at.as_ref()), Some(detail));
        add("claimed", micro(grant.claimed_at.as_ref()), Some("the pod knows its owner".to_owned()));
        add("execd", micro(grant.ready_at.as_ref()), Some("execd answers: the sandbox can be used".to_owned()));
    }
    let deleted = object.metadata.deletion_timestamp.as_ref().map(|t| (t.0, false));
    add("deleted", deleted, Some("its deletion was asked for".to_owned()));
    steps(moments)
}

fn pod_moments(pod: &Pod, events: &[Event], add: &mut impl FnMut(&'static str, Option<Moment>, Option<String>)) {
    let state = pod.status.as_ref();
    let coarse = |t: Timestamp| (t, false);
    add(
        "created",
        pod.metadata.creation_timestamp.as_ref().map(|t| coarse(t.0)),
        Some(format!("pod {}", pod.name_any())),
    );
    let conditions = || state.into_iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let scheduled = conditions().find(|c| c.type_ == "PodScheduled" && c.status == "True");
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    add(
        "scheduled",
        scheduled.and_then(|c| c.last_transition_time.as_ref()).map(|t| coarse(t.0)),
        node.map(|n| format!("on node {n}")),
    );
    let pulled = events.iter().rev().find(|e| e.reason.as_deref() == Some("Pulled"));
    add("pulled", pulled.and_then(facts::time).map(coarse), pulled.and_then(|e| e.message.clone()));
    let started = main_container(pod).and_then(|c| c.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    add("started", started.map(|t| coarse(t.0)), Some("the sandbox container runs".to_owned()));
}

/// In order of time; steps of one second keep the order in which they were told.
fn steps(mut moments: Vec<(&str, Moment, Option<String>)>) -> Vec<Step> {
    moments.sort_by_key(|(_, (at, _), _)| at.as_second());
    let mut steps: Vec<Step> = Vec::with_capacity(moments.len());
    for (name, (at, exact), detail) in moments {
        let took = steps.last().and_then(|before: &Step| {
            let milliseconds = at.duration_since(before.at).as_secs_f64() * 1e3;
            let both_exact = exact && !before.whole_second;
            // Between a whole second and a moment within it nothing is known.
            (both_exact || milliseconds >= 1e3).then_some((milliseconds.max(0.0) * 1e3).round() / 1e3)
        });
        steps.push(Step { name: name.to_owned(), at, whole_second: !exact, took_ms: took, detail });
    }
    steps
}

/// The container that is the sandbox.
fn main_container(pod: &Pod) -> Option<&ContainerStatus> {
    let name = Daemons::of(pod.spec.as_ref()?).execd;
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|c| name.as_ref().is_none_or(|name| c.name == *name))
}

fn obituary(object: &BatchSandbox, facts: &Facts) -> Option<Obituary> {
    let told = status(object);
    let terminated = facts.pod.as_ref().and_then(main_container).and_then(|c| c.state.as_ref()?.terminated.as_ref());
    let exit_code = terminated.map(|t| t.exit_code);
    match told.state.as_str() {
        "Failed" => Some(Obituary {
            reason: told.reason.unwrap_or_else(|| "Failed".to_owned()),
            message: told.message.unwrap_or_default(),
            at: terminated.and_then(|t| t.finished_at.as_ref()).map(|t| t.0).or(told.last_transition_at),
            exit_code,
        }),
        "Stopping" => {
            let expired = object.spec.expire_time.as_ref().map(|t| t.0).zip(told.last_transition_at);
            let expired = expired.is_some_and(|(end, deleted)| end <= deleted);
            let (reason, message) = if expired {
                ("Expired", "its timeout had passed")
            } else {
                ("Deleted", "somebody asked for its deletion")
            };
            let (reason, message) = (reason.to_owned(), message.to_owned());
            Some(Obituary { reason, message, at: told.last_transition_at, exit_code })
        }
        _ => None,
    }
}

fn figures(pool: &Pool) -> PoolFigures {
    let state = pool.status.clone().unwrap_or_default();
    let holding = state.conditions.iter().filter(|c| c.status == ConditionStatus::True && c.kind != "Ready");
    PoolFigures {
        name: pool.name_any(),
        total: state.total,
        allocated: state.allocated,
        available: state.available,
        max: pool.spec.capacity_spec.pool_max,
        conditions: holding
            .map(|c| {
                format!("{}: {}", c.reason.as_deref().unwrap_or(&c.kind), c.message.as_deref().unwrap_or_default())
            })
            .collect(),
    }
}

fn pod_facts(pod: &Pod) -> PodFacts {
    let state = pod.status.as_ref();
    PodFacts {
        name: pod.name_any(),
        uid: pod.uid(),
        ip: state.and_then(|s| s.pod_ip.clone()),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        phase: state.and_then(|s| s.phase.clone()),
    }
}

/// What the grant says of a pod that can't be read, or is gone.
fn granted_pod(object: &BatchSandbox) -> Option<PodFacts> {
    let grant: &Grant = object.status.as_ref()?.grants.iter().max_by_key(|g| g.epoch)?;
    let (name, uid, ip) = (grant.pod.clone(), Some(grant.pod_uid.clone()), grant.pod_ip.clone());
    Some(PodFacts { name, uid, ip, node: None, phase: None })
}

fn recorded(event: &Event) -> RecordedEvent {
    let about = &event.involved_object;
    RecordedEvent {
        at: facts::time(event),
        kind: event.type_.clone().unwrap_or_else(|| "Normal".to_owned()),
        object: format!("{}/{}", about.kind.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default()),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
        count: event.count.unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandboxes::state::tests::object;

    #[test]
    fn a_warm_pod_takes_milliseconds_and_the_second_before_is_not_counted() {
        let explained = explain(
            &object(
                json!({"replicas": 1, "phase": "Succeed", "observedAt": "2026-11-23T10:00:00.400000Z", "grants": [{
                "index": 0, "pod": "p-1", "podUID": "u", "podIP": "10.0.0.1", "epoch": 1, "state": "Claimed",
                "podReadyAt": "2026-11-23T09:00:00.000000Z", "grantedAt": "2026-11-23T10:00:00.401500Z",
                "claimedAt": "2026-11-23T10:00:00.406000Z", "readyAt": "2026-11-23T10:00:00.406500Z"}]}),
            ),
            &Facts::default(),
        );
        let seen: Vec<_> = explained.timeline.iter().map(|s| (s.name.as_str(), s.took_ms)).collect();
        assert_eq!(
            seen,
            [
                ("accepted", None),
                ("queued", None),
                ("granted", Some(1.5)),
                ("claimed", Some(4.5)),
                ("execd", Some(0.5))
            ]
        );
        assert!(explained.timeline[2].detail.as_deref().unwrap().contains("warm since"), "{:?}", explained.timeline);
        assert_eq!(explained.waiting, None);
        assert_eq!(explained.pod.unwrap().name, "p-1");
    }

    #[test]
    fn a_pod_of_ones_own_shows_what_kubelet_did() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "s-0", "creationTimestamp": "2026-11-23T10:00:00Z"},
            "spec": {"nodeName": "n", "containers": [{"name": "sandbox", "ports": [{"containerPort": 44772}]}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-23T10:00:00Z"}],
                "containerStatuses": [{"name": "sandbox", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-11-23T10:00:09Z"}}}]
            }
        }))
        .unwrap();
        let explained = explain(&object(json!({"replicas": 1})), &Facts { pod: Some(pod), ..Facts::default() });
        let names: Vec<_> = explained.timeline.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["accepted", "created", "scheduled", "started"]);
        assert_eq!(explained.timeline[3].took_ms, Some(9000.0));
        assert_eq!(explained.pod.unwrap().node.as_deref(), Some("n"));
    }

    #[test]
    fn the_end_is_told_by_object_and_by_events() {
        let failed = object(json!({"replicas": 1, "phase": "Failed", "conditions": [
            {"type": "PodFailed", "status": "True", "reason": "OOMKilled", "message": "ate its memory"}]}));
        let obituary = explain(&failed, &Facts::default()).obituary.unwrap();
        assert_eq!((obituary.reason.as_str(), obituary.message.as_str()), ("OOMKilled", "ate its memory"));
        let event: Event = serde_json::from_value(json!({
            "metadata": {}, "type": "Warning", "reason": "OOMKilled", "message": "ate its memory",
            "involvedObject": {"kind": "BatchSandbox", "name": "s"}, "lastTimestamp": "2026-11-23T10:00:05Z"
        }))
        .unwrap();
        let told = remembered("s", &[event]).unwrap();
        assert_eq!((told.status.state.as_str(), told.obituary.unwrap().reason.as_str()), ("Terminated", "OOMKilled"));
        assert!(remembered("s", &[]).is_none());
    }
}
