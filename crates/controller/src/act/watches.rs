//! Long polls in the background: one for each entrypoint, one for each pod with tasks.

use std::sync::Arc;
use std::time::Duration;

use api_types::execd::EntrypointState;
use api_types::ids::PodUid;
use api_types::names::{EXECD_PORT, TASK_EXECUTOR_PORT};
use api_types::tasks::Task;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Context;
use crate::daemons::{DaemonAddress, DaemonError, TaskList};
use crate::planner::batch::TaskWatch;
use crate::world::{BatchSnapshot, ObjectName, PodView, TasksSeen, Uid};

/// How long one poll is held: below the 55 s that daemons grant.
const HOLD: Duration = Duration::from_secs(50);
/// An answer sooner than this, with nothing new in it, comes from an executor that does not hold requests.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How often such an executor is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// First and longest wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Failures in a row after which nothing is known of an executor's tasks.
const SILENT_AFTER: u32 = 5;

/// What is being watched, by BatchSandbox.
#[derive(Default)]
pub(crate) struct Watches {
    running: Mutex<HashMap<ObjectName, HashMap<Uid, Watch>>>,
    marking: Mutex<HashSet<Uid>>,
}

struct Watch {
    /// What was asked to be set, for pods with tasks.
    tasks: Option<Vec<Task>>,
    handle: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Watches {
    /// Starts what is missing and ends what is not wanted any more.
    pub(super) fn keep(
        &self,
        ctx: &Arc<Context>,
        name: &ObjectName,
        s: &BatchSnapshot,
        entrypoints: &[PodView],
        tasks: &[TaskWatch],
    ) {
        let mut running = self.running.lock();
        if entrypoints.is_empty() && tasks.is_empty() {
            running.remove(name);
            return;
        }
        let of_batch = running.entry(name.clone()).or_default();
        let wanted: HashMap<&Uid, Option<&Vec<Task>>> = entrypoints
            .iter()
            .map(|p| (&p.uid, None))
            .chain(tasks.iter().map(|w| (&w.pod.uid, Some(&w.tasks))))
            .collect();
        of_batch.retain(|pod, watch| wanted.get(pod).is_some_and(|w| *w == watch.tasks.as_ref()));
        for pod in entrypoints {
            of_batch.entry(pod.uid.clone()).or_insert_with(|| Watch {
                tasks: None,
                handle: ctx.spawn(watch_entrypoint(ctx.clone(), s.uid.clone(), pod.clone())),
            });
        }
        for watch in tasks {
            of_batch.entry(watch.pod.uid.clone()).or_insert_with(|| Watch {
                tasks: Some(watch.tasks.clone()),
                handle: ctx.spawn(watch_tasks(ctx.clone(), s.uid.clone(), watch.pod.clone(), watch.tasks.clone())),
            });
        }
    }

    /// Ends all of a BatchSandbox that is gone.
    pub(super) fn forget(&self, name: &ObjectName) {
        self.running.lock().remove(name);
    }

    /// Ends everything.
    pub(crate) fn clear(&self) {
        self.running.lock().clear();
    }

    /// Whether nobody else labels this pod now; ended by [`Watches::end_mark`].
    pub(super) fn begin_mark(&self, pod: &Uid) -> bool {
        self.marking.lock().insert(pod.clone())
    }

    pub(super) fn end_mark(&self, pod: &Uid) {
        self.marking.lock().remove(pod);
    }
}

fn address(pod: &PodView, port: u16) -> DaemonAddress {
    DaemonAddress { ip: pod.ip.clone().unwrap_or_default(), port, pod: PodUid::new(&*pod.uid) }
}

async fn watch_entrypoint(ctx: Arc<Context>, batch: Uid, pod: PodView) {
    let at = address(&pod, EXECD_PORT);
    let mut wait = RETRY.0;
    loop {
        let asked = Instant::now();
        match ctx.daemons.entrypoint(&at, HOLD).await {
            Ok(status) => {
                let over = status.state == EntrypointState::Exited;
                ctx.update(|world| world.observe_entrypoint(&batch, &pod.uid, status));
                if over {
                    return;
                }
                wait = RETRY.0;
                if asked.elapsed() < AT_ONCE {
                    tokio::time::sleep(INTERVAL).await;
                }
            }
            Err(DaemonError::Unknown) => return,
            Err(error) => {
                tracing::debug!(pod = %pod.name, %error, "entrypoint not seen");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// Sets the tasks, then follows them until all have ended.
async fn watch_tasks(ctx: Arc<Context>, batch: Uid, pod: PodView, tasks: Vec<Task>) {
    let at = address(&pod, TASK_EXECUTOR_PORT);
    let (mut wait, mut failures) = (RETRY.0, 0u32);
    // What is known of the executor's list; nothing before the tasks were set.
    let mut seen: Option<TaskList> = None;
    loop {
        let answer = match &seen {
            None => set_tasks(&ctx, &at, &tasks).await.map(|tasks| TaskList { tasks, tag: None }),
            Some(list) => ctx.daemons.tasks(&at, list.tag.as_deref(), HOLD).await,
        };
        let list = match answer {
            Ok(list) => list,
            Err(error) => {
                failures += 1;
                let final_word = matches!(error, DaemonError::Rejected { .. } | DaemonError::Refused { .. });
                if final_word || failures >= SILENT_AFTER {
                    let seen = TasksSeen::Silent(error.to_string());
                    ctx.update(|world| world.observe_tasks(&batch, &pod.uid, seen));
                }
                tokio::time::sleep(if final_word { RETRY.1 } else { wait }).await;
                wait = (wait * 2).min(RETRY.1);
                continue;
            }
        };
        (wait, failures) = (RETRY.0, 0);
        ctx.update(|world| world.observe_tasks(&batch, &pod.uid, TasksSeen::Listed(list.tasks.clone())));
        if is_over(&tasks, &list.tasks) {
            return;
        }
        // A task that is not listed any more was lost by its executor: it is set again.
        let lost = tasks.iter().any(|t| list.tasks.iter().all(|l| l.name != t.name));
        let was_set = seen.is_some();
        if was_set && list.tag.is_none() || lost {
            tokio::time::sleep(INTERVAL).await;
        }
        seen = (!lost).then_some(list);
    }
}

async fn set_tasks(ctx: &Context, at: &DaemonAddress, tasks: &[Task]) -> Result<Vec<Task>, DaemonError> {
    let Ok(_permit) = ctx.calls.acquire().await else {
        return Err(DaemonError::Unreachable("the controller ends".to_owned()));
    };
    ctx.daemons.set_tasks(at, tasks).await
}

/// Whether there is nothing more to see: all have ended, or all that was to go is gone.
fn is_over(wanted: &[Task], listed: &[Task]) -> bool {
    let ended = |t: &Task| t.process_status.as_ref().is_some_and(|p| p.terminated.is_some());
    if wanted.is_empty() {
        return listed.iter().all(ended);
    }
    wanted.iter().all(|w| listed.iter().any(|l| l.name == w.name && ended(l)))
}
