//! `POST /command`.

use api_types::execd::RunRequest;
use api_types::ids::ExecutionId;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Uri;

use super::super::request::{Query, json};
use super::super::{ApiError, Shared};
use super::output::{events, form};
use super::plan::plan;
use crate::stream::{self, Cursor};

/// The handler.
pub async fn run(State(app): State<Shared>, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let form = form(&Query::of(&uri)?)?;
    let request: RunRequest = json(body).await?;
    let background = request.background();
    let launch = plan(&app, &request)?;
    let id = ExecutionId::new(uuid::Uuid::new_v4().simple().to_string());
    let execution = app.engine.start(id, &launch)?;
    let body = if background {
        Body::from(stream::fixed(&execution, form.framing))
    } else {
        Body::from_stream(stream::live(execution, Cursor::default(), form))
    };
    Ok(events(body))
}
