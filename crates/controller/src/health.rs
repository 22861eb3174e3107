//! What `/readyz` tells of the controller.

use std::sync::Arc;

use telemetry::{Check, Readiness};

use crate::act::Context;
use crate::world::{Kind, Scope};

/// The checks of one controller. A standby is ready too: its caches are warm, and it may lead at any moment.
#[derive(Clone)]
pub(crate) struct Health {
    pods: Check,
    pools: Check,
    batches: Check,
    /// Whether the CRDs keep what must be durable.
    pub(crate) crds: Check,
    /// Whether the Lease can be reached.
    pub(crate) lease: Option<Check>,
    /// Whether every verb is granted.
    pub(crate) permissions: Check,
}

impl Health {
    pub(crate) fn new(readiness: &Readiness, elects: bool) -> Self {
        let waiting = "not listed yet";
        let crds = readiness.check("crds", "");
        // Nothing is known against them until a write comes back without what was written.
        crds.pass();
        Self {
            crds,
            pods: readiness.check("pods", waiting),
            pools: readiness.check("pools", waiting),
            batches: readiness.check("batchsandboxes", waiting),
            lease: elects.then(|| readiness.check("lease", "not asked for yet")),
            permissions: readiness.check("permissions", "not asked for yet"),
        }
    }

    fn of(&self, kind: Kind) -> &Check {
        match kind {
            Kind::Pod => &self.pods,
            Kind::Pool => &self.pools,
            Kind::Batch => &self.batches,
        }
    }
}

/// One watch's share in a check. Of several namespaces the last to be listed, or to fail, is told.
pub(crate) struct Listings<'a> {
    ctx: &'a Arc<Context>,
    kind: Kind,
    scope: &'a Scope,
}

impl<'a> Listings<'a> {
    pub(crate) fn new(ctx: &'a Arc<Context>, kind: Kind, scope: &'a Scope) -> Self {
        Self { ctx, kind, scope }
    }

    /// The listing is complete. The check passes when those of every namespace are.
    pub(crate) fn listed(&self) {
        if self.ctx.world.lock().is_listed(self.kind) {
            self.ctx.health.of(self.kind).pass();
        }
    }

    /// The watch failed and is begun anew. What was listed once goes on to be used.
    pub(crate) fn failed(&self, why: &str) {
        tracing::warn!(scope = self.scope.as_deref().unwrap_or("*"), "{why}");
        if !self.ctx.world.lock().is_listed(self.kind) {
            self.ctx.health.of(self.kind).fail(why);
        }
    }
}
