//! What a tenant may have at once. Counted from memory and from what this replica is writing; the bound that holds over
//! replicas to the last sandbox is a ResourceQuota of Kubernetes.

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, Pool};
use api_types::quantity::amount;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Tenant;
use crate::error::ApiError;

/// A quota; what is absent is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Sandboxes.
    #[serde(default)]
    pub sandboxes: Option<u64>,
    /// CPUs of their limits, in thousandths.
    #[serde(default, deserialize_with = "thousandths")]
    cpu: Option<u64>,
    /// Bytes of their limits, in thousandths.
    #[serde(default, deserialize_with = "thousandths")]
    memory: Option<u64>,
}

fn thousandths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    quantity(&text).map(Some).ok_or_else(|| serde::de::Error::custom("is no quantity such as 500m or 2Gi"))
}

impl Quota {
    /// Whether it bounds anything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// CPUs, in thousandths.
    pub fn milli_cpu(&self) -> Option<u64> {
        self.cpu
    }

    /// The first bound that `used` and `more` pass together.
    fn passed(&self, used: Amount, more: Amount) -> Option<String> {
        let over = |bound: Option<u64>, used: u64, more: u64| bound.filter(|bound| used.saturating_add(more) > *bound);
        if let Some(bound) = over(self.sandboxes, used.sandboxes, more.sandboxes) {
            return Some(format!("sandboxes: {} are there of {bound}", used.sandboxes));
        }
        if let Some(bound) = over(self.cpu, used.cpu, more.cpu) {
            return Some(format!("cpu: {}m and {}m more are over {bound}m", used.cpu, more.cpu));
        }
        over(self.memory, used.memory, more.memory).map(|bound| {
            let bytes = |thousandths: u64| thousandths / 1000;
            let (used, more, bound) = (bytes(used.memory), bytes(more.memory), bytes(bound));
            format!("memory: {used} bytes and {more} more are over {bound}")
        })
    }
}

/// How much something takes; CPU and memory in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Sandboxes.
    pub sandboxes: u64,
    /// CPUs.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl Amount {
    /// What a sandbox takes: the limits of its own pods, or of its pool's.
    pub fn of(object: &BatchSandbox, pool: Option<&Pool>) -> Self {
        let template = object.spec.template.as_ref().or_else(|| pool?.spec.template.as_ref());
        let containers = template.and_then(|t| t.0["spec"]["containers"].as_array());
        let sum = |resource: &str| -> u64 {
            let limits = containers.into_iter().flatten().map(|c| &c["resources"]["limits"][resource]);
            limits.filter_map(Value::as_str).filter_map(quantity).fold(0, u64::saturating_add)
        };
        // One that is being prepared has no replica yet, and will have one.
        let pods = u64::try_from(object.spec.replicas).unwrap_or_default().max(1);
        Self { sandboxes: pods, cpu: sum("cpu").saturating_mul(pods), memory: sum("memory").saturating_mul(pods) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sandboxes: self.sandboxes.saturating_add(other.sandboxes),
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::plus)
    }
}

/// What is being written and is not in memory yet.
#[derive(Debug, Clone, Default)]
pub struct Reserved(Arc<Mutex<Amount>>);

/// A part of it; given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    reserved: Reserved,
    amount: Amount,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.reserved.0.lock();
        held.sandboxes = held.sandboxes.saturating_sub(self.amount.sandboxes);
        held.cpu = held.cpu.saturating_sub(self.amount.cpu);
        held.memory = held.memory.saturating_sub(self.amount.memory);
    }
}

impl Reserved {
    /// Lets a sandbox in, or says which bound it would pass. `there` counts what the tenant has already.
    pub fn admit(
        &self,
        tenant: &Tenant,
        there: impl FnOnce() -> Amount,
        more: Amount,
    ) -> Result<Reservation, ApiError> {
        // Held while counting: what another create has written meanwhile is either held or there.
        let mut held = self.0.lock();
        let used = held.plus(there());
        if let Some(passed) = tenant.quota.passed(used, more) {
            let message = format!("the quota of tenant {} is used up: {passed}", tenant.name);
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message));
        }
        *held = held.plus(more);
        Ok(Reservation { reserved: self.clone(), amount: more })
    }
}

/// A Kubernetes quantity in thousandths, rounded up.
fn quantity(text: &str) -> Option<u64> {
    let amount = amount(text).filter(|_| !text.starts_with(['+', '-']))?;
    // A float becomes the nearest integer that there is: no wrapping.
    Some((amount * 1000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::state::tests::object;

    fn tenant(quota: &str) -> Tenant {
        let quota = toml::from_str(quota).unwrap();
        Tenant { name: "red".to_owned(), namespace: "n".to_owned(), quota, rate: None }
    }

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", 1000),
            ("500m", 500),
            ("0.1", 100),
            ("1n", 1),
            ("1Ki", 1_024_000),
            ("2Gi", 2_147_483_648_000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(quantity(text), Some(expected), "{text}");
        }
        assert_eq!(quantity("100000E"), Some(u64::MAX));
        assert!(["", "x", "1x", "-1", "1.2.3"].iter().all(|bad| quantity(bad).is_none()));
    }

    #[test]
    fn creates_at_once_see_each_other_and_give_back_what_they_held() {
        let (reserved, tenant) = (Reserved::default(), tenant("sandboxes = 3\ncpu = \"2\""));
        let one = Amount { sandboxes: 1, cpu: 500, memory: 0 };
        let first = reserved.admit(&tenant, || one, one).unwrap();
        let second = reserved.admit(&tenant, || one, one).unwrap();
        let refused = reserved.admit(&tenant, || one, one).unwrap_err();
        assert_eq!(refused.code, ErrorCode::QuotaExceeded);
        assert!(refused.message.ends_with("sandboxes: 3 are there of 3"), "{}", refused.message);
        drop((first, second));
        let large = Amount { sandboxes: 1, cpu: 2001, memory: 0 };
        assert!(reserved.admit(&tenant, Amount::default, large).unwrap_err().message.contains("cpu: "));
        assert_eq!(*reserved.0.lock(), Amount::default());
    }

    #[test]
    fn a_sandbox_takes_what_its_pool_gives_it() {
        let pool: Pool = serde_json::from_value(serde_json::json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": "p"},
            "spec": {"capacitySpec": {"bufferMax": 1, "bufferMin": 0, "poolMax": 1, "poolMin": 0}, "template": {"spec": {"containers": [
                {"name": "a", "resources": {"limits": {"cpu": "250m", "memory": "1Mi"}}}, {"name": "b"},
                {"name": "c", "resources": {"limits": {"cpu": "1"}}}]}}}
        }))
        .unwrap();
        let sandbox = object(Value::Null);
        let taken = Amount { sandboxes: 1, cpu: 1250, memory: 1_048_576_000 };
        assert_eq!(Amount::of(&sandbox, Some(&pool)), taken);
        assert_eq!(Amount::of(&sandbox, None), Amount { sandboxes: 1, ..Amount::default() });
    }
}
