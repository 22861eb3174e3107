//! One case: what it is called, what it needs, what it does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use e2e::ground::{Field, Ground, Need};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libtest_mimic::Completion;
use tokio::runtime::Runtime;

/// A case of the suite.
pub struct Case {
    /// Module and function.
    pub name: &'static str,
    /// What the ground must have.
    pub needs: &'static [Need],
    /// How long it may take, where that is more than usual.
    pub limit: Option<Duration>,
    /// The case itself.
    pub body: for<'a> fn(&'a Ground) -> BoxFuture<'a, Result<()>>,
}

/// A case from a function, what it needs and, where that is much, how many minutes it may take.
macro_rules! case {
    ($module:ident :: $function:ident $(, needs: $need:expr)? $(, minutes: $minutes:literal)?) => {{
        #[allow(unused_mut, unused_assignments, reason = "both are optional")]
        {
            let mut case = $crate::case::Case {
                name: concat!(stringify!($module), "::", stringify!($function)),
                needs: &[],
                limit: None,
                body: |ground| Box::pin($module::$function(ground)),
            };
            $(case.needs = $need;)?
            $(case.limit = Some(std::time::Duration::from_secs($minutes * 60));)?
            case
        }
    }};
}
pub(crate) use case;

impl Case {
    /// Why a ground cannot run it, if so.
    pub fn skip(&self, field: &Field) -> Option<String> {
        self.needs.iter().find_map(|need| field.lacks(*need))
    }

    /// Runs it on a ground; afterwards nothing of it may be left.
    pub fn run(&self, runtime: &Runtime, field: &Field) -> Result<Completion> {
        if let Some(reason) = self.skip(field) {
            return Ok(Completion::ignored_with(reason));
        }
        if let (Field::Embedded, Some(lack)) = (field, e2e::ground::embedded_lacks()) {
            return Ok(Completion::ignored_with(format!("this machine lacks {lack}")));
        }
        runtime.block_on(self.on(field)).map(|()| Completion::Completed)
    }

    async fn on(&self, field: &Field) -> Result<()> {
        let ground = field.begin().await.context("the case cannot begin")?;
        let limit = self.limit.unwrap_or(field.limit());
        // A panic is a failure like others: what tells of it is gathered, and the ground is cleared.
        let body = std::panic::AssertUnwindSafe((self.body)(&ground)).catch_unwind();
        let outcome = match tokio::time::timeout(limit, body).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(anyhow!("the case panicked")),
            Err(_) => Err(anyhow!("the case is not done within {limit:?}")),
        };
        let outcome = self.explain(field, &ground, outcome);
        let ended = ground.end().await.context("the case has left something behind");
        let ended = if outcome.is_ok() { self.explain(field, &ground, ended) } else { ended };
        match (outcome, ended) {
            (Err(error), Err(further)) => Err(error.context(format!("and {further:#}"))),
            (outcome, ended) => outcome.and(ended),
        }
    }

    /// Gathers what tells of a failure, and says where.
    fn explain(&self, field: &Field, ground: &Ground, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let directory = match field {
            Field::Cluster(cluster) => cluster.setting().evidence.clone(),
            Field::Embedded => PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e-evidence"),
        };
        let directory = directory.join(self.name.replace("::", "."));
        match ground.gather(&directory) {
            Ok(()) => Err(error.context(format!("evidence in {}", directory.display()))),
            Err(lost) => Err(error.context(format!("no evidence: {lost:#}"))),
        }
    }
}
