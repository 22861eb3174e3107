//! The API as a `tower::Service`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::body::{self, ApiBody, BoxError};
use super::query::Query;
use super::render::Rendering;
use super::route::{Route, route};
use crate::core::Core;
use crate::env::WriteInfo;
use crate::error::{ApiError, Result};
use crate::kinds::Builtin;
use crate::object;
use crate::selector::Selector;
use crate::verbs::delete::Deleted;
use crate::verbs::patch::PatchKind;
use crate::verbs::watch::{Watcher, expired_line};
use crate::verbs::{
    FieldValidation, Outcome, Target, create, decode, delete, duplicates, get, list, patch, scale, update,
};

/// The API: give it a request, get an answer. Cheap to clone.
#[derive(Clone)]
pub struct ApiService {
    core: Arc<Core>,
}

impl ApiService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = self.core.clone();
        Box::pin(async move {
            let answer = answer(&core, request).await.unwrap_or_else(|error| body::error(&error));
            crate::gc::kick(&core);
            Ok(answer)
        })
    }
}

/// A request whose body has been read.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) body: Bytes,
}

impl Call {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE)
    }

    fn user_agent(&self) -> &str {
        self.header(header::USER_AGENT)
    }

    fn rendering(&self) -> Rendering {
        Rendering::of(self.header(header::ACCEPT), self.query.get("includeObject"))
    }

    fn value(&self) -> Result<Value> {
        decode::parse(&self.body, self.content_type())
    }
}

async fn answer<B>(core: &Arc<Core>, request: Request<B>) -> Result<Response<ApiBody>>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let route = route(core, request.uri().path())?;
    let (mut parts, payload) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let Route::Target(target) = &route
        && let Some(sub @ ("exec" | "attach" | "portforward")) = target.subresource.as_deref()
    {
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        return super::streams::open(core, target, sub, &parts, &query, upgrade).await;
    }
    let body = body::collect(payload).await?;
    let call = Call { method: parts.method, headers: parts.headers, query, body };
    match route {
        Route::Target(target) => {
            let deprecation = target.resource.deprecation.clone();
            let mut answer = on_target(core, &target, &call).await;
            if let (Ok(response), Some(text)) = (&mut answer, deprecation) {
                warn(response, &text);
            }
            answer
        }
        Route::Watch(target) => watch(core, &target, &call),
        Route::Review(kind) => crate::reviews::answer(&kind, &call.method, || call.value()),
        _ if call.method != Method::GET && call.method != Method::HEAD => Err(ApiError::method_not_allowed()),
        other => crate::discovery::answer(core, &other, call.header(header::ACCEPT)),
    }
}

async fn on_target(core: &Arc<Core>, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let collection = target.name.is_empty();
    if target.subresource.as_deref() != Some("log") {
        Rendering::check(call.header(header::ACCEPT))?;
    }
    match (&call.method, target.subresource.as_deref()) {
        (&Method::GET, Some("scale")) => Ok(body::value(StatusCode::OK, &scale::get(core, target)?)),
        (&Method::GET, Some("log")) => super::streams::log(core, target, &call.query).await,
        (&Method::GET, None) if collection && call.query.flag("watch") => watch(core, target, call),
        (&Method::GET, None) if collection => many(core, target, call),
        (&Method::GET, None | Some("status")) => {
            let stored = get::get(core, target)?;
            Ok(body::json(StatusCode::OK, call.rendering().one(&target.resource, &stored, core)))
        }
        (&Method::GET | &Method::HEAD, _) => Err(ApiError::method_not_allowed()),
        _ => write(core, target, call).await,
    }
}

fn selector(target: &Target, query: &Query) -> Result<Selector> {
    Selector::parse(query.get("labelSelector"), query.get("fieldSelector"), &target.resource)
}

fn many(core: &Core, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let listed = list::list(core, target, &selector(target, &call.query)?, &call.query.list()?)?;
    Ok(body::json(StatusCode::OK, call.rendering().many(&target.resource, &listed, core)))
}

