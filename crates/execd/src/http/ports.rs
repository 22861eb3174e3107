//! `/ports`: what listens in the sandbox, as a list and as a stream.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::command::events;
use super::files::{Who, blocking};
use super::{ApiError, Shared};
use crate::metrics::ports::{Port, listening, name};

/// Time between two looks, while somebody watches: the kernel does not tell of new listeners.
const LOOK: Duration = Duration::from_millis(200);
/// Time without a change after which a ping is sent.
const PING: Duration = Duration::from_secs(3);

/// `GET /ports`.
pub async fn list(State(app): State<Shared>) -> Result<Json<Vec<Port>>, ApiError> {
    let own = app.port;
    let found = blocking(&Who::default(), move || {
        let mut ports = listening(own);
        name(&mut ports);
        Ok(ports)
    })
    .await?;
    Ok(Json(found.into_values().collect()))
}

struct Watch {
    own: u16,
    known: BTreeMap<u16, Port>,
    ticks: Interval,
    told_at: Instant,
}

/// `GET /ports/watch`: first those that are there, then each that comes and goes.
pub async fn watch(State(app): State<Shared>) -> Response {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = Watch { own: app.port, known: BTreeMap::new(), ticks, told_at: Instant::now() };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let mut out = Vec::new();
        while out.is_empty() {
            state.ticks.tick().await;
            let now = listening(state.own);
            for port in now.values().filter(|port| !state.known.contains_key(&port.port)) {
                tell(&mut out, json!({"type": "opened", "port": port.port, "addresses": port.addresses}));
            }
            for port in state.known.keys().filter(|port| !now.contains_key(port)) {
                tell(&mut out, json!({"type": "closed", "port": port}));
            }
            state.known = now;
            if out.is_empty() && state.told_at.elapsed() >= PING {
                tell(&mut out, json!({"type": "ping"}));
            }
        }
        state.told_at = Instant::now();
        Some((Ok::<_, Infallible>(out), state))
    });
    events(Body::from_stream(stream))
}

fn tell(out: &mut Vec<u8>, mut event: Value) {
    if let Some(event) = event.as_object_mut() {
        event.insert("timestamp".to_owned(), Timestamp::now().as_millisecond().into());
    }
    out.extend_from_slice(event.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}
