//! After a restart: every task is found again, by its record, its lock and its handle.

use std::sync::Arc;

use api_types::tasks::ProcessStatus;

use super::drive::{Run, follow};
use super::local::{Supervised, closed};
use super::{Manager, Phase, waiting};
use crate::execd::ExecdError;
use crate::store::{Record, Runner};
use crate::supervise::State;

/// Questions to an execd that does not answer, a second apart.
const PATIENCE: u32 = 10;

/// How a task fares and what runs it; nothing where it was never started.
type Found = Option<(ProcessStatus, Run)>;

impl Manager {
    /// Finds the tasks of the run before. What was never started is dropped: its caller asks again.
    pub async fn recover(self: &Arc<Self>) {
        for record in self.store.records() {
            let key = record.key();
            match self.find(&key, &record).await {
                Some((status, run)) => {
                    tracing::info!(task = record.task.name, ended = status.terminated.is_some(), "found again");
                    let phase = if status.terminated.is_some() { Phase::Ended } else { Phase::Active };
                    self.insert(&mut self.inner.lock(), key.clone(), record, status, phase, None);
                    tokio::spawn(follow(self.clone(), key, run));
                }
                None => self.store.remove(&self.store.task_dir(&key)),
            }
        }
        self.bump();
    }

    async fn find(&self, key: &str, record: &Record) -> Found {
        if let Some(ended) = &record.ended {
            let run = match &record.runner {
                Runner::Execd { handle, .. } => Run::Execd(handle.clone()),
                _ => Run::Nothing,
            };
            return Some((ended.clone(), run));
        }
        match &record.runner {
            Runner::Undecided => None,
            Runner::Local => self.find_local(key),
            Runner::Execd { handle, taken } => self.find_handed(handle, *taken).await,
        }
    }

    fn find_local(&self, key: &str) -> Found {
        let dir = self.store.task_dir(key);
        match Supervised::reattach(&dir) {
            Ok(Some(supervised)) => {
                let status = State::read(&dir).map(|s| s.status());
                let status = status.unwrap_or_else(|| waiting("Starting", "is being started"));
                Some((status, Run::Local(supervised)))
            }
            Ok(None) => closed(&dir).map(|s| (s.status(), Run::Nothing)),
            Err(error) => {
                tracing::debug!(task = key, %error, "no supervisor was started");
                closed(&dir).map(|s| (s.status(), Run::Nothing))
            }
        }
    }

    async fn find_handed(&self, handle: &str, taken: bool) -> Found {
        let running = || Some((waiting("Unknown", "execd has not answered yet"), Run::Execd(handle.to_owned())));
        let Some(execd) = self.settings.execd else { return if taken { running() } else { None } };
        for _ in 0..PATIENCE {
            match execd.status(handle, 0).await {
                Ok(status) => return Some((status, Run::Execd(handle.to_owned()))),
                // Its driver tells the loss as the task's end.
                Err(ExecdError::Unknown) if taken => return running(),
                Err(ExecdError::Unknown) => return None,
                Err(_) if taken => return running(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
            }
        }
        None
    }
}
