//! `osb doctor`: what stands between this machine and a sandbox. It changes nothing.

use std::process::ExitCode;

use anyhow::Result;
use opensandbox::{Client, Error, ListSandboxes};
use serde::Serialize;

use crate::{cli::Globals, connection, output::Printer, views::PoolView};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do next; none where all is well.
    next: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check { check, verdict: Verdict::Ok, found: found.into(), next: None }
}

fn not(verdict: Verdict, check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
    Check { check, verdict, found: found.into(), next: Some(next.into()) }
}

/// Runs the checks, each after those it needs. Exit code 1 when one failed.
pub async fn run(globals: &Globals) -> Result<ExitCode> {
    let printer = Printer::structured(globals.output)?;
    let mut checks = Vec::new();
    match configuration(globals, &mut checks) {
        Some(client) => platform(&client, &mut checks).await,
        None => tracing::debug!("without a configuration nothing more can be checked"),
    }
    let row = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        vec![check.check.to_owned(), verdict.to_owned(), check.found.clone(), check.next.clone().unwrap_or_default()]
    };
    printer.list(&checks, &checks, &["CHECK", "VERDICT", "FOUND", "NEXT"], row, "")?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn configuration(globals: &Globals, checks: &mut Vec<Check>) -> Option<Client> {
    const CHECK: &str = "configuration";
    let next = "correct it; `osb config show` tells each setting and where it comes from";
    let resolved = match connection::resolve(globals) {
        Ok(resolved) => resolved,
        Err(error) => {
            checks.push(not(Verdict::Failed, CHECK, format!("{error:#}"), next));
            return None;
        }
    };
    let (domain, source) = &resolved.domain;
    checks.push(ok(CHECK, format!("{}://{domain} (from: {source})", resolved.protocol.0)));
    checks.push(match &resolved.api_key {
        (Some(_), source) => ok("API key", format!("there is one (from: {source})")),
        (None, _) => not(
            Verdict::Warning,
            "API key",
            "there is none",
            "set OPEN_SANDBOX_API_KEY, unless the platform asks for none",
        ),
    });
    match connection::connect(globals) {
        Ok((client, _)) => Some(client),
        Err(error) => {
            checks.push(not(Verdict::Failed, CHECK, format!("{error:#}"), next));
            None
        }
    }
}

async fn platform(client: &Client, checks: &mut Vec<Check>) {
    let listed = client.list(ListSandboxes::new().page_size(1)).await;
    match &listed {
        Ok(page) => {
            checks.push(ok("platform", "answers and takes the key"));
            checks.push(ok("sandboxes", format!("{} there are", page.pagination.total_items)));
        }
        Err(error) => {
            let next = match error {
                Error::Connection { .. } => "start a platform with `osb up`, or name another with --domain".to_owned(),
                Error::Timeout { .. } => "look at the platform's load and the network between".to_owned(),
                error => {
                    error.code().map_or_else(|| "look into the server's log".to_owned(), |c| c.action().to_owned())
                }
            };
            checks.push(not(Verdict::Failed, "platform", error.to_string(), next));
            return;
        }
    }
    match client.pools().list().await {
        Ok(pools) if pools.is_empty() => checks.push(not(
            Verdict::Warning,
            "pools",
            "there are none: each sandbox is made from an image, which takes seconds",
            "make one with `osb pool create` or kubectl",
        )),
        Ok(pools) => checks.extend(pools.into_iter().map(|pool| of_pool(&pool.into()))),
        Err(error) => checks.push(not(Verdict::Failed, "pools", error.to_string(), "look into the server's log")),
    }
}

fn of_pool(pool: &PoolView) -> Check {
    let number = |n: Option<i32>| n.unwrap_or_default();
    let (total, warm) = (number(pool.total), number(pool.available));
    let found = format!("{}: {warm} warm of {total}, at most {}", pool.name, pool.pool_max);
    if warm > 0 {
        ok("pool", found)
    } else if total >= pool.pool_max {
        not(Verdict::Warning, "pool", found, "it is full: end sandboxes, or raise it with `osb pool scale`")
    } else {
        not(
            Verdict::Warning,
            "pool",
            found,
            format!("it does not fill: `kubectl describe pool {}` says why", pool.name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_that_are_full_or_do_not_fill_are_told_apart() {
        let pool = |total, available| PoolView {
            name: "p".to_owned(),
            buffer_min: 1,
            buffer_max: 2,
            pool_min: 0,
            pool_max: 2,
            total: Some(total),
            allocated: None,
            available: Some(available),
            revision: None,
            created_at: None,
        };
        assert_eq!(of_pool(&pool(2, 1)).next, None);
        assert!(of_pool(&pool(2, 0)).next.unwrap().contains("full"));
        assert!(of_pool(&pool(1, 0)).next.unwrap().contains("does not fill"));
    }
}
