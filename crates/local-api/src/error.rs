//! Every refusal as a `metav1.Status`: one type that knows its HTTP code, reason and causes.

use serde_json::{Value, json};

/// One field that was wrong, as `details.causes` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable kind of the fault, e.g. `FieldValueRequired`.
    pub reason: &'static str,
    /// What is wrong, in kube-apiserver's words.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Cause {
    /// A field that must be given.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {}: {}", shown(value), detail.as_ref());
        Self { reason: "FieldValueInvalid", message, field: field.into() }
    }

    /// A value of the wrong JSON type.
    pub fn wrong_type(field: impl Into<String>, shown: &str, detail: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {shown}: {}", detail.as_ref());
        Self { reason: "FieldValueTypeInvalid", message, field: field.into() }
    }

    /// A value outside a closed set.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    /// A second value where one must be unique.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", shown(value)),
            field: field.into(),
        }
    }

    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueNotFound", message: format!("Not found: {}", shown(value)), field: field.into() }
    }

    /// A field that may not be set here.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }

    /// Text or list longer than allowed.
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self { reason: "FieldValueTooLong", message, field: field.into() }
    }
}

/// A value as Go's `%#v`-like printer of field errors shows it: strings quoted, the rest as JSON.
fn shown(value: &Value) -> String {
    value.to_string()
}

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `Status.reason`.
    pub reason: &'static str,
    /// `Status.message`.
    pub message: String,
    /// What else there is to say; boxed, because most results are no errors.
    pub details: Box<Details>,
}

/// `Status.details`.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// `details.name`.
    pub name: Option<String>,
    /// `details.group`.
    pub group: Option<String>,
    /// `details.kind`.
    pub kind: Option<String>,
    /// `details.uid`.
    pub uid: Option<String>,
    /// `details.causes`.
    pub causes: Vec<Cause>,
    /// `details.retryAfterSeconds`.
    pub retry_after: Option<u32>,
}

/// Marks the one error that has no `Status`.
const PAGE_NOT_FOUND: &str = "PageNotFound";

/// What every verb returns.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error with a code, a reason and a message, and no details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::default() }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = Some(group).filter(|g| !g.is_empty()).map(Into::into);
        self.details.kind = Some(kind).filter(|k| !k.is_empty()).map(Into::into);
        self.details.name = Some(name).filter(|n| !n.is_empty()).map(Into::into);
        self
    }

    /// 404 for an object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, plural));
        Self::new(404, "NotFound", message).about(group, plural, name)
    }

    /// 404 for a path outside every group that is served; kube-apiserver answers it in plain text.
    pub fn page_not_found() -> Self {
        Self::new(404, PAGE_NOT_FOUND, "404 page not found")
    }

    /// Whether it is answered in plain text.
    pub(crate) fn is_plain(&self) -> bool {
        self.reason == PAGE_NOT_FOUND
    }

    /// 404 for a path nobody serves.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, plural));
        Self::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    /// 409 for a stale write or a failed precondition.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, plural));
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 409 for a `resourceVersion` that is no longer the newest.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", qualified(group, plural));
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 422 with one cause a field.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let whole = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect::<Vec<_>>();
        let why = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut error = Self::new(422, "Invalid", format!("{whole} \"{name}\" is invalid: {why}"));
        error = error.about(group, kind, name);
        error.details.causes = causes;
        error
    }

    /// 410: the version asked for is older than what is remembered.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 501: known to Kubernetes, not to this server.
    pub fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not implemented by the embedded cluster"))
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (key, value) in [
            ("name", &self.details.name),
            ("group", &self.details.group),
            ("kind", &self.details.kind),
            ("uid", &self.details.uid),
        ] {
            if let Some(value) = value {
                details.insert(key.into(), value.clone().into());
            }
        }
        if !self.details.causes.is_empty() {
            let causes = self
                .details
                .causes
                .iter()
                .map(|c| {
                    let mut cause = json!({"reason": c.reason, "message": c.message});
                    if !c.field.is_empty() {
                        cause["field"] = c.field.as_str().into();
                    }
                    cause
                })
                .collect::<Vec<_>>();
            details.insert("causes".into(), causes.into());
        }
        if let Some(seconds) = self.details.retry_after {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        // Kubernetes sends empty details where the resource itself is not known or not allowed.
        let unknown = matches!(self.reason, "MethodNotAllowed" | "NotFound" | "PageNotFound")
            || self.reason == "Invalid" && self.details.kind.is_none();
        if !details.is_empty() || unknown {
            status["details"] = Value::Object(details);
        }
        status["code"] = self.code.into();
        status
    }
}

fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}
