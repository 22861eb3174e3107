//! Readiness: named checks that the program's parts set, and `/readyz` tells.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::RwLock;

/// A check's name, and why it fails.
type State = (&'static str, Result<(), String>);

/// The checks of one program. Ready means that every one of them passes. Clones share the same checks.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<RwLock<Vec<State>>>,
}

impl Readiness {
    /// Adds a check that fails with `waiting` until somebody lets it pass. The name is shown by `/readyz`.
    pub fn check(&self, name: &'static str, waiting: impl Into<String>) -> Check {
        let mut checks = self.checks.write();
        checks.push((name, Err(waiting.into())));
        Check { readiness: self.clone(), index: checks.len() - 1 }
    }

    /// True when every check passes.
    pub fn is_ready(&self) -> bool {
        self.checks.read().iter().all(|(_, state)| state.is_ok())
    }

    /// Whether all pass, and one line a check: `[+] name`, or `[-] name: why it fails`.
    pub fn report(&self) -> (bool, String) {
        let checks = self.checks.read();
        let mut text = String::new();
        let mut ready = true;
        for (name, state) in checks.iter() {
            // Writing to a String does not fail.
            let _ = match state {
                Ok(()) => writeln!(text, "[+] {name}"),
                Err(reason) => {
                    ready = false;
                    writeln!(text, "[-] {name}: {reason}")
                }
            };
        }
        text.push_str(if ready { "ready\n" } else { "not ready\n" });
        (ready, text)
    }
}

/// One check of a [`Readiness`]; whoever knows the thing keeps it.
#[derive(Debug, Clone)]
pub struct Check {
    readiness: Readiness,
    index: usize,
}

impl Check {
    /// The check passes from now on.
    pub fn pass(&self) {
        self.set(Ok(()));
    }

    /// The check fails from now on; `reason` is shown by `/readyz` and must hold no secret.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, state: Result<(), String>) {
        // Checks are only ever added, so the index stays good.
        if let Some(check) = self.readiness.checks.write().get_mut(self.index) {
            check.1 = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_check_fails() {
        let readiness = Readiness::default();
        let crds = readiness.check("crds", "not looked yet");
        let caches = readiness.check("caches", "not synced");
        caches.pass();
        crds.fail("pools.sandbox.opensandbox.io is missing");
        assert!(!readiness.is_ready());
        let (ready, text) = readiness.report();
        assert!(!ready);
        assert_eq!(text, "[-] crds: pools.sandbox.opensandbox.io is missing\n[+] caches\nnot ready\n");
        crds.pass();
        assert_eq!(readiness.report(), (true, "[+] crds\n[+] caches\nready\n".to_owned()));
    }
}
