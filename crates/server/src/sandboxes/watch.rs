//! `GET /sandboxes/{id}/events`: the sandbox's state at once and after each change, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use api_types::lifecycle::Sandbox;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use futures::stream::unfold;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::find::find;
use super::view;
use crate::app::App;
use crate::error::ApiError;
use crate::front::path::Path;
use crate::store::{Seen, Waiter};
use crate::streams::Place;

/// A sign of life on a stream that tells nothing.
const PING: Duration = Duration::from_secs(15);

/// Streams until the sandbox is gone, the caller hangs up or the server stops.
pub async fn handle(app: App, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let waiter = app.space().sandboxes.wait_for(&id);
    let now = find(&app, &id).await?;
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let first = (view::sandbox(&now), now.metadata.resource_version.clone());
    let telling = Telling {
        waiter,
        stop: app.stop.clone(),
        first: Some(first),
        version: known,
        told: None,
        over: false,
        _place: app.streams.take(&app.metrics.subscriptions)?,
    };
    let mut response = Sse::new(events(telling)).keep_alive(KeepAlive::new().interval(PING)).into_response();
    // Proxies that gather answers would hold events back.
    let (name, value) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(name, value);
    Ok(response)
}

struct Telling {
    waiter: Waiter<api_types::crd::BatchSandbox>,
    stop: CancellationToken,
    /// What was found when the stream began; memory may not have it yet.
    first: Option<(Sandbox, Option<String>)>,
    /// Version of the last event.
    version: Option<String>,
    told: Option<Sandbox>,
    over: bool,
    _place: Place,
}

fn events(telling: Telling) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(telling, |mut telling| async move {
        loop {
            if telling.over {
                return None;
            }
            let (state, version) = match telling.first.take() {
                Some(first) => first,
                None => match telling.waiter.current() {
                    Seen::Present(object) => (view::sandbox(&object), object.metadata.resource_version.clone()),
                    Seen::Gone => {
                        telling.over = true;
                        return Some((Ok(Event::default().event("gone").data("{}")), telling));
                    }
                    Seen::Never => match telling.wait().await {
                        true => continue,
                        false => return None,
                    },
                },
            };
            // Many writes of the controller change nothing that is shown.
            let news = telling.told.as_ref() != Some(&state) && (telling.version != version || version.is_none());
            telling.told = Some(state.clone());
            if news {
                telling.version.clone_from(&version);
                let event = Event::default().event("state").id(version.unwrap_or_default());
                let event = event.json_data(&state).unwrap_or_default();
                return Some((Ok(event), telling));
            }
            if !telling.wait().await {
                return None;
            }
        }
    })
}

impl Telling {
    /// Waits for news; false when the server stops.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            () = self.waiter.changed() => true,
            () = self.stop.cancelled() => false,
        }
    }
}
