//! Every route, once: the router and the OpenAPI document are made from this one table.

use api_types::ErrorCode;
use api_types::explain::Explanation;
use api_types::lifecycle::{
    CreatePoolRequest, CreateSandboxRequest, CreateSandboxResponse, Endpoint, ListPoolsResponse, ListSandboxesResponse,
    PoolResponse, RenewExpiration, Sandbox, UpdatePoolRequest,
};
use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, any, delete, get, patch, post, put};
use axum::{Extension, Router};
use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use crate::app::App;
use crate::front::body::BodyLimit;
use crate::sandboxes::events::MetricsEvent;
use crate::sandboxes::{self, diagnostics, refused};
use crate::{openapi, pools, proxy as passage};

/// Where a route is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// Bare and below `/v1`.
    Both,
    /// Bare only.
    Bare,
    /// Below `/v1` only.
    Versioned,
}

/// Makes the schema of a body.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A query parameter or header: name, what it is, JSON schema.
pub type Parameter = (&'static str, &'static str, fn() -> serde_json::Value);

/// One operation.
pub struct Route {
    /// Path in axum's and OpenAPI's common form; a trailing `{*path}` is any path.
    pub path: &'static str,
    /// Verbs it is documented under.
    pub verbs: &'static [&'static str],
    /// Unique name for generated clients.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Where it is mounted.
    pub mount: Mount,
    /// Whether it needs the key.
    pub keyed: bool,
    /// Query parameters.
    pub query: &'static [Parameter],
    /// Request headers.
    pub headers: &'static [Parameter],
    /// Request body.
    pub body: Option<SchemaOf>,
    /// Largest body, in bytes.
    pub body_bytes: usize,
    /// Status of success, and its body.
    pub success: (u16, Option<SchemaOf>),
    /// Another status with the content of success.
    pub also: Option<u16>,
    /// Other types of content that success may have, besides the JSON of its body.
    pub media: &'static [&'static str],
    /// Headers of success, besides those of every answer.
    pub answers: &'static [Parameter],
    /// Errors of its own; those of every route are added.
    pub errors: &'static [ErrorCode],
    /// What serves it.
    pub handler: fn() -> MethodRouter<App>,
}

impl Route {
    const fn new(
        verb: &'static [&'static str],
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: fn() -> MethodRouter<App>,
    ) -> Self {
        Self {
            path,
            verbs: verb,
            id,
            summary,
            mount: Mount::Both,
            keyed: true,
            query: &[],
            headers: &[],
            body: None,
            body_bytes: SMALL,
            success: (200, None),
            also: None,
            media: &[],
            answers: &[],
            errors: &[],
            handler,
        }
    }

    const fn mount(mut self, mount: Mount) -> Self {
        self.mount = mount;
        self
    }

    const fn open(mut self) -> Self {
        self.keyed = false;
        self.mount = Mount::Bare;
        self
    }

    const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    const fn takes(mut self, body: SchemaOf) -> Self {
        self.body = Some(body);
        self
    }

    const fn up_to(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes;
        self
    }

    const fn gives(mut self, status: u16, body: Option<SchemaOf>) -> Self {
        self.success = (status, body);
        self
    }

    const fn media(mut self, media: &'static [&'static str]) -> Self {
        self.media = media;
        self
    }

    const fn also(mut self, status: u16) -> Self {
        self.also = Some(status);
        self
    }

    const fn answers(mut self, headers: &'static [Parameter]) -> Self {
        self.answers = headers;
        self
    }

    const fn fails(mut self, errors: &'static [ErrorCode]) -> Self {
        self.errors = errors;
        self
    }
}

/// What a few members need.
const SMALL: usize = 64 << 10;
/// What an environment or a pod template needs; a Kubernetes object is not much larger.
const LARGE: usize = 1 << 20;
const PAGE: Parameter = ("page", "Page, from 1.", || json!({"type": "integer", "minimum": 1, "default": 1}));
const PAGE_SIZE: Parameter =
    ("pageSize", "Items a page.", || json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 20}));
