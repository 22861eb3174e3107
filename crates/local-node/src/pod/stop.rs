//! Takes things down: one container gently and then by force, and at last everything that a pod was.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use super::context::Context;
use super::events::Kind;
use super::probe::{self, Target};
use super::start::{Made, find};
use crate::shim::client::{Shim, ShimError};
use crate::shim::proto::{PodState, Request, Run};

/// Longest wait for a killed container to be told as ended.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// What a container has at least between its signal and its kill when it has any grace, as in Kubernetes.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// The pod whose containers are to end.
#[derive(Clone)]
pub struct Ending {
    /// What every worker shares.
    pub context: Arc<Context>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its sandbox.
    pub made: Made,
    /// What its containers do.
    pub state: watch::Receiver<PodState>,
}

/// Ends a container: its hook, its signal, its grace, and then the kill.
pub async fn container(ending: &Ending, name: &str, signal: Option<i32>, deadline: Instant) {
    let Ending { context, pod, made, state } = ending;
    let Some(run) = state.borrow().current(name).filter(|run| run.running()).cloned() else { return };
    context.recorder.record(pod, Some(name), Kind::Normal, "Killing", format!("Stopping container {name}"));
    let gently = async {
        if let (Some(container), Ok(ip)) = (find(pod, name), made.ip.parse())
            && let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        {
            let target = Target { shim: made.shim.clone(), ip, container: container.clone(), id: run.id.clone() };
            let patience = deadline.saturating_duration_since(Instant::now());
            if let Err(error) = probe::hook(&target, hook, patience).await {
                let message = format!("PreStopHook failed: {error}");
                context.recorder.record(pod, Some(name), Kind::Warning, "FailedPreStopHook", message);
            }
        }
        // A hook that took all the time leaves its container a little to end by itself.
        let deadline = deadline.max(Instant::now() + LEAST_GRACE);
        let signal = signal.unwrap_or(nix::sys::signal::Signal::SIGTERM as i32);
        let _ = made.shim.order(&Request::Signal { container: name.to_owned(), signal }).await;
        tokio::time::timeout_at(deadline, ended(state.clone(), name, &run.id)).await.is_ok()
    };
    if Instant::now() < deadline && gently.await {
        return;
    }
    let _ = made.shim.order(&Request::Kill { container: name.to_owned() }).await;
    let _ = tokio::time::timeout(KILL_PATIENCE, ended(state.clone(), name, &run.id)).await;
}

/// Waits until a run has ended, or its shim with it.
async fn ended(mut state: watch::Receiver<PodState>, name: &str, id: &str) {
    let over = |state: &PodState| state.current(name).is_none_or(|run: &Run| run.id != id || !run.running());
    // An error is the end of the shim, and nothing runs without it.
    let _ = state.wait_for(over).await;
}

/// Takes a pod's sandbox down: processes, mounts, control groups, interface and address. The logs stay.
pub async fn sandbox(context: &Context, uid: &str) {
    let shim = Shim::at(&context.pod_dir(uid));
    match shim.order(&Request::Shutdown).await {
        Ok(()) | Err(ShimError::Gone) => {}
        Err(error) => tracing::warn!(uid, %error, "shim did not shut down"),
    }
    let groups = context.groups.clone();
    let group = format!("{}/{uid}", crate::cgroup::ROOT);
    let swept = tokio::task::spawn_blocking(move || {
        groups.kill(&group, Duration::from_secs(5));
        groups.remove(&group)
    });
    if !matches!(swept.await, Ok(true)) {
        tracing::warn!(uid, "a control group of the pod could not be removed");
    }
    if let Err(error) = context.network.detach(uid).await {
        tracing::warn!(uid, %error, "pod not detached from the network");
    }
}

/// Removes everything that a pod was on this machine.
pub async fn everything(context: &Context, uid: &str) {
    sandbox(context, uid).await;
    let (dir, volumes, pod) = (context.pod_dir(uid), context.volumes.clone(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || volumes.remove(&pod).and(remove_dir(&dir))).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(uid, %error, "a pod's files could not be removed");
    }
}

fn remove_dir(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
