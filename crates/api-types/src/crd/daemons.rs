//! Which of our daemons a pod template carries, and the key they are given.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec};

use crate::names::{EXECD_PORT, TASK_EXECUTOR_PORT, env};

/// The containers of a pod in which our daemons run, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemons {
    /// The container that execd serves.
    pub execd: Option<String>,
    /// The container that is task-executor, or starts it.
    pub task_executor: Option<String>,
}

impl Daemons {
    /// Reads a pod: a container declares a daemon by its port, by the variable that names execd,
    /// by starting through `bootstrap.sh`, or by its image.
    pub fn of(pod: &PodSpec) -> Self {
        let named = |f: &dyn Fn(&Container) -> bool| pod.containers.iter().find(|c| f(c)).map(|c| c.name.clone());
        Self { execd: named(&runs_execd), task_executor: named(&runs_task_executor) }
    }
}

fn has_port(container: &Container, port: u16) -> bool {
    container.ports.iter().flatten().any(|p| p.container_port == i32::from(port))
}

/// The words of what a container runs, those inside of a shell's script too.
fn words(container: &Container) -> impl Iterator<Item = &str> {
    let arguments = container.command.iter().flatten().chain(container.args.iter().flatten());
    arguments.flat_map(|a| a.split(|c: char| c.is_whitespace() || ";&|()\"'".contains(c)))
}

fn runs_execd(container: &Container) -> bool {
    has_port(container, EXECD_PORT)
        || container.env.iter().flatten().any(|e| e.name == env::EXECD)
        || words(container).any(|w| w.ends_with("/bootstrap.sh") || w.ends_with("/execd"))
}

fn runs_task_executor(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    has_port(container, TASK_EXECUTOR_PORT)
        || name.split([':', '@']).next() == Some("task-executor")
        || words(container).any(|w| w.ends_with("/task-executor"))
}

/// Gives the daemons of a pod the platform's public key and the pod's UID. What the template says
/// of these two variables is replaced: a template must not be able to choose another key.
pub fn keyed_template(pod: &mut PodSpec, daemon_key: &str) {
    for container in &mut pod.containers {
        if !runs_execd(container) && !runs_task_executor(container) {
            continue;
        }
        let vars = container.env.get_or_insert_default();
        vars.retain(|e| e.name != env::DAEMON_KEY && e.name != env::POD_UID);
        vars.push(EnvVar { name: env::DAEMON_KEY.to_owned(), value: Some(daemon_key.to_owned()), value_from: None });
        vars.push(EnvVar {
            name: env::POD_UID.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { api_version: None, field_path: "metadata.uid".to_owned() }),
                ..EnvVarSource::default()
            }),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed_pod() -> PodSpec {
        serde_json::from_value(serde_json::json!({
            "containers": [
                {"name": "sandbox-container", "image": "nginx:latest",
                 "command": ["/opt/opensandbox/bin/bootstrap.sh", "sleep", "infinity"],
                 "env": [{"name": "EXECD", "value": "/opt/opensandbox/bin/execd"}, {"name": "OPENSANDBOX_DAEMON_KEY", "value": "mine"}],
                 "ports": [{"containerPort": 44772}]},
                {"name": "task-executor", "image": "opensandbox/task-executor:dev", "ports": [{"containerPort": 5758}]},
                {"name": "logger", "image": "busybox"}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn the_daemons_are_found() {
        let found = Daemons::of(&seed_pod());
        assert_eq!(found.execd.as_deref(), Some("sandbox-container"));
        assert_eq!(found.task_executor.as_deref(), Some("task-executor"));
        assert_eq!(Daemons::of(&PodSpec::default()), Daemons::default());
    }

    #[test]
    fn daemons_that_a_script_starts_are_found() {
        let script = "/opt/opensandbox/task-executor -listen-addr=0.0.0.0:5758 & exec \"/opt/opensandbox/execd\"";
        let pod: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "main", "command": ["/bin/sh", "-c", script]}]}))
        .unwrap();
        let found = Daemons::of(&pod);
        assert_eq!((found.execd.as_deref(), found.task_executor.as_deref()), (Some("main"), Some("main")));
    }

    #[test]
    fn only_daemons_get_the_key_and_none_keeps_its_own() {
        let mut pod = seed_pod();
        keyed_template(&mut pod, "the-key");
        keyed_template(&mut pod, "the-key");
        for container in &pod.containers[..2] {
            let keys: Vec<_> = container.env.iter().flatten().filter(|e| e.name == env::DAEMON_KEY).collect();
            assert_eq!(keys.len(), 1, "{}", container.name);
            assert_eq!(keys[0].value.as_deref(), Some("the-key"));
        }
        assert_eq!(pod.containers[2].env, None);
    }
}