fn watch(core: &Arc<Core>, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let options = call.query.watch()?;
    let (mut target, mut selector) = (target.clone(), selector(target, &call.query)?);
    if !target.name.is_empty() {
        // The old path names the object where the query does today.
        selector = selector.named(&target.name);
        target.name.clear();
    }
    let body = match Watcher::begin(core, target, selector, call.rendering(), &options) {
        Ok(watcher) => body::streaming(watcher.into_stream()),
        // Kubernetes tells of a version that is too old within the watch.
        Err(error) if error.code == 410 => body::whole(expired_line(&error)),
        Err(error) => return Err(error),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Whatever changes something: the hook is asked before and after.
async fn write(core: &Arc<Core>, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let verb = match call.method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return Err(ApiError::method_not_allowed()),
    };
    let info = WriteInfo {
        verb,
        group: target.resource.group.clone(),
        plural: target.resource.plural.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
    };
    core.hook.before_write(&info).await?;
    let response = change(core, target, call)?;
    if crate::crd::is_definition(target) {
        // What a definition brings is served before its writer hears of it.
        crate::gc::drain(core);
    }
    core.hook.after_write(&info).await?;
    Ok(response)
}

fn change(core: &Arc<Core>, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let kind = match call.method {
        Method::POST => "CreateOptions",
        Method::PUT => "UpdateOptions",
        _ => "PatchOptions",
    };
    let options = || {
        let mut options = call.query.write(call.user_agent(), kind)?;
        if matches!(call.method, Method::POST | Method::PUT) && options.field_validation != FieldValidation::Ignore {
            options.duplicates = duplicates::duplicate_fields(&call.body);
        }
        Ok::<_, ApiError>(options)
    };
    let collection = target.name.is_empty();
    if collection && target.resource.is_custom() && matches!(call.method, Method::PUT | Method::PATCH) {
        return Err(ApiError::bad_request("name must be provided"));
    }
    let outcome = match (&call.method, target.subresource.as_deref()) {
        (&Method::POST, None) if collection => {
            if target.resource.namespaced && target.namespace.is_empty() {
                let custom = target.resource.is_custom();
                return Err(if custom { ApiError::page_not_found() } else { ApiError::method_not_allowed() });
            }
            create::create(core, target, call.value()?, &options()?)?
        }
        (&Method::POST, Some("binding")) => return bind(core, target, call),
        (&Method::POST, Some("eviction")) => return evict(core, target, call),
        (&Method::PUT, None | Some("status" | "finalize")) if !collection => {
            update::update(core, target, call.value()?, &options()?)?
        }
        (&Method::PATCH, None | Some("status")) if !collection => {
            let kind = PatchKind::of(call.content_type(), target)?;
            if kind != PatchKind::Apply && call.query.flag("force") {
                let cause = crate::error::Cause::forbidden("force", "may not be specified for non-apply patch");
                return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
            }
            if kind == PatchKind::Apply && call.query.get("fieldManager").is_empty() {
                let cause = crate::error::Cause::required("fieldManager", "is required for apply patch");
                return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
            }
            patch::patch(core, target, kind, &call.body, &options()?)?
        }
        (&Method::PUT, Some("scale")) => {
            let scaled = scale::put(core, target, &call.value()?, &options()?)?;
            return Ok(body::value(StatusCode::OK, &scaled));
        }
        (&Method::PATCH, Some("scale")) => {
            let kind = PatchKind::of(call.content_type(), target)?;
            let scaled = scale::patch(core, target, kind, &call.body, &options()?)?;
            return Ok(body::value(StatusCode::OK, &scaled));
        }
        (&Method::DELETE, None) => return remove(core, target, call),
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(written(core, target, call, &outcome))
}

fn written(core: &Core, target: &Target, call: &Call, outcome: &Outcome) -> Response<ApiBody> {
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = body::json(code, call.rendering().one(&target.resource, &outcome.object, core));
    for warning in &outcome.warnings {
        warn(&mut response, warning);
    }
    response
}

fn warn(response: &mut Response<ApiBody>, warning: &str) {
    let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{text}\"")) {
        response.headers_mut().append(header::WARNING, value);
    }
}

