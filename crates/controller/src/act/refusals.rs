//! What a refused creation of a pod means, and what to do about it, in words.

use std::time::Duration;

use super::ActError;
use crate::world::Trouble;

/// Longest wait between two tries of what the API server refuses.
const LONGEST: Duration = Duration::from_secs(30);

/// Why a pod could not be created, when trying again at once would be refused again; `None` for what passes by itself.
pub(super) fn trouble(error: &ActError, namespace: &str) -> Option<Trouble> {
    let (code, message) = match error {
        ActError::Refused { code, message } => (*code, message.as_str()),
        ActError::Gone => {
            let message = format!("namespace {namespace} is not there, or is being deleted");
            return Some(Trouble::new("NamespaceMissing", message));
        }
        ActError::Conflict | ActError::Unknown(_) | ActError::NotLeader | ActError::OldCrd { .. } => return None,
    };
    Some(match code {
        403 if message.contains("violates PodSecurity") => Trouble::new(
            "PodSecurity",
            format!(
                "{message}; either the template gives up what the policy forbids, or the label \
                 pod-security.kubernetes.io/enforce of namespace {namespace} allows it"
            ),
        ),
        403 if message.contains("exceeded quota") || message.contains("must specify limits") => {
            Trouble::new("QuotaExceeded", format!("{message}; raise the ResourceQuota, or end what uses it"))
        }
        403 if message.contains("being terminated") => Trouble::new("NamespaceMissing", message),
        403 if message.contains("cannot create resource") => Trouble::new(
            "MissingPermission",
            format!(
                "{message}; the controller's role lacks this verb: install the chart's RBAC for namespace {namespace}"
            ),
        ),
        429 => Trouble::new("TooManyRequests", message),
        400 | 422 => Trouble::new("InvalidTemplate", format!("{message}; mend the template")),
        _ => Trouble::new("FailedCreate", message),
    })
}

/// How long to wait after so many refusals in a row: a second, doubling.
pub(super) fn pause(times: u32) -> Duration {
    Duration::from_secs(1 << times.saturating_sub(1).min(5)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let refused = |code, message: &str| {
            let error = ActError::Refused { code, message: message.to_owned() };
            trouble(&error, "d").unwrap()
        };
        let policy = refused(403, "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": privileged");
        assert_eq!(policy.reason, "PodSecurity");
        assert!(policy.message.contains("of namespace d"), "{}", policy.message);
        assert_eq!(refused(403, "pods \"p\" is forbidden: exceeded quota: q").reason, "QuotaExceeded");
        let role =
            "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"d\"";
        assert_eq!(refused(403, role).reason, "MissingPermission");
        assert_eq!(refused(422, "spec.containers[0].image: Required value").reason, "InvalidTemplate");
        assert_eq!(trouble(&ActError::Unknown("time-out".into()), "d"), None);
    }

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let seconds: Vec<u64> = (1..8).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }
}