const SCOPE_WORDS: &str = "What to look at; without it the answer is plain text.";
const LOG_SCOPE: Parameter = ("scope", SCOPE_WORDS, || json!({"type": "string", "enum": diagnostics::LOG_SCOPES}));
const EVENT_SCOPE: Parameter = ("scope", SCOPE_WORDS, || json!({"type": "string", "enum": diagnostics::EVENT_SCOPES}));
const IDEMPOTENCY: Parameter = (
    "Idempotency-Key",
    "Same key, same sandbox, over restarts and replicas.",
    || json!({"type": "string", "minLength": 1, "maxLength": 255}),
);

const LAST_EVENT: Parameter = (
    "Last-Event-ID",
    "Id of the last event that was received; the state it told is not told again.",
    || json!({"type": "string"}),
);
const LOCATION: Parameter = ("Location", "Path of the sandbox.", || json!({"type": "string"}));
const SERVER_TIMING: Parameter = (
    "Server-Timing",
    "Milliseconds from the request to each phase that was seen: accepted, granted, claimed, execd.",
    || json!({"type": "string"}),
);
const DEPRECATION: Parameter =
    ("Deprecation", "`true` on the plain text that is answered without a scope.", || json!({"type": "string"}));
const PLAIN: &[&str] = &["text/plain"];
const HTML: &[&str] = &["text/html"];
const EVENT_STREAM: &[&str] = &["text/event-stream"];
const WAIT: Parameter = (
    "wait",
    "Longest wait, in seconds, for the sandbox to be usable; after it the answer has the state Pending and the sandbox goes on coming about. Without it the answer waits as long as the server allows, and a create that fails leaves nothing.",
    || json!({"type": "integer", "minimum": 0, "maximum": 60}),
);