fn remove(core: &Core, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let mut options = call.query.delete()?;
    if !call.body.is_empty() {
        let value = call.value()?;
        if !value.is_object() {
            return Err(ApiError::bad_request("the options of a delete must be an object"));
        }
        options = options.read(&value)?;
    }
    if target.name.is_empty() {
        // Nobody deletes all namespaces, or the objects of all, at once.
        if target.resource.namespaced && target.namespace.is_empty() || target.resource.is(Builtin::Namespace) {
            return Err(ApiError::method_not_allowed());
        }
        let (items, version) = delete::delete_collection(core, target, &selector(target, &call.query)?, &options)?;
        let listed = list::Listed { items, version, next: String::new(), remaining: None };
        return Ok(body::json(StatusCode::OK, call.rendering().many(&target.resource, &listed, core)));
    }
    let Deleted { object, gone } = delete::delete(core, target, &options)?;
    let builtin = target.resource.builtin;
    let shows_object = !gone || matches!(builtin, Some(Builtin::Pod | Builtin::Service | Builtin::ServiceAccount));
    if shows_object {
        return Ok(body::json(StatusCode::OK, call.rendering().one(&target.resource, &object, core)));
    }
    let resource = &target.resource;
    let mut details = json!({"name": target.name});
    if !resource.group.is_empty() {
        details["group"] = resource.group.clone().into();
    }
    details["kind"] = resource.plural.clone().into();
    details["uid"] = object::uid(&object.value).into();
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(body::value(StatusCode::OK, &status))
}

fn success() -> Response<ApiBody> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    body::value(StatusCode::CREATED, &status)
}

/// The name in a body of a subresource must be that of the path.
fn same_name(target: &Target, body: &Value, kind: &str) -> Result<()> {
    let name = object::name(body);
    if name.is_empty() || name == target.name {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("name in URL does not match name in {kind} object")))
}

fn bind(core: &Core, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let binding = call.value()?;
    same_name(target, &binding, "Binding")?;
    let node = object::str_at(&binding, "target.name").to_owned();
    let kind = object::str_at(&binding, "target.kind");
    let mut causes = Vec::new();
    if !kind.is_empty() && kind != "Node" {
        causes.push(crate::error::Cause::unsupported("target.kind", &kind.into(), &["Node".into(), "<empty>".into()]));
    }
    if node.is_empty() {
        causes.push(crate::error::Cause::required("target.name", ""));
    }
    if !causes.is_empty() {
        return Err(ApiError::invalid("", "Binding", &target.name, causes));
    }
    let now = core.now();
    let options = call.query.write(call.user_agent(), "CreateOptions")?;
    update::modify(core, target, &options, &crate::patch::managed::Source::Update, |old| {
        let bound = object::str_at(old, "spec.nodeName");
        if !bound.is_empty() {
            let why = format!("pod {} is already assigned to node {bound:?}", target.name);
            return Err(ApiError::conflict("", "pods/binding", &target.name, &why));
        }
        Ok(crate::pods::bind(old, &binding, &node, &now))
    })?;
    Ok(success())
}

fn evict(core: &Core, target: &Target, call: &Call) -> Result<Response<ApiBody>> {
    let eviction = call.value()?;
    same_name(target, &eviction, "Eviction")?;
    let mut options = call.query.delete()?;
    if let Some(inner) = eviction.get("deleteOptions") {
        options = options.read(inner)?;
    }
    let pod = Target::new(target.resource.clone(), &target.namespace, &target.name);
    delete::delete(core, &pod, &options)?;
    Ok(success())
}
