//! What becomes of a container that has ended: a pure function of its exit code, its own rules and policy, and its pod's.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRuleOnExitCodes, Pod};

use crate::shim::proto::Outcome;

/// A restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever happened.
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}

/// What becomes of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has ended for good.
    Stays,
    /// It is started again.
    Restarts,
    /// Every container of the pod is started again, init containers first.
    RestartsAll,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// The pod's policy.
    pub fn of(pod: &Pod) -> Self {
        Self::parse(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()))
    }

    fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Whether an init container keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What becomes of a container of the pod that ended so. `is_init` tells that it is one of the init containers.
pub fn verdict(pod: &Pod, container: &Container, is_init: bool, outcome: &Outcome) -> Verdict {
    if outcome.removed {
        return Verdict::Restarts;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        if rule.exit_codes.as_ref().is_some_and(|codes| matches(codes, outcome.exit_code)) {
            match rule.action.as_str() {
                "Restart" => return Verdict::Restarts,
                "RestartAllContainers" => return Verdict::RestartsAll,
                _ => {}
            }
        }
    }
    let policy = match (&container.restart_policy, is_init, RestartPolicy::of(pod)) {
        (Some(own), _, _) => RestartPolicy::parse(Some(own)),
        // A failed init container is started again unless the pod's containers never are, one that did its work never.
        (None, true, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (None, _, policy) => policy,
    };
    if policy.restarts(outcome.exit_code) { Verdict::Restarts } else { Verdict::Stays }
}

fn matches(codes: &ContainerRestartRuleOnExitCodes, code: i32) -> bool {
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pod: &str, container: serde_json::Value, is_init: bool, exit_code: i32) -> Verdict {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"spec": {"containers": [], "restartPolicy": pod}})).unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let outcome = Outcome { exit_code, ..Outcome::at(jiff::Timestamp::UNIX_EPOCH) };
        verdict(&pod, &container, is_init, &outcome)
    }

    #[test]
    fn rules_come_before_the_containers_policy_and_that_before_the_pods() {
        use Verdict::{Restarts, RestartsAll, Stays};
        let plain = serde_json::json!({"name": "c"});
        let own = serde_json::json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}},
            {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0, 1, 42]}}]});
        let cases = [
            ("Always", &plain, false, 0, Restarts),
            ("OnFailure", &plain, false, 0, Stays),
            ("OnFailure", &plain, false, 1, Restarts),
            ("Never", &plain, false, 1, Stays),
            ("Always", &plain, true, 0, Stays),
            ("Always", &plain, true, 1, Restarts),
            ("Never", &plain, true, 1, Stays),
            ("Always", &own, false, 1, Stays),
            ("Always", &own, false, 42, Restarts),
            ("Always", &own, false, 7, RestartsAll),
        ];
        for (pod, container, is_init, code, expected) in cases {
            assert_eq!(ask(pod, container.clone(), is_init, code), expected, "{pod} {is_init} {code}");
        }
    }
}
