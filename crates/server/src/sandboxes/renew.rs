//! `POST /sandboxes/{id}/renew-expiration`: a new end, absolute; it may be sooner.

use api_types::ErrorCode;
use api_types::lifecycle::RenewExpiration;
use axum::Json as Answer;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::find::{find, patch};
use super::object::whole_second_after;
use crate::app::App;
use crate::error::ApiError;
use crate::front::body::Json;
use crate::front::path::Path;

/// Moves the end.
pub async fn handle(
    app: App,
    Path(id): Path<String>,
    Json { value, .. }: Json<RenewExpiration>,
) -> Result<Answer<RenewExpiration>, ApiError> {
    let object = find(&app, &id).await?;
    if object.spec.expire_time.is_none() {
        let message = format!("sandbox {id} was made without a timeout and has no end to move");
        return Err(ApiError::new(ErrorCode::NoExpiration, message));
    }
    if object.metadata.deletion_timestamp.is_some() {
        return Err(ApiError::new(ErrorCode::InvalidState, format!("sandbox {id} is being deleted")));
    }
    let now = Timestamp::now();
    let wanted = whole_second_after(value.expires_at).filter(|end| *end > now).ok_or_else(|| {
        let message = format!("expiresAt: {} is not in the future; it is {now}", value.expires_at);
        ApiError::new(ErrorCode::InvalidExpiration, message)
    })?;
    let doing = format!("renewing sandbox {id}");
    patch(&app, &id, &object, json!({"spec": {"expireTime": Time(wanted)}}), &doing).await?;
    Ok(Answer(RenewExpiration { expires_at: wanted }))
}