/// Every route of the server.
pub static ROUTES: &[Route] = &[
    Route::new(&["get"], "/health", "getHealth", "Whether the server answers.", || get(health))
        .open()
        .gives(200, Some(object)),
    Route::new(&["get"], "/healthz", "getHealthz", "Whether the process answers, as plain text.", || get(healthz))
        .open()
        .media(PLAIN),
    Route::new(
        &["get"],
        "/readyz",
        "getReadyz",
        "Whether requests can be served, as plain text; what is missing with status 503.",
        || get(readyz),
    )
    .open()
    .also(503)
    .media(PLAIN),
    Route::new(&["get"], "/version", "getVersion", "The server's version.", || get(version))
        .open()
        .gives(200, Some(object)),
    Route::new(&["get"], "/docs", "getDocs", "This document as a page.", || get(openapi::page)).open().media(HTML),
    Route::new(&["get"], "/openapi.json", "getOpenApi", "This document.", || get(openapi::handle))
        .open()
        .gives(200, Some(object)),
    Route {
        headers: &[IDEMPOTENCY],
        ..Route::new(
            &["post"],
            "/sandboxes",
            "createSandbox",
            "Creates a sandbox; answers when it can be used.",
            || post(sandboxes::create::handle),
        )
        .query(&[WAIT])
        .takes(schema::<CreateSandboxRequest>)
        .up_to(LARGE)
        .gives(202, Some(schema::<CreateSandboxResponse>))
        .answers(&[LOCATION, SERVER_TIMING])
        .fails(&[
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidMetadataLabel,
            ErrorCode::InvalidEntrypoint,
            ErrorCode::QuotaExceeded,
            ErrorCode::PodForbidden,
            ErrorCode::PoolNotFound,
            ErrorCode::IdempotencyConflict,
            ErrorCode::SandboxGone,
            ErrorCode::PoolCapacityExhausted,
            ErrorCode::PodFailed,
            ErrorCode::NotSupported,
            ErrorCode::PodReadyTimeout,
        ])
    },
    Route::new(&["get"], "/sandboxes", "listSandboxes", "Lists sandboxes, newest first.", || {
        get(sandboxes::list::handle)
    })
    .query(&[
        ("state", "State; repeat it for more than one.", || json!({"type": "array", "items": {"type": "string"}})),
        ("metadata", "URL-encoded k=v pairs joined by &; all must match.", || json!({"type": "string"})),
        PAGE,
        PAGE_SIZE,
    ])
    .gives(200, Some(schema::<ListSandboxesResponse>))
    .fails(&[ErrorCode::InvalidRequest, ErrorCode::InvalidMetadataFormat]),
    Route::new(&["get"], "/sandboxes/{id}", "getSandbox", "One sandbox.", || get(sandboxes::get::handle))
        .gives(200, Some(schema::<Sandbox>))
        .fails(&[ErrorCode::SandboxNotFound]),
    Route::new(&["delete"], "/sandboxes/{id}", "deleteSandbox", "Ends a sandbox.", || {
        delete(sandboxes::delete::handle)
    })
    .gives(204, None)
    .fails(&[ErrorCode::SandboxNotFound]),
    Route::new(&["patch"], "/sandboxes/{id}/metadata", "patchMetadata", "Merges metadata; null removes a key.", || {
        patch(sandboxes::metadata::handle)
    })
    .takes(schema::<std::collections::BTreeMap<String, Option<String>>>)
    .gives(200, Some(schema::<Sandbox>))
    .fails(&[ErrorCode::InvalidRequest, ErrorCode::InvalidMetadataLabel, ErrorCode::SandboxNotFound]),
    Route::new(&["post"], "/sandboxes/{id}/renew-expiration", "renewExpiration", "Moves the end of a sandbox.", || {
        post(sandboxes::renew::handle)
    })
    .takes(schema::<RenewExpiration>)
    .gives(200, Some(schema::<RenewExpiration>))
    .fails(&[
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidExpiration,
        ErrorCode::SandboxNotFound,
        ErrorCode::NoExpiration,
        ErrorCode::InvalidState,
    ]),
    Route::new(&["get"], "/sandboxes/{id}/endpoints/{port}", "getEndpoint", "Where a port is reached.", || {
        get(sandboxes::endpoints::handle)
    })
    .query(&[
        ("use_server_proxy", "Give the proxy's address.", || json!({"type": "boolean", "default": false})),
        (
            "expires",
            "Give an address that is signed until then, in seconds since 1970; needs a gateway.",
            || json!({"type": "integer", "minimum": 1}),
        ),
    ])
    .gives(200, Some(schema::<Endpoint>))
    .fails(&[
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidPort,
        ErrorCode::SandboxNotFound,
        ErrorCode::PodIpNotAvailable,
        ErrorCode::InvalidState,
        ErrorCode::SandboxGone,
    ]),
    Route::new(&["get"], "/sandboxes/{id}/diagnostics/logs", "getLogs", "Last lines of the sandbox container.", || {
        get(diagnostics::logs)
    })
    .query(&[
        LOG_SCOPE,
        ("tail", "Lines.", || json!({"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100})),
        (
            "since",
            "Age of the oldest line, such as 90s, 10m, 2h or 1d.",
            || json!({"type": "string", "pattern": "^0*[1-9][0-9]{0,8}[smhd]?$"}),
        ),
        ("container", "Container; the sandbox's own when absent.", || json!({"type": "string"})),
    ])
    .gives(200, Some(schema::<diagnostics::Diagnosis>))
    .media(PLAIN)
    .answers(&[DEPRECATION])
    .fails(&[
        ErrorCode::InvalidRequest,
        ErrorCode::DiagnosticsScopeUnsupported,
        ErrorCode::SandboxNotFound,
        ErrorCode::PodIpNotAvailable,
    ]),
    Route::new(&["get"], "/sandboxes/{id}/diagnostics/inspect", "inspectPod", "The pod, as plain text.", || {
        get(diagnostics::inspect)
    })
    .media(PLAIN)
    .fails(&[ErrorCode::SandboxNotFound, ErrorCode::PodIpNotAvailable]),
    Route::new(
        &["get"],
        "/sandboxes/{id}/diagnostics/summary",
        "getSummary",
        "Pod, events and last log lines, as plain text.",
        || get(diagnostics::summary),
    )
    .query(&[
        ("tail", "Log lines.", || json!({"type": "integer", "minimum": 1, "maximum": 10_000, "default": 50})),
        ("event_limit", "Events.", || json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 20})),
    ])
    .media(PLAIN)
    .fails(&[ErrorCode::InvalidRequest, ErrorCode::SandboxNotFound]),
    Route::new(
        &["get"],
        "/sandboxes/{id}/diagnostics/events",
        "getEvents",
        "Kubernetes events of sandbox and pod.",
        || get(diagnostics::events),
    )
    .query(&[
        EVENT_SCOPE,
        ("limit", "Events.", || json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 50})),
    ])
    .gives(200, Some(schema::<diagnostics::Diagnosis>))
    .media(PLAIN)
    .answers(&[DEPRECATION])
    .fails(&[ErrorCode::DiagnosticsScopeUnsupported, ErrorCode::InvalidRequest, ErrorCode::SandboxNotFound]),
    Route {
        headers: &[LAST_EVENT],
        ..Route::new(
            &["get"],
            "/sandboxes/{id}/events",
            "watchSandbox",
            "Server-sent events: `state` with the sandbox at once and after each change, `gone` at its end.",
            || get(sandboxes::watch::handle),
        )
        .media(EVENT_STREAM)
        .fails(&[ErrorCode::SandboxNotFound])
    },
    Route::new(
        &["get"],
        "/sandboxes/{id}/explain",
        "explainSandbox",
        "Where the sandbox's time went, what it waits for, and how it ended.",
        || get(sandboxes::explain::handle),
    )
    .gives(200, Some(schema::<Explanation>))
    .fails(&[ErrorCode::SandboxNotFound]),
    Route::new(PROXY_VERBS, "/sandboxes/{id}/proxy/{port}", "proxyRoot", PROXY, || any(passage::handle))
        .fails(PROXY_ERRORS),
    Route::new(PROXY_VERBS, "/sandboxes/{id}/proxy/{port}/", "proxySlash", PROXY, || any(passage::handle))
        .fails(PROXY_ERRORS),
    Route::new(PROXY_VERBS, "/sandboxes/{id}/proxy/{port}/{*path}", "proxyPath", PROXY, || any(passage::handle))
        .fails(PROXY_ERRORS),
    Route::new(&["get"], "/pools", "listPools", "Lists pools.", || get(pools::list))
        .gives(200, Some(schema::<ListPoolsResponse>)),
    Route::new(&["post"], "/pools", "createPool", "Creates a pool.", || post(pools::create))
        .takes(schema::<CreatePoolRequest>)
        .up_to(LARGE)
        .gives(201, Some(schema::<PoolResponse>))
        .fails(&[ErrorCode::InvalidRequest, ErrorCode::PoolAlreadyExists, ErrorCode::PoolApiError]),
    Route::new(&["get"], "/pools/{name}", "getPool", "One pool.", || get(pools::get))
        .gives(200, Some(schema::<PoolResponse>))
        .fails(POOL_ERRORS),
    Route::new(&["put"], "/pools/{name}", "updatePool", "Changes the sizes of a pool.", || put(pools::update))
        .takes(schema::<UpdatePoolRequest>)
        .gives(200, Some(schema::<PoolResponse>))
        .fails(&[ErrorCode::InvalidRequest, ErrorCode::PoolNotFound, ErrorCode::PoolApiError]),
    Route::new(&["delete"], "/pools/{name}", "deletePool", "Deletes a pool.", || delete(pools::delete))
        .gives(204, None)
        .fails(POOL_ERRORS),
    Route::new(&["post"], "/metrics/events", "reportEvent", "Takes a client's report of a create.", || {
        post(sandboxes::events::handle)
    })
    .mount(Mount::Versioned)
    .takes(schema::<MetricsEvent>)
    .gives(204, None)
    .fails(&[ErrorCode::InvalidRequest]),
    Route::new(&["post"], "/sandboxes/{id}/pause", "pauseSandbox", REFUSED, || post(refused::pause)).fails(UNSUPPORTED),
    Route::new(&["post"], "/sandboxes/{id}/resume", "resumeSandbox", REFUSED, || post(refused::pause))
        .fails(UNSUPPORTED),
    Route::new(&["post"], "/sandboxes/{id}/snapshots", "createSnapshot", REFUSED, || post(refused::snapshots))
        .fails(UNSUPPORTED),
    Route::new(&["get"], "/snapshots", "listSnapshots", REFUSED, || get(refused::snapshots)).fails(UNSUPPORTED),
    Route::new(&["get", "delete"], "/snapshots/{id}", "snapshot", REFUSED, || {
        get(refused::snapshots).delete(refused::snapshots)
    })
    .fails(UNSUPPORTED),
    Route::new(&["get", "put", "patch", "delete"], "/sandboxes/{id}/networkpolicy", "networkPolicy", REFUSED, || {
        get(refused::network_policy)
            .put(refused::network_policy)
            .patch(refused::network_policy)
            .delete(refused::network_policy)
    })
    .fails(UNSUPPORTED),
    Route::new(&["get", "post"], "/templates", "templates", REFUSED, || {
        get(refused::templates).post(refused::templates)
    })
    .fails(UNSUPPORTED),
    Route::new(&["get", "delete"], "/templates/{id}", "template", REFUSED, || {
        get(refused::templates).delete(refused::templates)
    })
    .fails(UNSUPPORTED),
];

