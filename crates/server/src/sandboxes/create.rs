//! `POST /sandboxes`: one write, and a wait on the watch until execd has answered the controller.
//!
//! The write, the wait and the undoing are one task of their own, so that a caller who hangs up in
//! the middle can't leave half of it behind: the handler only listens, and its end tells the task.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, Pool};
use api_types::ids::SandboxId;
use api_types::lifecycle::{CreateSandboxRequest, CreateSandboxResponse, Platform};
use api_types::names::EXECD_PORT;
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use kube::api::PostParams;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::diagnosis::{Diagnosis, diagnose};
use super::find::patch;
use super::idempotency::{self, Key};
use super::object::{self, ANNOTATION_REQUEST_HASH};
use super::validate::{self, Create, Source};
use super::wait::{Deadlines, Milestones, Witness, until_ready};
use super::{delete, endpoints, facts, side, view};
use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::front::body::Json;
use crate::front::query::Query;
use crate::front::via::Via;
use crate::metrics::Outcome;
use crate::pools;
use crate::tenants::quota::{Amount, Reservation};

/// Longest `wait`, in seconds.
const MAX_WAIT: u32 = 60;
/// How long a create that has to be counted waits for the first view of what is there.
const FIRST_VIEW: Duration = Duration::from_secs(5);

/// A create that was carried out.
struct Done {
    object: Arc<BatchSandbox>,
    milestones: Milestones,
}

/// Creates a sandbox and answers when it can be used.
pub async fn handle(
    app: App,
    via: Via,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Json { value, bytes }: Json<CreateSandboxRequest>,
) -> Result<Response, ApiError> {
    let start = Instant::now();
    let tenant = app.tenant().map(|tenant| tenant.name.as_str());
    let create = Create { tenant: tenant.map(str::to_owned), ..validate::check(&value, &app.config)? };
    let key = idempotency::key(&headers, &bytes, tenant)?;
    let query = Query::parse(query.as_deref())?;
    let patience = query.get("wait").map(|_| query.number("wait", 0..=MAX_WAIT, 0)).transpose()?;
    let patience = patience.map(|seconds| Duration::from_secs(seconds.into()));
    if app.tenant().is_some_and(|tenant| !tenant.quota.is_none()) && !app.space().sandboxes.synced(FIRST_VIEW).await {
        let message = "the server has not counted the tenant's sandboxes yet";
        return Err(ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1)));
    }
    if let Source::Pool(pool) = &create.source {
        check_pool(&app, pool, create.platform.as_ref()).await?;
    }
    let permit = app.creates.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{} creates are in progress already", app.config.limits.concurrent_creates);
        ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1))
    })?;
    let warnings = create.warnings.clone();
    let source = match &create.source {
        Source::Pool(_) => "pool",
        Source::Image(_) => "image",
    };
    // Dropped with this future, when the caller hangs up.
    let caller = CancellationToken::new();
    let _hang_up = caller.clone().drop_guard();
    let task = app
        .work
        .spawn(carry_out(app.clone(), create, Terms { key, patience }, start, caller, permit).in_current_span());
    let done = task.await.map_err(|_| ApiError::new(ErrorCode::Internal, "the create failed inside the server"))?;
    let outcome = done.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    app.metrics.creates.get_or_create(&Outcome { outcome, source }).inc();
    let done = done?;
    measure(&app, source, &done.milestones);
    Ok(answer(&app, &done, &via, warnings))
}

fn measure(app: &App, source: &'static str, seen: &Milestones) {
    let phases = [
        ("accepted", Some(seen.accepted)),
        ("granted", seen.granted),
        ("claimed", seen.claimed),
        ("execd", seen.execd),
    ];
    for (phase, at) in phases {
        if let Some(at) = at {
            app.metrics.phase(phase, source, at);
        }
    }
}

/// Refuses a pool that is not there, or that can never give a pod.
async fn check_pool(app: &App, name: &str, platform: Option<&Platform>) -> Result<(), ApiError> {
    if name == "*" {
        return Ok(());
    }
    let pool = pools::find(app, name).await?;
    if pool.spec.capacity_spec.pool_max == 0 {
        let message = format!("pool {name} has a poolMax of 0 and can never give a pod");
        let error = ApiError::new(ErrorCode::PoolCapacityExhausted, message);
        return Err(error.retry_after(app.config.limits.acquisition_timeout));
    }
    match platform {
        Some(wanted) if !runs_on(&pool, wanted) => Err(ApiError::field(
            "platform",
            format_args!("the pods of pool {name} are not {}/{}; choose another pool", wanted.os, wanted.arch),
        )),
        _ => Ok(()),
    }
}

