//! The pool resource: read from memory, written to Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::crd::{CapacitySpec, Pool, PoolSpec, Raw};
use api_types::lifecycle::{
    CreatePoolRequest, ListPoolsResponse, PoolCapacity, PoolResponse, PoolStatusSummary, UpdatePoolRequest,
};
use axum::Json as Answer;
use http::StatusCode;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use telemetry::chain;

use crate::app::App;
use crate::error::{ApiError, within};
use crate::front::body::Json;
use crate::front::path::Path;
use crate::labels::is_object_name;

/// How long a list waits for the first view of the world after a start.
const FIRST_VIEW: Duration = Duration::from_secs(5);

/// Finds a pool: from memory, with one look at Kubernetes when memory has not got it.
pub async fn find(app: &App, name: &str) -> Result<Arc<Pool>, ApiError> {
    if let Some(known) = app.space().pools.get(name) {
        return Ok(known);
    }
    if !is_object_name(name) {
        return Err(ApiError::pool_not_found(name));
    }
    let doing = format!("looking up pool {name}");
    let found = within(app.config.limits.kube_timeout, &doing, app.pool_api().get_opt(name)).await?;
    let found = found.map_err(|error| from_kube(&error, &doing, name))?;
    let pool = found.ok_or_else(|| ApiError::pool_not_found(name))?;
    app.space().pools.observe(pool.clone());
    Ok(Arc::new(pool))
}

/// `GET /pools`.
pub async fn list(app: App) -> Result<Answer<ListPoolsResponse>, ApiError> {
    if !app.space().pools.synced(FIRST_VIEW).await {
        let message = "the server has not read the pools from Kubernetes yet";
        return Err(ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1)));
    }
    Ok(Answer(ListPoolsResponse { items: app.space().pools.all().iter().map(|pool| view(pool)).collect() }))
}

/// `GET /pools/{name}`.
pub async fn get(app: App, Path(name): Path<String>) -> Result<Answer<PoolResponse>, ApiError> {
    Ok(Answer(view(&*find(&app, &name).await?)))
}

/// `POST /pools`.
pub async fn create(
    app: App,
    Json { value: request, .. }: Json<CreatePoolRequest>,
) -> Result<(StatusCode, Answer<PoolResponse>), ApiError> {
    if !is_object_name(&request.name) || request.name.contains('.') {
        return Err(ApiError::field("name", "is lower-case letters, digits and inner dashes, at most 253"));
    }
    if let Err(error) = serde_path_to_error::deserialize::<_, PodTemplateSpec>(&request.template) {
        return Err(ApiError::field(&format!("template.{}", error.path()), error.inner()));
    }
    let spec = PoolSpec {
        template: Some(Raw(request.template)),
        capacity_spec: capacity(request.capacity_spec)?,
        ..PoolSpec::default()
    };
    let doing = format!("creating pool {}", request.name);
    let (api, params) = (app.pool_api(), PostParams::default());
    let pool = Pool::new(&request.name, spec);
    let written = within(app.config.limits.kube_timeout, &doing, api.create(&params, &pool)).await?;
    let written = written.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 409 => {
            ApiError::new(ErrorCode::PoolAlreadyExists, format!("a pool is named {:?} already", request.name))
        }
        _ => from_kube(&error, &doing, &request.name),
    })?;
    let answer = view(&written);
    app.space().pools.observe(written);
    Ok((StatusCode::CREATED, Answer(answer)))
}

/// `PUT /pools/{name}`: its sizes.
pub async fn update(
    app: App,
    Path(name): Path<String>,
    Json { value: request, .. }: Json<UpdatePoolRequest>,
) -> Result<Answer<PoolResponse>, ApiError> {
    let patch = json!({"spec": {"capacitySpec": capacity(request.capacity_spec)?}});
    find(&app, &name).await?;
    let doing = format!("changing pool {name}");
    let (api, params) = (app.pool_api(), PatchParams::default());
    let written =
        within(app.config.limits.kube_timeout, &doing, api.patch(&name, &params, &Patch::Merge(&patch))).await?;
    let written = written.map_err(|error| from_kube(&error, &doing, &name))?;
    let answer = view(&written);
    app.space().pools.observe(written);
    Ok(Answer(answer))
}

/// `DELETE /pools/{name}`.
pub async fn delete(app: App, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    find(&app, &name).await?;
    let doing = format!("deleting pool {name}");
    let (api, params) = (app.pool_api(), DeleteParams::background().grace_period(0));
    let deleted = within(app.config.limits.kube_timeout, &doing, api.delete(&name, &params)).await?;
    match deleted.map_err(|error| from_kube(&error, &doing, &name))?.left() {
        Some(pool) => app.space().pools.observe(pool),
        None => app.space().pools.observe_gone(&name, None),
    }
    Ok(StatusCode::NO_CONTENT)
}

fn capacity(asked: PoolCapacity) -> Result<CapacitySpec, ApiError> {
    let PoolCapacity { buffer_max, buffer_min, pool_max, pool_min } = asked;
    for (field, number) in
        [("bufferMax", buffer_max), ("bufferMin", buffer_min), ("poolMax", pool_max), ("poolMin", pool_min)]
    {
        if number < 0 {
            return Err(ApiError::field(
                &format!("capacitySpec.{field}"),
                format_args!("is {number}; it is at least 0"),
            ));
        }
    }
    Ok(CapacitySpec { buffer_max, buffer_min, pool_max, pool_min })
}

fn view(pool: &Pool) -> PoolResponse {
    let CapacitySpec { buffer_max, buffer_min, pool_max, pool_min } = pool.spec.capacity_spec;
    PoolResponse {
        name: pool.name_any(),
        capacity_spec: PoolCapacity { buffer_max, buffer_min, pool_max, pool_min },
        status: pool.status.as_ref().map(|s| PoolStatusSummary {
            total: s.total,
            allocated: s.allocated,
            available: s.available,
            revision: s.revision.clone(),
        }),
        created_at: pool.metadata.creation_timestamp.as_ref().map(|t| t.0),
    }
}

fn from_kube(error: &kube::Error, doing: &str, name: &str) -> ApiError {
    match error {
        kube::Error::Api(status) if status.code == 404 => ApiError::pool_not_found(name),
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
            ApiError::new(ErrorCode::InvalidRequest, format!("{doing}: {}", status.message))
        }
        kube::Error::Api(status) => ApiError::new(ErrorCode::PoolApiError, format!("{doing}: {}", status.message)),
        other => ApiError::new(ErrorCode::PoolApiError, format!("{doing}: {}", chain(other))),
    }
}
