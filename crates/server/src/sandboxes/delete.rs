//! `DELETE /sandboxes/{id}`, and the deletion that undoes a create.

use std::time::Duration;

use api_types::crd::BatchSandbox;
use http::StatusCode;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};
use kube::core::response::Status;
use telemetry::chain;

use super::find::find;
use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::front::path::Path;

/// Tries of a deletion that nobody waits for, and the first pause between them.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Answers when Kubernetes has taken the deletion; the pod goes after that.
pub async fn handle(app: App, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let object = find(&app, &id).await?;
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let doing = format!("deleting sandbox {id}");
    let uid = object.metadata.uid.clone();
    let deletion = within(app.config.limits.kube_timeout, &doing, delete(&app, &id, uid)).await?;
    match deletion {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(kube::Error::Api(status)) if is_gone(&status) => Err(ApiError::sandbox_not_found(&id)),
        Err(error) => Err(from_kube(&error, &doing)),
    }
}

/// A namesake of another UID is a conflict: the one that was meant is gone as well.
fn is_gone(status: &Status) -> bool {
    matches!(status.code, 404 | 409)
}

async fn delete(app: &App, id: &str, uid: Option<String>) -> kube::Result<()> {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::background()
    };
    match app.sandbox_api().delete(id, &params).await?.left() {
        Some(object) => app.space().sandboxes.observe(object),
        None => app.space().sandboxes.observe_gone(id, uid.as_deref()),
    }
    Ok(())
}

/// Takes a create back: nothing half done is left. Nobody waits for it, so it is tried for a while.
pub async fn undo(app: &App, object: &BatchSandbox) {
    let id = object.name_any();
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=TRIES {
        let deletion = tokio::time::timeout(app.config.limits.kube_timeout, delete(app, &id, object.uid())).await;
        let problem = match deletion {
            Ok(Ok(())) => return,
            Ok(Err(kube::Error::Api(status))) if is_gone(&status) => return,
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!(sandbox = %id, attempt, problem, "the sandbox of a failed create could not be deleted");
        if attempt < TRIES {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}
