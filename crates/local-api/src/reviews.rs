//! What a caller may ask about itself. Whoever has the token may do everything.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::{ApiError, Cause, Result};
use crate::http::{ApiBody, body};
use crate::object;

/// The name and groups that the token stands for.
const USER: &str = "osb-admin";
const GROUPS: [&str; 2] = ["system:authenticated", "system:masters"];

/// What is wrong with a question that could be read.
fn check(name: &str, review: &Value) -> Result<()> {
    let asks = |field: &str| object::at(review, &format!("spec.{field}")).is_some();
    match name {
        "selfsubjectaccessreviews.authorization.k8s.io"
            if review.get("spec").is_some_and(|s| s.as_object().is_some_and(|m| !m.contains_key("unread")))
                && asks("resourceAttributes") == asks("nonResourceAttributes") =>
        {
            let rule = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause::invalid("spec.resourceAttributes", &Value::Null, rule);
            Err(ApiError::invalid("authorization.k8s.io", "", "", vec![cause]))
        }
        "selfsubjectrulesreviews.authorization.k8s.io"
            if object::at(review, "spec.unread").is_none() && object::str_at(review, "spec.namespace").is_empty() =>
        {
            Err(ApiError::bad_request("no namespace on request"))
        }
        _ => Ok(()),
    }
}

/// Answers one review. The body may be in an encoding that is not read (kubectl sends protobuf): the answer is the same
/// whatever was asked, so it need not be.
pub(crate) fn answer(name: &str, method: &Method, read: impl FnOnce() -> Result<Value>) -> Result<Response<ApiBody>> {
    if method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let (kind, status) = match name {
        "selfsubjectaccessreviews.authorization.k8s.io" => {
            ("SelfSubjectAccessReview", json!({"allowed": true, "reason": "the token may do everything"}))
        }
        "selfsubjectrulesreviews.authorization.k8s.io" => {
            let resources = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
            let others = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
            let status = json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": false});
            ("SelfSubjectRulesReview", status)
        }
        "selfsubjectreviews.authentication.k8s.io" => {
            ("SelfSubjectReview", json!({"userInfo": {"username": USER, "groups": GROUPS}}))
        }
        _ => return Err(ApiError::no_such_path()),
    };
    let mut review = match read() {
        Ok(Value::Object(map)) => Value::Object(map),
        Ok(_) => return Err(ApiError::bad_request("the body of the request must be an object")),
        Err(error) if error.code == 415 => {
            let group = name.split_once('.').map_or("", |(_, group)| group);
            json!({"kind": kind, "apiVersion": format!("{group}/v1"), "metadata": {"creationTimestamp": null}, "spec": {"unread": true}})
        }
        Err(error) => return Err(error),
    };
    check(name, &review)?;
    if let Some(Value::Object(spec)) = review.get_mut("spec") {
        spec.shift_remove("unread");
    }
    review["status"] = status;
    Ok(body::value(StatusCode::CREATED, &review))
}
