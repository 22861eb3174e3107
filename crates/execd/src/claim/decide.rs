//! The rules of ownership, as a function of what is and what is asked.

use api_types::ErrorCode;
use api_types::execd::ClaimRequest;

use super::{ClaimRecord, TokenHash};

/// What is to be done with a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pod is free: it is taken.
    Take,
    /// The owner claims again: the same answer.
    Same,
    /// The owner claims again, with a newer epoch or token: noted, nothing is started.
    Renew,
    /// No.
    Refuse(ErrorCode, String),
}

/// Decides on a claim. `keyed` says that its signature was verified.
pub fn decide(current: Option<&ClaimRecord>, request: &ClaimRequest, own_pod: Option<&str>, keyed: bool) -> Decision {
    if let Some(own) = own_pod.filter(|own| *own != request.pod_uid.as_str()) {
        let message = format!("the claim is for pod {}, this is pod {own}", request.pod_uid);
        return Decision::Refuse(ErrorCode::WrongPod, message);
    }
    let Some(current) = current else { return Decision::Take };
    if current.sandbox_uid != request.sandbox_uid {
        let message = "this pod has another owner and takes none until it is reset".to_owned();
        return Decision::Refuse(ErrorCode::ClaimedByAnother, message);
    }
    if request.epoch < current.epoch {
        let message = format!("the claim has epoch {}, this pod has seen {}", request.epoch, current.epoch);
        return Decision::Refuse(ErrorCode::StaleClaim, message);
    }
    let same_token = current.token_hash().is_some_and(|hash| hash == TokenHash::of(&request.token));
    match (same_token, keyed) {
        (true, _) if request.epoch == current.epoch => Decision::Same,
        // Without a signature anybody could say that they are the owner.
        (false, false) => {
            let message = "this pod is claimed, and the token is not its owner's".to_owned();
            Decision::Refuse(ErrorCode::ClaimedByAnother, message)
        }
        _ => Decision::Renew,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sandbox: &str, pod: &str, epoch: u64, token: &str) -> ClaimRequest {
        ClaimRequest {
            sandbox_id: "s".into(),
            sandbox_uid: sandbox.into(),
            pod_uid: pod.into(),
            epoch,
            token: token.into(),
            env: [].into(),
            entrypoint: Vec::new(),
        }
    }

    #[test]
    fn every_case() {
        let owner = ClaimRecord::of(&request("a", "p", 5, "t"));
        let refused = |code| move |d: &Decision| matches!(d, Decision::Refuse(c, _) if *c == code);
        type Want = Box<dyn Fn(&Decision) -> bool>;
        let is = |want: Decision| -> Want { Box::new(move |d| *d == want) };
        let cases: [(Option<&ClaimRecord>, ClaimRequest, bool, Want); 10] = [
            (None, request("a", "p", 0, "t"), true, is(Decision::Take)),
            (None, request("a", "q", 0, "t"), true, Box::new(refused(ErrorCode::WrongPod))),
            (Some(&owner), request("a", "p", 5, "t"), true, is(Decision::Same)),
            (Some(&owner), request("a", "p", 6, "t"), true, is(Decision::Renew)),
            (Some(&owner), request("a", "p", 5, "u"), true, is(Decision::Renew)),
            (Some(&owner), request("a", "p", 4, "t"), true, Box::new(refused(ErrorCode::StaleClaim))),
            (Some(&owner), request("b", "p", 9, "t"), true, Box::new(refused(ErrorCode::ClaimedByAnother))),
            (Some(&owner), request("b", "p", 1, "t"), true, Box::new(refused(ErrorCode::ClaimedByAnother))),
            (Some(&owner), request("a", "p", 5, "u"), false, Box::new(refused(ErrorCode::ClaimedByAnother))),
            (Some(&owner), request("a", "p", 5, "t"), false, is(Decision::Same)),
        ];
        for (index, (current, request, keyed, want)) in cases.into_iter().enumerate() {
            let decision = decide(current, &request, Some("p"), keyed);
            assert!(want(&decision), "case {index}: {decision:?}");
        }
        assert_eq!(decide(None, &request("a", "any", 0, "t"), None, false), Decision::Take);
    }
}
