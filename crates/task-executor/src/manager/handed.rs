//! Following a task that execd runs.

use std::time::Duration;

use api_types::tasks::{Injection, ProcessStatus, Terminated};

use super::{Manager, stopped};
use crate::execd::{Execd, ExecdError, WAIT_SECONDS};
use crate::supervise::now;

/// Failed questions in a row after which the task is given up. They are a second apart.
const PATIENCE: u32 = 10;
/// Between questions that failed: the container may be restarting.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes over what execd tells.
pub fn told(manager: &Manager, key: &str, mut status: ProcessStatus) {
    status.injection = Some(Injection::Execd);
    if status.terminated.is_some() {
        // execd forgets with its container; a result must not.
        let dir = manager.store.task_dir(key);
        if let Some(entry) = manager.inner.lock().tasks.get_mut(key) {
            entry.record.ended = Some(status.clone());
            if let Err(error) = entry.record.write(&dir) {
                tracing::warn!(task = key, %error, "the task's result is not on disk");
            }
        }
    }
    manager.set_status(key, status);
}

fn lost(manager: &Manager, key: &str, why: &str) {
    let started_at = manager.inner.lock().tasks.get(key).and_then(|e| e.status.running.as_ref()?.started_at);
    let terminated = Terminated {
        exit_code: 137,
        signal: None,
        reason: Some("ProcessCrashed".into()),
        message: Some(why.into()),
        started_at,
        finished_at: Some(now()),
    };
    told(manager, key, ProcessStatus { terminated: Some(terminated), ..ProcessStatus::default() });
}

/// Until the task has ended; stops it when that is asked for.
pub async fn follow(manager: &Manager, key: &str, handle: &str) {
    let (Some(execd), Some(mut stop)) = (manager.settings.execd, manager.stop_of(key)) else { return };
    let mut failures = 0;
    loop {
        let ended = manager.inner.lock().tasks.get(key).is_none_or(|e| e.status.terminated.is_some());
        if ended {
            break;
        }
        let news = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            news = execd.status(handle, WAIT_SECONDS) => news,
        };
        match news {
            Ok(status) => {
                failures = 0;
                told(manager, key, status);
            }
            Err(ExecdError::Unknown) => lost(manager, key, "execd in the sandbox container was restarted"),
            Err(error) if failures >= PATIENCE => {
                lost(manager, key, &format!("execd in the sandbox container is gone: {error}"));
            }
            Err(_) => {
                failures += 1;
                let _ = tokio::time::timeout(PAUSE, stopped(&mut stop)).await;
            }
        }
    }
    // Also when it has ended by itself: something of its group may be left.
    stopped(&mut stop).await;
    end(manager, execd, key, handle).await;
}

async fn end(manager: &Manager, execd: Execd, key: &str, handle: &str) {
    for _ in 0..3 {
        match execd.stop(handle, manager.settings.grace).await {
            Ok(status) => return told(manager, key, status),
            Err(ExecdError::Unknown | ExecdError::NotThere(_)) => return,
            Err(error) => tracing::warn!(task = key, %error, "execd could not be asked to stop the task"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
