//! Lifecycle hooks: what runs before the container's program, and what runs again and again beside it.
//! They come as JSON in `OPENSANDBOX_LIFECYCLE`.

mod cron;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use api_types::ids::ExecutionId;
use jiff::Zoned;
use serde::Deserialize;

use crate::envs::Env;
use crate::exec::{Engine, Execution, Input, Launch};
pub use cron::Schedule;

/// Environment variable that carries the hooks.
pub const LIFECYCLE_ENV: &str = "OPENSANDBOX_LIFECYCLE";
/// Time of a hook before the program that names none.
const PRE_START: Duration = Duration::from_secs(10_800);
/// Time of a periodic hook that names none.
const PERIODIC: Duration = Duration::from_secs(300);
/// Bytes of a failed hook's last output that are told.
const TAIL: usize = 2 << 10;

/// Why hooks are not run.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The variable holds no hooks.
    #[error("{LIFECYCLE_ENV}: {0}")]
    Invalid(String),
    /// The hook before the program failed.
    #[error("the preStart hook failed: {0}")]
    PreStart(String),
}

/// All hooks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hooks {
    pre_start: Option<Hook>,
    #[serde(default)]
    periodic: Option<Vec<Periodic>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    command: Vec<String>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Periodic {
    name: String,
    schedule: String,
    command: Vec<String>,
    timeout_seconds: Option<u64>,
}

impl Hooks {
    /// The hooks of an environment; none where the variable is not set.
    ///
    /// # Errors
    /// It is set and holds no hooks.
    pub fn of(env: &Env) -> Result<Self, HookError> {
        let Some(text) = env.get(OsStr::new(LIFECYCLE_ENV)).filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let hooks: Self =
            serde_json::from_slice(text.as_encoded_bytes()).map_err(|e| HookError::Invalid(e.to_string()))?;
        hooks.check().map_err(HookError::Invalid)?;
        Ok(hooks)
    }

    fn check(&self) -> Result<(), String> {
        let blank = |command: &[String]| command.first().is_none_or(|program| program.trim().is_empty());
        if self.pre_start.as_ref().is_some_and(|hook| blank(&hook.command)) {
            return Err("preStart.command names no program".to_owned());
        }
        let mut names = BTreeSet::new();
        for hook in self.periodic.iter().flatten() {
            if !names.insert(&hook.name) {
                return Err(format!("periodic: the name {:?} is there twice", hook.name));
            }
            if blank(&hook.command) {
                return Err(format!("periodic {:?}: command names no program", hook.name));
            }
            Schedule::parse(&hook.schedule).map_err(|e| format!("periodic {:?}: {e}", hook.name))?;
        }
        Ok(())
    }

    /// Runs the hook before the program, and waits for it.
    ///
    /// # Errors
    /// It failed.
    pub async fn pre_start(&self, engine: &Engine, env: &Env) -> Result<(), HookError> {
        let Some(hook) = &self.pre_start else { return Ok(()) };
        let timeout = hook.timeout_seconds.map_or(PRE_START, Duration::from_secs);
        let execution = start(engine, &hook.command, timeout, env).map_err(HookError::PreStart)?;
        told(&execution).await.map_err(HookError::PreStart)
    }

    /// Runs the periodic ones for as long as the daemon lives. `env` gives the environment of each run.
    pub fn run_periodic(self, engine: &Engine, env: impl Fn() -> Env + Send + Sync + 'static) {
        let env = Arc::new(env);
        for hook in self.periodic.into_iter().flatten() {
            let Ok(schedule) = Schedule::parse(&hook.schedule) else { continue };
            let (engine, env) = (engine.clone(), env.clone());
            tokio::spawn(async move { again_and_again(&hook, &schedule, &engine, &*env).await });
        }
    }
}

async fn again_and_again(hook: &Periodic, schedule: &Schedule, engine: &Engine, env: &(dyn Fn() -> Env + Send + Sync)) {
    let timeout = hook.timeout_seconds.map_or(PERIODIC, Duration::from_secs);
    loop {
        let now = Zoned::now();
        let Some(next) = schedule.next(&now) else { return };
        let wait = Duration::try_from(next.timestamp().duration_since(now.timestamp())).unwrap_or_default();
        tokio::time::sleep(wait).await;
        // A run that takes longer than its period delays the next one; two never run at once.
        let ended = match start(engine, &hook.command, timeout, &env()) {
            Ok(execution) => told(&execution).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = ended {
            tracing::warn!(hook = hook.name, reason, "a periodic hook failed");
        }
    }
}

fn start(engine: &Engine, command: &[String], timeout: Duration, env: &Env) -> Result<Arc<Execution>, String> {
    let launch = Launch {
        argv: command.iter().map(Into::into).collect(),
        env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        cwd: None,
        credentials: None,
        split: false,
        timeout: Some(timeout),
        content: command.join(" "),
        input: Input::Null,
        while_read: false,
        outlives: false,
    };
    let id = ExecutionId::new(uuid::Uuid::new_v4().simple().to_string());
    engine.start(id, &launch).map_err(|e| e.to_string())
}

async fn told(execution: &Execution) -> Result<(), String> {
    let outcome = execution.ended().await;
    if outcome.success() {
        return Ok(());
    }
    let tail = execution.journal.tail(TAIL);
    Err(format!("{}: {}", outcome.details().join("; "), String::from_utf8_lossy(&tail).trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Hooks, HookError> {
        Hooks::of(&[(LIFECYCLE_ENV.into(), text.into())].into())
    }

    #[test]
    fn what_may_be() {
        assert!(of("").unwrap().pre_start.is_none());
        let hooks = of(
            r#"{"preStart":{"command":["a"],"timeoutSeconds":5},"periodic":[{"name":"n","schedule":"@hourly","command":["b"]}]}"#,
        );
        assert_eq!(hooks.unwrap().periodic.unwrap().len(), 1);
        for wrong in [
            "x",
            r#"{"other":1}"#,
            r#"{"preStart":{"command":[]}}"#,
            r#"{"preStart":{"command":[" "]}}"#,
            r#"{"periodic":[{"name":"n","schedule":"nonsense","command":["b"]}]}"#,
            r#"{"periodic":[{"name":"n","schedule":"@hourly","command":["b"]},{"name":"n","schedule":"@hourly","command":["b"]}]}"#,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_one_before_the_program_is_waited_for() {
        let env: Env = [("PATH".into(), "/usr/bin:/bin".into())].into();
        let engine = Engine::default();
        let fine = of(r#"{"preStart":{"command":["sh","-c","exit 0"]}}"#).unwrap();
        fine.pre_start(&engine, &env).await.unwrap();
        let failed = of(r#"{"preStart":{"command":["sh","-c","echo why; exit 3"]}}"#).unwrap();
        let error = failed.pre_start(&engine, &env).await.unwrap_err().to_string();
        assert_eq!(error, "the preStart hook failed: exit status 3: why");
        let late = of(r#"{"preStart":{"command":["sleep","1000"],"timeoutSeconds":1}}"#).unwrap();
        assert!(late.pre_start(&engine, &env).await.unwrap_err().to_string().contains("timeout"));
    }
}
