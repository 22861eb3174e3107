//! The one error catalogue: what server, execd, task-executor, SDK and CLI say when they refuse.

use serde::{Deserialize, Serialize};

/// Body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// Stable code from the catalogue, e.g. `KUBERNETES::POOL_NOT_FOUND`.
    pub code: String,
    /// What was wrong, where, and what would be right.
    pub message: String,
}

impl ErrorBody {
    /// Body for a code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.as_str().to_owned(), message: message.into() }
    }
}

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:literal, $action:literal;)+) => {
        /// A code of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ErrorCode {
            /// Every code, in the catalogue's order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// HTTP status it is answered with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// What the caller should do.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$name => $action,)+ }
            }

            /// The code with this text, if it is in the catalogue.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

catalogue! {
    // Front door.
    /// The request carries no API key.
    MissingApiKey = "MISSING_API_KEY", 401, "Send the key in header OPEN-SANDBOX-API-KEY.";
    /// The API key is not one of this server's.
    InvalidApiKey = "INVALID_API_KEY", 401, "Check the key; `osb status` prints the one of the embedded platform.";
    /// The token of a sandbox's port is missing or not the right one.
    InvalidSecureAccess = "MISSING_OR_INVALID_SECURE_ACCESS", 401, "Ask for the endpoint again and send its headers.";
    /// The API key may not do this.
    InsufficientScope = "INSUFFICIENT_SCOPE", 403, "Use a key whose scope allows it; the message names the scope.";
    /// The service that knows the tenants can't be asked.
    TenantProviderUnavailable = "TENANT_PROVIDER_UNAVAILABLE", 503, "Try again; the server's log says what is wrong with it.";
    /// The caller sends more requests than it may.
    RateLimited = "GENERAL::RATE_LIMITED", 429, "Try again after Retry-After, and send fewer.";
    /// No route has this path.
    RouteNotFound = "ROUTE_NOT_FOUND", 404, "Compare the path with /openapi.json.";
    /// The path exists, but not for this verb.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, "Use one of the verbs in the Allow header.";
    /// The body is larger than this route takes.
    BodyTooLarge = "BODY_TOO_LARGE", 413, "Send less; large files go through the files API of the sandbox.";
    /// The body is no JSON, or has a member of the wrong type or value.
    InvalidRequest = "SANDBOX::INVALID_PARAMETER", 400, "Correct the member the message names.";
    /// A metadata key or value is not allowed as a label.
    InvalidMetadataLabel = "SANDBOX::INVALID_METADATA_LABEL", 400, "Use Kubernetes label syntax, and no key below opensandbox.io/.";
    /// The metadata filter of a list can't be read.
    InvalidMetadataFormat = "INVALID_METADATA_FORMAT", 400, "Write it as URL-encoded k=v pairs joined by &.";
    /// This platform does not do that (yet).
    NotSupported = "SANDBOX::API_NOT_SUPPORTED", 501, "Leave it out, or use a platform that has it.";
    /// Something failed inside the server.
    Internal = "GENERAL::UNKNOWN_ERROR", 500, "Try again; give the request id when you report it.";
    /// The server is at a limit of its own.
    Overloaded = "GENERAL::OVERLOADED", 503, "Try again after Retry-After.";
    /// The request took longer than it may.
    RequestTimeout = "GENERAL::REQUEST_TIMEOUT", 504, "Try again; if it repeats, look at the server's load.";
    /// The same idempotency key came with another body.
    IdempotencyConflict = "SANDBOX::IDEMPOTENCY_CONFLICT", 409, "Use a new key for a new request.";

    // Sandboxes.
    /// No sandbox has this id.
    SandboxNotFound = "KUBERNETES::SANDBOX_NOT_FOUND", 404, "List the sandboxes; an expired or killed one is gone.";
    /// The sandbox is in a state that does not allow this.
    InvalidState = "KUBERNETES::INVALID_STATE", 409, "Look at the sandbox's state and reason first.";
    /// The sandbox has no address yet.
    PodIpNotAvailable = "KUBERNETES::POD_IP_NOT_AVAILABLE", 404, "Ask again when the sandbox is Running.";
    /// The sandbox was not ready in time.
    PodReadyTimeout = "KUBERNETES::POD_READY_TIMEOUT", 504, "Look at the message for what it was waiting for.";
    /// The sandbox failed while it was made.
    PodFailed = "KUBERNETES::POD_FAILED", 500, "The message carries the reason: correct image, entrypoint or limits.";
    /// A quota of the cluster is used up.
    QuotaExceeded = "KUBERNETES::QUOTA_EXCEEDED", 403, "Free something, or have the quota raised.";
    /// The cluster does not admit the sandbox's pod.
    PodForbidden = "KUBERNETES::POD_FORBIDDEN", 403, "Have the namespace's Pod Security level or admission policy changed, or ask for less.";
    /// The Kubernetes API refused or failed.
    KubernetesApiError = "KUBERNETES::API_ERROR", 500, "The message carries Kubernetes' own words.";
    /// A renewal lies in the past, or the sandbox has no expiry.
    InvalidExpiration = "DOCKER::INVALID_EXPIRATION", 400, "Give a time in the future.";
    /// The sandbox was made without expiry, so there is nothing to renew.
    NoExpiration = "DOCKER::NO_EXPIRATION", 409, "Create it with a timeout to renew it.";
    /// The port is not one.
    InvalidPort = "DOCKER::INVALID_PORT", 400, "Give a port between 1 and 65535.";
    /// The entrypoint is empty or no program.
    InvalidEntrypoint = "DOCKER::INVALID_ENTRYPOINT", 400, "Give program and arguments, none of them with a NUL.";

    /// There is no diagnosis of this scope.
    DiagnosticsScopeUnsupported = "DIAGNOSTICS_SCOPE_UNSUPPORTED", 400, "Use one of the scopes the message names.";

    // Pools.
    /// No pool has this name.
    PoolNotFound = "KUBERNETES::POOL_NOT_FOUND", 404, "Apply the Pool first, or correct extensions.poolRef.";
    /// A pool of this name exists.
    PoolAlreadyExists = "KUBERNETES::POOL_ALREADY_EXISTS", 409, "Choose another name, or update the pool.";
    /// The pool had no free pod in time and can't grow.
    PoolCapacityExhausted = "KUBERNETES::POOL_CAPACITY_EXHAUSTED", 429, "Try again after Retry-After, or raise poolMax.";
    /// The Kubernetes API refused a pool operation.
    PoolApiError = "KUBERNETES::POOL_API_ERROR", 500, "The message carries Kubernetes' own words.";

    // Proxy.
    /// The sandbox's port refused the connection, or it broke.
    BackendConnectionFailed = "BACKEND_CONNECTION_FAILED", 502, "Check that something listens on that port in the sandbox.";
    /// The sandbox's port did not answer in time.
    BackendTimeout = "BACKEND_TIMEOUT", 504, "Check the program behind that port.";
    /// The sandbox's answer could not be read.
    BackendResponseFailed = "BACKEND_RESPONSE_FAILED", 502, "Check the program behind that port.";
    /// The sandbox that held this address is no longer its owner.
    SandboxGone = "SANDBOX::GONE", 410, "Create a new sandbox; this one has ended.";

    // Daemons in a pod.
    /// The pod has no owner yet, so nothing may be run in it.
    NotClaimed = "NOT_CLAIMED", 403, "Create a sandbox through the platform; it claims a pod.";
    /// The pod has another owner.
    ClaimedByAnother = "CLAIMED_BY_ANOTHER", 409, "Take another pod.";
    /// The claim is older than one this pod has seen.
    StaleClaim = "STALE_CLAIM", 409, "Read the sandbox again and grant anew.";
    /// The claim is for another pod.
    WrongPod = "WRONG_POD", 409, "The address was given to another pod; read the pod again.";
    /// The call is not signed by the platform, or not for this pod, call or time.
    BadSignature = "BAD_SIGNATURE", 401, "Only the platform may make this call.";
    /// The access token is missing or not the owner's.
    BadAccessToken = "INVALID_ACCESS_TOKEN", 401, "Ask the lifecycle API for the endpoint again and send its headers.";

    // execd.
    /// Body or parameter can't be used.
    InvalidRequestBody = "INVALID_REQUEST_BODY", 400, "Correct what the message names.";
    /// A required parameter is missing.
    MissingQuery = "MISSING_QUERY", 400, "Add the parameter the message names.";
    /// The operation failed in the sandbox.
    RuntimeError = "RUNTIME_ERROR", 500, "The message carries the system's reason.";
    /// The upload is no multipart form of metadata and file pairs.
    InvalidFile = "INVALID_FILE", 400, "Send parts metadata and file in turn.";
    /// An upload's file part is missing.
    InvalidFileContent = "INVALID_FILE_CONTENT", 400, "Send a part file after each metadata.";
    /// An upload's metadata can't be read or names no path.
    InvalidFileMetadata = "INVALID_FILE_METADATA", 400, "Send JSON with a path.";
    /// No file or directory has this path.
    FileNotFound = "FILE_NOT_FOUND", 404, "Check the path inside the sandbox.";
    /// No execution has this id.
    CommandNotFound = "COMMAND_NOT_FOUND", 404, "Use the id of the init event; old executions are forgotten.";
    /// No context or session has this id.
    ContextNotFound = "CONTEXT_NOT_FOUND", 404, "Create it first.";
    /// The range lies outside the file, or is none.
    InvalidRange = "INVALID_RANGE", 416, "Ask for bytes within the size that Content-Range tells.";
    /// The disk, or the quota on it, is full.
    DiskFull = "DISK_FULL", 507, "Free space in the sandbox; nothing was written.";
    /// execd has not this room.
    ExecdNotSupported = "NOT_SUPPORTED", 501, "Use another way; the message names one if there is.";
    /// The session runs something already.
    SessionBusy = "SESSION_BUSY", 409, "Wait for the run to end, interrupt it, or use another session.";
    /// There are as many sessions as may be.
    TooManySessions = "TOO_MANY_SESSIONS", 429, "Delete one that is not needed.";
    /// A terminal has a client already.
    AlreadyConnected = "ALREADY_CONNECTED", 409, "Connect with takeover=1, or with viewer=1 to watch only.";
    /// The command's standard input is closed, or was never open.
    StdinClosed = "STDIN_CLOSED", 409, "Start the command with stdin_open, and send before it ends.";
    /// Too many executions run at once.
    TooManyExecutions = "TOO_MANY_EXECUTIONS", 429, "Wait for one to end, or interrupt one.";

    // task-executor.
    /// A task can't be used as it is.
    InvalidTask = "INVALID_TASK", 400, "Correct the member the message names.";
    /// No task has this name.
    TaskNotFound = "TASK_NOT_FOUND", 404, "Check the name.";
    /// A task of this name exists.
    TaskExists = "TASK_EXISTS", 409, "Delete it first, or use another name.";
    /// The executor runs as many tasks as it may.
    TooManyTasks = "TOO_MANY_TASKS", 429, "Wait until the running task has ended.";
    /// This kind of task is not run here.
    TaskKindUnsupported = "TASK_KIND_UNSUPPORTED", 501, "Use a process task.";
    /// The pod has no container to run the task in.
    NoSandboxContainer = "NO_SANDBOX_CONTAINER", 503, "Set shareProcessNamespace and start the sandbox container.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_complete() {
        let codes: HashSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.as_str()), Some(*code));
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(code.meaning().ends_with('.') && code.action().ends_with('.'), "{code:?}");
        }
    }
}
