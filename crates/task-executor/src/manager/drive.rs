//! The life of one task, from its place in the queue to its removal.

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::tasks::TaskHandOver;
use uuid::Uuid;

use super::{Manager, Phase, Started, handed, local, stopped, waiting};
use crate::error::ApiError;
use crate::execd::ExecdError;
use crate::store::{Record, Role, Runner};
use crate::supervise::{Plan, Where};
use crate::target::{Mode, Place, World};

/// Drives a task that has just been asked for.
pub async fn new_task(manager: Arc<Manager>, key: String, started: Started) {
    let mut started = Some(started);
    if !take_place(&manager, &key, &mut started).await {
        manager.remove(&key);
        return;
    }
    match begin(&manager, &key).await {
        Ok(run) => {
            if let Some(started) = started {
                let _ = started.send(Ok(()));
            }
            follow(manager, key, run).await;
        }
        Err(error) => {
            manager.remove(&key);
            match started {
                Some(started) => drop(started.send(Err(error))),
                None => tracing::warn!(task = key, %error, "the task could not be started"),
            }
        }
    }
}

/// What runs a task.
pub enum Run {
    /// A supervisor of ours.
    Local(local::Supervised),
    /// execd, under this handle.
    Execd(String),
    /// Nothing any more.
    Nothing,
}

/// Follows a task to its end, waits until it is not wanted any more, and removes it.
pub async fn follow(manager: Arc<Manager>, key: String, run: Run) {
    match run {
        Run::Local(supervised) => local::follow(&manager, &key, supervised).await,
        Run::Execd(handle) => handed::follow(&manager, &key, &handle).await,
        Run::Nothing => {}
    }
    if let Some(mut stop) = manager.stop_of(&key) {
        stopped(&mut stop).await;
    }
    manager.remove(&key);
}

impl Manager {
    pub(super) fn stop_of(&self, key: &str) -> Option<tokio::sync::watch::Receiver<bool>> {
        self.inner.lock().tasks.get(key).map(|e| e.stop.subscribe())
    }

    pub(super) fn record(&self, key: &str) -> Option<Record> {
        self.inner.lock().tasks.get(key).map(|e| e.record.clone())
    }

    /// Notes who runs the task, on disk before anything is started.
    pub(super) fn decide(&self, key: &str, runner: Runner) -> Result<(), ApiError> {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.tasks.get_mut(key) else { return Err(ApiError::internal("the task is gone")) };
        entry.record.runner = runner;
        entry.record.write(&self.store.task_dir(key)).map_err(|e| ApiError::storage(&e))
    }

    /// Takes a place if one is free and no older task waits for it.
    fn try_place(&self, key: &str) -> bool {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.tasks.get(key) else { return false };
        let (order, role) = (entry.order, entry.record.role);
        let older = |e: &super::Entry| {
            e.record.role == Role::Task && e.phase == Phase::Waiting && !e.deleting() && e.order < order
        };
        let free = self.settings.max_active.saturating_sub(inner.occupied());
        if role == Role::Task && inner.tasks.values().filter(|e| older(e)).count() >= free {
            return false;
        }
        if let Some(entry) = inner.tasks.get_mut(key) {
            entry.phase = Phase::Active;
            entry.status = waiting("Starting", "is being started");
        }
        true
    }
}

/// Waits for a place; whether it got one before it was stopped.
async fn take_place(manager: &Manager, key: &str, started: &mut Option<Started>) -> bool {
    let mut changes = manager.changes.subscribe();
    let Some(mut stop) = manager.stop_of(key) else { return false };
    loop {
        changes.borrow_and_update();
        if *stop.borrow_and_update() {
            return false;
        }
        if manager.try_place(key) {
            return true;
        }
        if let Some(started) = started.take() {
            let _ = started.send(Ok(()));
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = stop.changed() => {}
        }
    }
}

/// Starts the task by the first way that is open.
async fn begin(manager: &Arc<Manager>, key: &str) -> Result<Run, ApiError> {
    if let Some(run) = hand_over(manager, key).await? {
        return Ok(run);
    }
    let record = manager.record(key).ok_or_else(|| ApiError::internal("the task is gone"))?;
    let world = tokio::task::spawn_blocking(World::look).await.map_err(|e| ApiError::internal(e.to_string()))?;
    let settings = &manager.settings;
    let place = match world.place(settings.mode, settings.main_container.as_deref()) {
        Ok(Place::Own) => Where::Own,
        Ok(Place::Container(id)) => Where::Container(id),
        Err(error) => return Err(ApiError::new(ErrorCode::NoSandboxContainer, error.to_string())),
    };
    let process = record.task.process.unwrap_or_default();
    let mut env: Vec<(String, String)> = manager.claims.env().into_iter().collect();
    env.extend(process.env.into_iter().map(|e| (e.name, e.value)));
    let plan = Plan {
        argv: process.command.into_iter().chain(process.args).collect(),
        env,
        cwd: process.working_dir.filter(|d| !d.is_empty()),
        timeout_seconds: process.timeout_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0),
        grace_ms: settings.grace * 1000,
        output_limit: settings.output_limit,
        place,
    };
    manager.decide(key, Runner::Local)?;
    local::start(manager, key, plan).await.map(Run::Local)
}

/// Hands the task to execd; `None` where that is not there.
async fn hand_over(manager: &Arc<Manager>, key: &str) -> Result<Option<Run>, ApiError> {
    let (Some(execd), true) = (manager.settings.execd, manager.settings.mode != Mode::Host) else { return Ok(None) };
    let asked = manager.inner.lock().tasks.get(key).map(|e| (e.record.task.name.clone(), e.authority.clone()));
    let Some((name, Some(authority))) = asked else { return Ok(None) };
    let connection = match execd.connect().await {
        Ok(connection) => connection,
        Err(why) => {
            tracing::debug!(%why, "no execd");
            return Ok(None);
        }
    };
    let handle = Uuid::new_v4().simple().to_string();
    manager.decide(key, Runner::Execd { handle: handle.clone(), taken: false })?;
    let over = TaskHandOver {
        name,
        handle: handle.clone(),
        signed_body: authority.body.clone(),
        signature: authority.signature.clone(),
        env: manager.claims.env(),
    };
    let outcome = match connection.start(&over).await {
        // It may have been taken before the answer was lost.
        Err(ExecdError::Lost(why)) => {
            tracing::warn!(why, "execd's answer was lost; asking again");
            execd.status(&handle, 0).await
        }
        outcome => outcome,
    };
    match outcome {
        Ok(status) => {
            // The handle is on disk already: without this note the next run only trusts it less.
            if let Err(error) = manager.decide(key, Runner::Execd { handle: handle.clone(), taken: true }) {
                tracing::warn!(task = key, %error, "that execd took the task is not on disk");
            }
            handed::told(manager, key, status);
            Ok(Some(Run::Execd(handle)))
        }
        Err(ExecdError::Refused(error)) => Err(error),
        Err(why) => {
            tracing::info!(%why, "the task is not handed to execd");
            Ok(None)
        }
    }
}