const PROXY: &str = "Passes any request on to a port of the sandbox; WebSockets too.";
const PROXY_VERBS: &[&str] = &["get", "head", "options", "post", "put", "patch", "delete"];
const PROXY_ERRORS: &[ErrorCode] = &[
    ErrorCode::InvalidPort,
    ErrorCode::SandboxNotFound,
    ErrorCode::PodIpNotAvailable,
    ErrorCode::InvalidState,
    ErrorCode::SandboxGone,
    ErrorCode::BackendConnectionFailed,
    ErrorCode::BackendResponseFailed,
    ErrorCode::BackendTimeout,
];
const POOL_ERRORS: &[ErrorCode] = &[ErrorCode::PoolNotFound, ErrorCode::PoolApiError];
const REFUSED: &str = "Not on this server: always answers 501.";
const UNSUPPORTED: &[ErrorCode] = &[ErrorCode::NotSupported];

fn object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "healthy"}))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<App>) -> (StatusCode, String) {
    let (ready, report) = app.health.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}

async fn version() -> Json<serde_json::Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// The routes of the API, without the front door.
pub fn api() -> Router<App> {
    router(|route| !is_proxy(route))
}

/// The routes that lead into sandboxes, without the front door.
pub fn proxy() -> Router<App> {
    router(is_proxy)
}

fn is_proxy(route: &Route) -> bool {
    route.path.contains("/proxy/")
}

fn router(wanted: impl Fn(&Route) -> bool) -> Router<App> {
    ROUTES.iter().filter(|route| wanted(route)).fold(Router::new(), |mut router, route| {
        let handler = || (route.handler)().layer(Extension(BodyLimit(route.body_bytes)));
        if route.mount != Mount::Versioned {
            router = router.route(route.path, handler());
        }
        if route.mount != Mount::Bare {
            router = router.route(&format!("/v1{}", route.path), handler());
        }
        router
    })
}