/// Whether a pool's pods run on a platform: what its node selector says, or else this server's own.
fn runs_on(pool: &Pool, wanted: &Platform) -> bool {
    let selector = pool.spec.template.as_ref().map(|t| &t.0["spec"]["nodeSelector"]);
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let chosen = |key: &str| selector.and_then(|s| s.get(key)).and_then(|v| v.as_str());
    wanted.os == chosen("kubernetes.io/os").unwrap_or("linux")
        && wanted.arch == chosen("kubernetes.io/arch").unwrap_or(own)
}

/// How a create is to be carried out.
struct Terms {
    key: Option<Key>,
    /// After this the caller takes the sandbox as it is.
    patience: Option<Duration>,
}

/// Tells what Kubernetes knows.
struct Kubernetes<'a> {
    app: &'a App,
    pool: Option<&'a str>,
}

impl Witness for Kubernetes<'_> {
    fn pool(&self) -> Option<Arc<Pool>> {
        self.app.space().pools.get(self.pool?)
    }

    async fn diagnose(&self, object: &BatchSandbox) -> Option<Diagnosis> {
        let facts = facts::gather(self.app, object).await;
        facts
            .inspect_err(|error| tracing::debug!(%error, "a slow create could not be looked into"))
            .ok()
            .and_then(|facts| diagnose(object, &facts))
    }
}

async fn carry_out(
    app: App,
    create: Create,
    Terms { key, patience }: Terms,
    start: Instant,
    caller: CancellationToken,
    _permit: OwnedSemaphorePermit,
) -> Result<Done, ApiError> {
    let id = key.as_ref().map_or_else(|| uuid::Uuid::new_v4().to_string(), |k| k.id.clone());
    let hash = key.as_ref().map(|k| k.request_hash.as_str());
    let wanted = object::build(&id, &create, Timestamp::now(), &app.config, hash);
    let mut waiter = app.space().sandboxes.wait_for(&id);
    let reservation = reserve(&app, &wanted)?;
    let mut written = write(&app, &wanted, hash).await?;
    // From here on it is in memory.
    drop(reservation);
    if written.spec.replicas == 0 && side::needed(&create) {
        match prepare(&app, &create, &id, &written).await {
            Ok(prepared) => written = prepared,
            Err(error) => {
                let undoing = app.clone();
                app.work.spawn(async move { delete::undo(&undoing, &written).await }.in_current_span());
                return Err(error);
            }
        }
    }
    let mut milestones = Milestones { accepted: start.elapsed(), ..Milestones::default() };
    let limits = &app.config.limits;
    let pool = match &create.source {
        Source::Pool(name) => Some(name.as_str()),
        Source::Image(_) => None,
    };
    let deadlines =
        Deadlines { start, create: limits.create_timeout, acquisition: pool.map(|_| limits.acquisition_timeout) };
    let witness = Kubernetes { app: &app, pool };
    let ready = until_ready(&mut waiter, deadlines, &witness, &mut milestones);
    let patience = async {
        match patience {
            Some(patience) => tokio::time::sleep_until(start + patience).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        result = ready => result,
        // It goes on coming about; the caller has its id.
        () = patience => Ok(app.space().sandboxes.get(&id).unwrap_or_else(|| Arc::new(written.clone()))),
        // Who gave a key comes back with it, and shall find the sandbox.
        () = caller.cancelled(), if key.is_none() => {
            Err(ApiError::new(ErrorCode::RequestTimeout, "the caller hung up"))
        }
    };
    match result {
        Ok(object) => {
            // Between the last event and the answer the caller may have gone as well.
            if key.is_none() && caller.is_cancelled() {
                delete::undo(&app, &object).await;
            }
            Ok(Done { object, milestones })
        }
        Err(error) => {
            // The message may hold what the sandbox's program wrote; it is for the caller alone.
            tracing::info!(sandbox = %id, code = error.code.as_str(), "create failed");
            let undoing = app.clone();
            // The caller need not wait for the cleaning up.
            app.work.spawn(async move { delete::undo(&undoing, &written).await }.in_current_span());
            Err(error)
        }
    }
}

/// Lets the sandbox in within the tenant's quota. One that is there already was let in.
fn reserve(app: &App, wanted: &BatchSandbox) -> Result<Option<Reservation>, ApiError> {
    let space = app.space();
    let there = wanted.metadata.name.as_deref().is_some_and(|id| space.sandboxes.get(id).is_some());
    let Some(tenant) = app.tenant().filter(|tenant| !tenant.quota.is_none() && !there) else {
        return Ok(None);
    };
    let amount = |object: &BatchSandbox| {
        let pool = object.spec.pool_ref.as_deref().and_then(|name| space.pools.get(name));
        Amount::of(object, pool.as_deref())
    };
    let used = || {
        let all = space.sandboxes.all();
        all.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).map(|object| amount(object)).sum()
    };
    space.reserved.admit(tenant, used, amount(wanted)).map(Some)
}

