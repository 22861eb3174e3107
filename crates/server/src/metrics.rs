//! What the server counts and measures; names begin with `opensandbox_server_`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use telemetry::Registry;
use telemetry::buckets::{REQUEST_SECONDS, WAIT_SECONDS};

/// Labels of a request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// Route as the router has it; never a path with ids in it.
    pub route: String,
    /// Verb.
    pub method: &'static str,
    /// Status.
    pub status: u16,
}

/// Labels of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Routed {
    /// Route as the router has it.
    pub route: String,
    /// Verb.
    pub method: &'static str,
}

/// Labels of a phase of a create.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Phase {
    /// `accepted`, `granted`, `claimed` or `execd`.
    pub phase: &'static str,
    /// `pool` or `image`.
    pub source: &'static str,
}

/// Labels of a create that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok`, or the code of the error.
    pub outcome: &'static str,
    /// `pool` or `image`.
    pub source: &'static str,
}

/// One label of few values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// Direction of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Direction {
    /// `to_sandbox` or `from_sandbox`.
    pub direction: &'static str,
}

/// Kind of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// `BatchSandbox` or `Pool`.
    pub kind: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics. Clones share the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests that were answered.
    pub requests: Family<Answered, Counter>,
    /// From a request to the head of its answer.
    pub seconds: Histograms<Routed>,
    /// Requests in progress.
    pub in_flight: Gauge,
    /// From a create's request to each of its phases.
    pub create_seconds: Histograms<Phase>,
    /// Creates that have ended.
    pub creates: Family<Outcome, Counter>,
    /// Answers that are being streamed out of sandboxes.
    pub streams: Gauge,
    /// WebSockets to sandboxes.
    pub tunnels: Gauge,
    /// Event streams of this server's own.
    pub subscriptions: Gauge,
    /// Bytes that the proxy has passed on.
    pub to_sandboxes: Counter,
    /// Bytes that the proxy has passed back.
    pub from_sandboxes: Counter,
    /// Requests that were refused for their key.
    pub auth_failures: Family<Reason, Counter>,
    /// Watches that broke and were begun anew.
    pub watch_errors: Family<Kind, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// TLS handshakes that came to nothing.
    pub tls_failures: Counter,
    bytes: Family<Direction, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let bytes = Family::<Direction, Counter>::default();
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(request_histogram),
            in_flight: Gauge::default(),
            create_seconds: Family::new_with_constructor(wait_histogram),
            creates: Family::default(),
            streams: Gauge::default(),
            tunnels: Gauge::default(),
            subscriptions: Gauge::default(),
            to_sandboxes: bytes.get_or_create_owned(&Direction { direction: "to_sandbox" }),
            from_sandboxes: bytes.get_or_create_owned(&Direction { direction: "from_sandbox" }),
            auth_failures: Family::default(),
            watch_errors: Family::default(),
            connections: Gauge::default(),
            tls_failures: Counter::default(),
            bytes,
        }
    }
}

fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_SECONDS)
}

fn wait_histogram() -> Histogram {
    Histogram::new(WAIT_SECONDS)
}

impl Metrics {
    /// Shows the metrics in a registry, whose prefix is `opensandbox`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("server");
        r.register("requests", "Requests that were answered", self.requests.clone());
        r.register("request_seconds", "Seconds from a request to the head of its answer", self.seconds.clone());
        r.register("requests_in_flight", "Requests in progress", self.in_flight.clone());
        r.register("create_seconds", "Seconds from a create's request to a phase", self.create_seconds.clone());
        r.register("creates", "Creates that have ended", self.creates.clone());
        r.register("proxy_streams", "Answers being streamed out of sandboxes", self.streams.clone());
        r.register("proxy_tunnels", "WebSockets to sandboxes", self.tunnels.clone());
        r.register("event_streams", "Event streams of the server's own", self.subscriptions.clone());
        r.register("proxy_bytes", "Bytes passed by the proxy", self.bytes.clone());
        r.register("auth_failures", "Requests refused for their key", self.auth_failures.clone());
        r.register("watch_errors", "Watches that broke and were begun anew", self.watch_errors.clone());
        r.register("connections", "Open connections", self.connections.clone());
        r.register("tls_failures", "TLS handshakes that came to nothing", self.tls_failures.clone());
    }

    /// Measures a phase of a create.
    pub fn phase(&self, phase: &'static str, source: &'static str, after: Duration) {
        self.create_seconds.get_or_create(&Phase { phase, source }).observe(after.as_secs_f64());
    }
}

/// Counts one up for as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    /// Counts one up.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn names_and_labels() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("opensandbox");
        metrics.register(&mut registry);
        let labels = Answered { route: "/v1/sandboxes/{id}".to_owned(), method: "GET", status: 200 };
        metrics.requests.get_or_create(&labels).inc();
        metrics.phase("granted", "pool", Duration::from_millis(3));
        metrics.to_sandboxes.inc_by(5);
        let open = Counted::new(&metrics.streams);
        let mut shown = String::new();
        text::encode(&mut shown, &registry).unwrap();
        for line in [
            r#"opensandbox_server_requests_total{route="/v1/sandboxes/{id}",method="GET",status="200"} 1"#,
            r#"opensandbox_server_create_seconds_count{phase="granted",source="pool"} 1"#,
            r#"opensandbox_server_proxy_bytes_total{direction="to_sandbox"} 5"#,
            "opensandbox_server_proxy_streams 1",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        drop(open);
        assert_eq!(metrics.streams.get(), 0);
    }
}
