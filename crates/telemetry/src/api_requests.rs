//! Counts what a client asks of the Kubernetes API: a tower layer over its HTTP service.
//!
//! Labels have few values: verbs are those of Kubernetes, resources those that the program uses, codes those of HTTP.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Method, Request, Response, Uri};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

use crate::buckets::REQUEST_SECONDS;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    resource: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

type Seconds = Family<VerbLabels, Histogram, fn() -> Histogram>;

/// Requests to the Kubernetes API, counted by verb, resource and code, and timed by verb until the head of the answer.
#[derive(Debug, Clone)]
pub struct ApiRequests {
    requests: Family<Labels, Counter>,
    seconds: Seconds,
}

impl ApiRequests {
    /// Registers `api_requests_total` and `api_request_seconds` under the registry's prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let new: fn() -> Histogram = || Histogram::new(REQUEST_SECONDS);
        let metrics = Self { requests: Family::default(), seconds: Family::new_with_constructor(new) };
        registry.register("api_requests", "Requests to the Kubernetes API", metrics.requests.clone());
        registry.register(
            "api_request_seconds",
            "Seconds until the Kubernetes API answered; of a watch, until it began",
            metrics.seconds.clone(),
        );
        metrics
    }
}

impl<S> Layer<S> for ApiRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.clone() }
    }
}

/// The service with its requests counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    metrics: ApiRequests,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = describe(request.method(), request.uri());
        let metrics = self.metrics.clone();
        let begun = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(response) => response.status().as_u16().to_string(),
                Err(_) => "none".to_owned(),
            };
            metrics.seconds.get_or_create(&VerbLabels { verb }).observe(begun.elapsed().as_secs_f64());
            metrics.requests.get_or_create(&Labels { verb, resource, code }).inc();
            answer
        })
    }
}

/// Kubernetes' verb, and the resource with its subresource.
fn describe(method: &Method, uri: &Uri) -> (&'static str, String) {
    let mut segments = uri.path().split('/').filter(|s| !s.is_empty());
    match segments.next() {
        Some("api") => {
            segments.next();
        }
        Some("apis") => {
            segments.next();
            segments.next();
        }
        _ => return (plain_verb(method), "other".to_owned()),
    }
    let mut rest: Vec<&str> = segments.collect();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 {
        rest.drain(..2);
    }
    let named = rest.len() > 1;
    let resource = match rest.as_slice() {
        [] => "other".to_owned(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, sub, ..] => format!("{resource}/{sub}"),
    };
    let query = uri.query().unwrap_or_default();
    let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"));
    let verb = match (method, named) {
        (&Method::GET, _) if watches => "watch",
        (&Method::GET, false) => "list",
        (&Method::DELETE, false) => "deletecollection",
        _ => plain_verb(method),
    };
    (verb, resource)
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_kubernetes_names_them() {
        for (method, uri, verb, resource) in [
            (Method::GET, "/api/v1/pods?limit=500", "list", "pods"),
            (Method::GET, "/api/v1/namespaces/d/pods?watch=true&resourceVersion=1", "watch", "pods"),
            (Method::GET, "/api/v1/namespaces/d/pods/p", "get", "pods"),
            (Method::GET, "/api/v1/namespaces/d", "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces", "list", "namespaces"),
            (Method::GET, "/api/v1/namespaces/d/pods/p/log", "get", "pods/log"),
            (
                Method::PUT,
                "/apis/sandbox.opensandbox.io/v1alpha1/namespaces/d/pools/p/status",
                "update",
                "pools/status",
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "create",
                "selfsubjectaccessreviews",
            ),
            (Method::DELETE, "/api/v1/namespaces/d/pods", "deletecollection", "pods"),
            (Method::GET, "/version", "get", "other"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(describe(&method, &uri), (verb, resource.to_owned()), "{uri}");
        }
    }
}