/// Makes what the sandbox needs beside its object, and gives it its replica then.
async fn prepare(app: &App, create: &Create, id: &str, written: &BatchSandbox) -> Result<BatchSandbox, ApiError> {
    side::make(app, create, written).await?;
    let change = serde_json::json!({"spec": {"replicas": 1}});
    patch(app, id, written, change, "starting the sandbox").await
}

/// The one write. With an idempotency key the object may be there: then it is joined.
async fn write(app: &App, wanted: &BatchSandbox, hash: Option<&str>) -> Result<BatchSandbox, ApiError> {
    let id = wanted.metadata.name.as_deref().unwrap_or_default();
    let doing = "creating the sandbox";
    let params = PostParams::default();
    let api = app.sandbox_api();
    let deadline = app.config.limits.kube_timeout;
    let refusal = match within(deadline, doing, api.create(&params, wanted)).await {
        Ok(Ok(object)) => {
            app.space().sandboxes.observe(object.clone());
            return Ok(object);
        }
        Ok(Err(error)) => error,
        Err(late) => {
            // It may have been written all the same.
            let (undoing, wanted) = (app.clone(), wanted.clone());
            app.work.spawn(async move { delete::undo(&undoing, &wanted).await }.in_current_span());
            return Err(late);
        }
    };
    let kube::Error::Api(status) = &refusal else {
        return Err(from_kube(&refusal, doing));
    };
    let (409, Some(hash)) = (status.code, hash) else {
        return Err(from_kube(&refusal, doing));
    };
    let there = within(deadline, doing, api.get(id)).await?.map_err(|error| from_kube(&error, doing))?;
    let its_hash = there.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_REQUEST_HASH));
    if its_hash.map(String::as_str) != Some(hash) {
        let message = "Idempotency-Key: the key was used with another body";
        return Err(ApiError::new(ErrorCode::IdempotencyConflict, message));
    }
    if there.metadata.deletion_timestamp.is_some() {
        let message = "Idempotency-Key: the sandbox of this key is being deleted";
        return Err(ApiError::new(ErrorCode::InvalidState, message).retry_after(Duration::from_secs(1)));
    }
    app.space().sandboxes.observe(there.clone());
    Ok(there)
}

fn answer(app: &App, done: &Done, via: &Via, warnings: Vec<String>) -> Response {
    let object = &done.object;
    let sandbox = view::sandbox(object);
    let body = CreateSandboxResponse {
        id: SandboxId::new(sandbox.id.as_str()),
        status: sandbox.status,
        created_at: sandbox.created_at,
        entrypoint: sandbox.entrypoint,
        metadata: sandbox.metadata,
        extensions: sandbox.extensions,
        platform: sandbox.platform,
        expires_at: sandbox.expires_at,
        execd: endpoints::endpoint(app, object, EXECD_PORT, false, via).ok(),
        warnings: (!warnings.is_empty()).then_some(warnings),
    };
    let mut response = (StatusCode::ACCEPTED, axum::Json(body)).into_response();
    if let Ok(timing) = HeaderValue::from_str(&server_timing(&done.milestones)) {
        response.headers_mut().insert("server-timing", timing);
    }
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/sandboxes/{}", sandbox.id)) {
        response.headers_mut().insert(http::header::LOCATION, location);
    }
    response
}

/// Milestones in milliseconds since the request came, as they were seen on the watch.
fn server_timing(seen: &Milestones) -> String {
    let parts = [
        ("accepted", Some(seen.accepted)),
        ("granted", seen.granted),
        ("claimed", seen.claimed),
        ("execd", seen.execd),
    ];
    let parts = parts.into_iter().filter_map(|(name, at)| Some((name, at?.as_secs_f64() * 1e3)));
    parts.map(|(name, ms)| format!("{name};dur={ms:.2}")).collect::<Vec<_>>().join(", ")
}
