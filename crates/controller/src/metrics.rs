//! What the controller counts. Every label has a bounded number of values.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use telemetry::buckets::{REQUEST_SECONDS, WAIT_SECONDS};

use crate::act::Context;
use crate::world::{PoolSums, Start};

/// Pools that have series of their own; more are only counted.
const POOLS: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of one controller. Clones share the same numbers.
#[derive(Clone)]
pub struct Metrics {
    leader: Gauge,
    reconcile_seconds: Seconds<Kind>,
    reconcile_errors: Family<Kind, Counter>,
    sandbox_seconds: Seconds<Stage>,
    wait_seconds: Seconds<Stage>,
    pod_start_seconds: Seconds<Stage>,
    claims: Family<Outcome, Counter>,
    pods_created: Family<Outcome, Counter>,
    world: Arc<OnceLock<Weak<Context>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let request: fn() -> Histogram = || Histogram::new(REQUEST_SECONDS);
        let wait: fn() -> Histogram = || Histogram::new(WAIT_SECONDS);
        Self {
            leader: Gauge::default(),
            reconcile_seconds: Family::new_with_constructor(request),
            reconcile_errors: Family::default(),
            sandbox_seconds: Family::new_with_constructor(wait),
            wait_seconds: Family::new_with_constructor(wait),
            pod_start_seconds: Family::new_with_constructor(wait),
            claims: Family::default(),
            pods_created: Family::default(),
            world: Arc::default(),
        }
    }
}

impl Metrics {
    /// Metrics registered under `controller_` and the registry's prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("controller");
        ours.register("leader", "1 while this replica leads", metrics.leader.clone());
        ours.register("reconcile_seconds", "Seconds of one look at an object", metrics.reconcile_seconds.clone());
        ours.register("reconcile_errors", "Looks that failed and were tried again", metrics.reconcile_errors.clone());
        ours.register(
            "sandbox_seconds",
            "Seconds from the creation of a BatchSandbox until its first grants, claims and readiness",
            metrics.sandbox_seconds.clone(),
        );
        ours.register(
            "sandbox_wait_seconds",
            "Where those seconds went: queue (for its turn or capacity), pod (scheduler and kubelet), write, claim",
            metrics.wait_seconds.clone(),
        );
        ours.register(
            "pod_start_seconds",
            "Seconds of the parts of a pod's start as Kubernetes tells them, in whole seconds: schedule, sandbox, \
             init (images included), containers (images included)",
            metrics.pod_start_seconds.clone(),
        );
        ours.register("claims", "Claims of pods by outcome", metrics.claims.clone());
        ours.register("pod_creations", "Pods asked of the API by outcome", metrics.pods_created.clone());
        ours.register_collector(Box::new(WorldView(metrics.world.clone())));
        metrics
    }

    /// What the gauges of pools and queue are read from.
    pub(crate) fn watch(&self, ctx: &Arc<Context>) {
        // Only a second controller with the same metrics fails, and then the first one is shown.
        let _ = self.world.set(Arc::downgrade(ctx));
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn reconciled(&self, kind: &'static str, took: Duration, failed: bool) {
        self.reconcile_seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
        if failed {
            self.reconcile_errors.get_or_create(&Kind { kind }).inc();
        }
    }

    /// A BatchSandbox has come this far, so long after its creation.
    pub(crate) fn reached(&self, stage: &'static str, after: Duration) {
        self.sandbox_seconds.get_or_create(&Stage { stage }).observe(after.as_secs_f64());
    }

    /// A part of that time.
    pub(crate) fn waited(&self, stage: &'static str, for_: Duration) {
        self.wait_seconds.get_or_create(&Stage { stage }).observe(for_.as_secs_f64());
    }

    /// A pod has started.
    pub(crate) fn started(&self, start: &Start) {
        let parts = [
            ("schedule", start.schedule),
            ("sandbox", start.sandbox),
            ("init", start.init),
            ("containers", start.containers),
        ];
        for (stage, seconds) in parts {
            self.pod_start_seconds.get_or_create(&Stage { stage }).observe(Duration::from_secs(seconds).as_secs_f64());
        }
    }

    pub(crate) fn claimed(&self, outcome: &'static str) {
        self.claims.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn created(&self, outcome: &'static str) {
        self.pods_created.get_or_create(&Outcome { outcome }).inc();
    }
}

/// Gauges that are read from the world when somebody asks.
#[derive(Clone)]
struct WorldView(Arc<OnceLock<Weak<Context>>>);

impl std::fmt::Debug for WorldView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorldView")
    }
}

/// One gauge of every pool.
type PoolGauge = (&'static str, &'static str, fn(&PoolSums) -> usize);

const POOL_GAUGES: [PoolGauge; 7] = [
    ("pool_idle", "Ready pods nobody holds", |p| p.counts.ready),
    ("pool_starting", "Free pods that are not ready yet", |p| p.counts.starting + p.counts.creating),
    ("pool_allocated", "Pods held by sandboxes", |p| p.counts.held),
    ("pool_terminating", "Pods on their way out", |p| p.counts.terminating + p.counts.spent),
    ("pool_total", "Pods that exist or are being created", |p| p.counts.existing()),
    ("pool_demand", "Pods that sandboxes wait for", |p| p.demand),
    ("pool_failing", "Free pods that do not start", |p| p.failing),
];

impl Collector for WorldView {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(ctx) = self.0.get().and_then(Weak::upgrade) else { return Ok(()) };
        let (ready, running, timers) = ctx.queue.depth();
        let mut family = |name: &str, help: &str, series: &[(Vec<(&str, &str)>, usize)]| {
            let mut metric = encoder.encode_descriptor(name, help, None::<&Unit>, MetricType::Gauge)?;
            for (labels, value) in series {
                let value = u64::try_from(*value).unwrap_or(u64::MAX);
                if labels.is_empty() {
                    metric.encode_gauge(&value)?;
                } else {
                    metric.encode_family(labels)?.encode_gauge(&value)?;
                }
            }
            Ok(())
        };
        let depth = [
            (vec![("state", "ready")], ready),
            (vec![("state", "running")], running),
            (vec![("state", "delayed")], timers),
        ];
        family("queue_depth", "Objects to look at", &depth)?;
        if !ctx.leads() {
            // The leader tells what is; a standby's view of it would only be counted twice.
            return Ok(());
        }
        let (pools, count, phases, (pods, _)) = {
            let world = ctx.world.lock();
            let (pools, count) = world.pool_sums(POOLS);
            (pools, count, world.phases(), world.pod_sums())
        };
        for (name, help, value) in POOL_GAUGES {
            let series: Vec<_> = pools
                .iter()
                .map(|p| (vec![("namespace", &*p.name.namespace), ("pool", &*p.name.name)], value(p)))
                .collect();
            family(name, help, &series)?;
        }
        family("pools", "Pools, also those without series of their own", &[(Vec::new(), count)])?;
        let phases: Vec<_> = phases.into_iter().map(|(phase, n)| (vec![("phase", phase)], n)).collect();
        family("sandboxes", "BatchSandboxes by phase", &phases)?;
        family("pods", "Pods known", &[(Vec::new(), pods)])
    }
}
