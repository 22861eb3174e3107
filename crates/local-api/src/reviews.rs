//! What a caller may ask about itself. Whoever has the token may do everything.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::http::{ApiBody, body};

/// The name and groups that the token stands for.
const USER: &str = "osb-admin";
const GROUPS: [&str; 2] = ["system:authenticated", "system:masters"];

/// Answers one review.
pub(crate) fn answer(kind: &str, method: &Method, read: impl FnOnce() -> Result<Value>) -> Result<Response<ApiBody>> {
    if method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let mut review = read()?;
    let status = match kind {
        "selfsubjectaccessreviews.authorization.k8s.io" => {
            json!({"allowed": true, "reason": "the token may do everything"})
        }
        "selfsubjectrulesreviews.authorization.k8s.io" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        "selfsubjectreviews.authentication.k8s.io" => json!({"userInfo": {"username": USER, "groups": GROUPS}}),
        _ => return Err(ApiError::no_such_path()),
    };
    if !review.is_object() {
        return Err(ApiError::bad_request("the body of the request must be an object"));
    }
    review["status"] = status;
    Ok(body::value(StatusCode::CREATED, &review))
}
