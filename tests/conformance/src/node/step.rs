//! What a case does to its pod or beside it.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, AttachParams, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, TypeMeta};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::case::{Command, Step};
use super::ground::Ground;

/// No command takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries out one step.
pub async fn take(ground: &Ground, pod: &str, step: &Step) -> anyhow::Result<()> {
    let pods = ground.pods();
    let parameters = PatchParams::default();
    match step {
        Step::Exec(command) => {
            let result = exec(&pods, pod, command).await;
            anyhow::ensure!(result["code"] == 0, "{:?}: {result}", command.command);
        }
        Step::Delete(options) => {
            let grace = options["gracePeriodSeconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
            let options = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
            pods.delete(pod, &options).await?;
        }
        Step::Patch(patch) => drop(pods.patch(pod, &parameters, &Patch::Strategic(patch)).await?),
        Step::PatchJson(patch) => {
            let patch = Patch::<Value>::Json(serde_json::from_value(patch.clone())?);
            pods.patch(pod, &parameters, &patch).await?;
        }
        Step::PatchStatus(patch) => drop(pods.patch_status(pod, &parameters, &Patch::Strategic(patch)).await?),
        Step::Resize(patch) => {
            pods.patch_subresource("resize", pod, &parameters, &Patch::Strategic(patch)).await?;
        }
        Step::Debug(patch) => {
            pods.patch_subresource("ephemeralcontainers", pod, &parameters, &Patch::Strategic(patch)).await?;
        }
        Step::Create(object) => create(ground, object).await?,
        Step::Apply(object) => {
            let (api, object) = dynamic(ground, object)?;
            let name = object.metadata.name.clone().unwrap_or_default();
            api.patch(&name, &parameters, &Patch::Merge(&object)).await?;
        }
    }
    Ok(())
}

/// Makes an object of the case.
pub async fn create(ground: &Ground, object: &Value) -> anyhow::Result<()> {
    let (api, object) = dynamic(ground, object)?;
    match api.create(&PostParams::default(), &object).await {
        // A case that runs again finds its objects.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => {
            other?;
            Ok(())
        }
    }
}

fn dynamic(ground: &Ground, object: &Value) -> anyhow::Result<(Api<DynamicObject>, DynamicObject)> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let TypeMeta { api_version, kind } = object.types.clone().context("an object without kind")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, version, &kind));
    Ok((Api::namespaced_with(ground.client.clone(), &ground.namespace, &resource), object))
}

/// Runs a command; gives its output and its exit code, or why it did not run.
pub async fn exec(pods: &Api<Pod>, pod: &str, command: &Command) -> Value {
    let run = async {
        let parameters = AttachParams::default().container(&command.container).stderr(false);
        let mut process = pods.exec(pod, &command.command, &parameters).await?;
        let status = process.take_status();
        let mut output = String::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut output).await?;
        }
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        anyhow::Ok((output, status))
    };
    match tokio::time::timeout(PATIENCE, run).await {
        Err(_) => json!({"failed": "no end in time"}),
        Ok(Err(error)) => json!({"failed": error.to_string()}),
        Ok(Ok((output, None))) => json!({"output": output, "failed": "no status"}),
        Ok(Ok((output, Some(status)))) => {
            let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
            let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
            match code.and_then(|code| code.message?.parse::<i32>().ok()) {
                Some(code) => json!({"output": output, "code": code}),
                None if status.status.as_deref() == Some("Success") => {
                    json!({"output": output, "code": 0})
                }
                None => json!({"output": output, "failed": status.message}),
            }
        }
    }
}
