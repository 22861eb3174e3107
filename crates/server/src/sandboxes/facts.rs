//! What Kubernetes can tell about one sandbox beyond its object: its pod, its pool, and the events of both.
//! Read when somebody asks why, never on the way of a create that goes well.

use std::sync::Arc;

use api_types::crd::{BatchSandbox, Pool};
use api_types::names::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::state::claimed;
use crate::app::App;
use crate::error::{ApiError, from_kube, within};

/// Most events that are looked at of one object.
const EVENTS: u32 = 200;

/// The facts.
#[derive(Debug, Default)]
pub struct Facts {
    /// Its pod.
    pub pod: Option<Pod>,
    /// Its pool.
    pub pool: Option<Arc<Pool>>,
    /// Events of sandbox and pod, oldest first.
    pub events: Vec<Event>,
}

/// Gathers them. What can't be read for want of a right is left out.
pub async fn gather(app: &App, object: &BatchSandbox) -> Result<Facts, ApiError> {
    let pool = object.spec.pool_ref.as_deref().and_then(|name| app.space().pools.get(name));
    let id = object.name_any();
    let (pod, of_sandbox) = tokio::try_join!(pod(app, object), events(app, "BatchSandbox", &id))?;
    let mut events_found = of_sandbox;
    if let Some(pod) = &pod {
        events_found.extend(events(app, "Pod", &pod.name_any()).await?);
        for claim in claims(pod) {
            events_found.extend(events(app, "PersistentVolumeClaim", claim).await?);
        }
    }
    events_found.sort_by_key(time);
    Ok(Facts { pod, pool, events: events_found })
}

/// The pod: by its grant, or, before there is one, by the label of a BatchSandbox's own pods.
async fn pod(app: &App, object: &BatchSandbox) -> Result<Option<Pod>, ApiError> {
    let api: Api<Pod> = Api::namespaced(app.client.clone(), &app.space().namespace);
    let deadline = app.config.limits.kube_timeout;
    let latest = || object.status.as_ref()?.grants.iter().max_by_key(|g| g.epoch);
    let doing = "looking at the pod";
    let found = match claimed(object).or_else(latest) {
        // A namesake is another pod.
        Some(grant) => within(deadline, doing, api.get_opt(&grant.pod))
            .await?
            .map(|pod| pod.filter(|pod| pod.uid().as_deref() == Some(&grant.pod_uid))),
        None if object.spec.template.is_some() => {
            let own = ListParams::default().labels(&format!("{}={}", labels::BATCH_NAME, object.name_any())).limit(1);
            within(deadline, doing, api.list(&own)).await?.map(|list| list.items.into_iter().next())
        }
        None => Ok(None),
    };
    permitted(found, doing)
}

/// Most claims whose events are read.
const CLAIMS: usize = 4;

/// The claims of a pod that has no node: why it has none is often told of them.
fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref().filter(|spec| spec.node_name.is_none());
    let volumes = spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str())).take(CLAIMS)
}

/// Events about one object, in no order.
pub async fn events(app: &App, kind: &str, name: &str) -> Result<Vec<Event>, ApiError> {
    let api: Api<Event> = Api::namespaced(app.client.clone(), &app.space().namespace);
    let doing = "reading events";
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let params = ListParams::default().fields(&fields).limit(EVENTS);
    let listed = within(app.config.limits.kube_timeout, doing, api.list(&params)).await?;
    permitted(listed.map(|list| list.items), doing)
}

fn permitted<T: Default>(read: kube::Result<T>, doing: &str) -> Result<T, ApiError> {
    match read {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::debug!(doing, "not allowed; left out");
            Ok(T::default())
        }
        read => read.map_err(|error| from_kube(&error, doing)),
    }
}

/// When an event happened last.
pub fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    let event_time = event.event_time.as_ref().map(|t| t.0);
    series.or(last).or(event_time).or_else(|| event.metadata.creation_timestamp.as_ref().map(|t| t.0))
}
