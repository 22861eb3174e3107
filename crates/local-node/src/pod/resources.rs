//! What a pod and its containers have been given, as their status tells it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::policy::is_sidecar;
use super::quantity;

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

/// A container's requests and limits; what is limited and not requested is requested as well.
pub fn of_container(container: &Container) -> ResourceRequirements {
    completed(container.resources.clone().unwrap_or_default())
}

/// A pod's requests and limits: its own, or the sum of its containers'.
pub fn of_pod(pod: &Pod) -> ResourceRequirements {
    let Some(spec) = &pod.spec else { return ResourceRequirements::default() };
    if let Some(own) = &spec.resources
        && (own.limits.is_some() || own.requests.is_some())
    {
        return completed(own.clone());
    }
    let sum = |of: fn(ResourceRequirements) -> Option<Amounts>| {
        let amounts = sum(spec, of);
        (!amounts.is_empty()).then_some(amounts)
    };
    ResourceRequirements { limits: sum(|r| r.limits), requests: sum(|r| r.requests), claims: None }
}

fn completed(mut resources: ResourceRequirements) -> ResourceRequirements {
    if let Some(limits) = &resources.limits {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    resources
}

/// The containers run together with the sidecars; each init container runs alone with the sidecars before it.
fn sum(spec: &PodSpec, of: fn(ResourceRequirements) -> Option<Amounts>) -> Amounts {
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let amounts = of(of_container(container)).unwrap_or_default();
        let mut together = sidecars.clone();
        merge(&mut together, &amounts, |a, b| a + b);
        if is_sidecar(container) {
            sidecars.clone_from(&together);
        }
        merge(&mut most, &together, i128::max);
    }
    let mut running = sidecars;
    for container in &spec.containers {
        merge(&mut running, &of(of_container(container)).unwrap_or_default(), |a, b| a + b);
    }
    merge(&mut running, &most, i128::max);
    running
}

fn merge(into: &mut Amounts, from: &Amounts, with: impl Fn(i128, i128) -> i128) {
    for (name, amount) in from {
        let merged = match into.get(name) {
            None => amount.clone(),
            Some(known) => match (quantity::milli(known), quantity::milli(amount)) {
                (Some(a), Some(b)) => {
                    let result = with(i128::from(a), i128::from(b));
                    // As it was written, where it is one of the two.
                    if result == i128::from(a) {
                        known.clone()
                    } else if result == i128::from(b) {
                        amount.clone()
                    } else {
                        written(result, amount.0.ends_with('i') || known.0.ends_with('i'))
                    }
                }
                _ => amount.clone(),
            },
        };
        into.insert(name.clone(), merged);
    }
}

/// Thousandths as Kubernetes writes them: the largest unit without a fraction.
fn written(milli: i128, binary: bool) -> Quantity {
    if milli % 1000 != 0 {
        return Quantity(format!("{milli}m"));
    }
    let mut value = milli / 1000;
    let (step, units): (i128, &[&str]) = if binary {
        (1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    } else {
        (1000, &["", "k", "M", "G", "T", "P", "E"])
    };
    let mut unit = 0;
    while value != 0 && value % step == 0 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    Quantity(format!("{value}{}", units[unit]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_asks_for_what_runs_together_or_for_its_largest_init_container() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "initContainers": [
                {"name": "i", "resources": {"requests": {"cpu": "700m"}}},
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}},
                {"name": "j", "resources": {"requests": {"cpu": "500m"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "200m"}, "limits": {"memory": "3Mi"}}},
                {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}}))
        .unwrap();
        let resources = of_pod(&pod);
        let text = |amounts: Option<Amounts>, name: &str| amounts.unwrap()[name].0.clone();
        assert_eq!(text(resources.requests.clone(), "cpu"), "1300m");
        assert_eq!(text(resources.requests, "memory"), "4Mi");
        assert_eq!(text(resources.limits, "cpu"), "1");
        assert_eq!([written(2_048_000, true), written(1500, false)].map(|q| q.0), ["2Ki", "1500m"]);
    }
}
