//! Brings things up: a pod's sandbox, and one container in it.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::Api;

use super::context::Context;
use super::events::Kind;
use super::files;
use super::spec::{self, Bind, Inputs};
use crate::env::{self, NodeFacts};
use crate::images::{Credentials, Image, PullPolicy};
use crate::network::Network;
use crate::shim::client::{Shim, ShimError};
use crate::shim::proto::{FailureKind, LogSettings, Request, Root, Sandbox, StartContainer, SubPath, Tmpfs};
use crate::volumes::objects::Objects;
use crate::volumes::{PodVolumes, env_file};

/// Reason of a pod whose volumes are not there.
pub const NO_VOLUME: &str = "FailedMount";

/// Why a container does not run yet, as its waiting state says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Kubernetes' reason.
    pub reason: &'static str,
    /// Detail.
    pub message: String,
}

impl Trouble {
    fn new(reason: &'static str, error: impl std::fmt::Display) -> Self {
        Self { reason, message: error.to_string() }
    }
}

/// A pod's sandbox.
#[derive(Clone)]
pub struct Made {
    /// Its shim.
    pub shim: Shim,
    /// Its address.
    pub ip: String,
    /// The first process of its pid namespace, where its containers share one.
    pub pause_pid: Option<i32>,
}

/// Makes a pod's namespaces, address and generated files.
pub async fn sandbox(context: &Context, pod: &Pod) -> Result<Made, Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::new("FailedCreatePodSandBox", error);
    if pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false) {
        return Err(failed(&"hostUsers: false asks for a user namespace, which this node does not make"));
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let dir = context.pod_dir(&uid);
    // A pod whose volumes are not there gets neither an address nor processes.
    let facts = NodeFacts { pod_ip: String::new(), ..context.facts.clone() };
    context.volumes.prepare(pod, context, &facts).await.map_err(|error| {
        context.recorder.record(pod, None, Kind::Warning, "FailedMount", error.to_string());
        Trouble::new(NO_VOLUME, error)
    })?;
    let sandbox = Sandbox {
        pod_uid: uid.clone(),
        hostname: spec::hostname(pod),
        share_process_namespace: pod.spec.as_ref().and_then(|spec| spec.share_process_namespace) == Some(true),
        cgroup: format!("{}/{uid}", crate::cgroup::ROOT),
        pids_limit: context.pids_limit,
        sysctls: spec::sysctls(pod),
    };
    // Only the forks and namespaces are rationed: whoever waits for a registry keeps nobody from starting.
    let _permit = context.permits.acquire().await.map_err(|error| failed(&error))?;
    let shim = Shim::start(&dir, &sandbox).await.map_err(|error| failed(&error))?;
    let attached = async {
        let state = shim.state().await.map_err(|error| failed(&error))?;
        let namespace = Network::netns_of(state.shim_pid).map_err(|error| failed(&error))?;
        let address = context.network.attach(namespace, &uid).await.map_err(|error| failed(&error))?;
        let ip = address.ip.to_string();
        files::write(&dir.join("etc"), pod, &ip, &context.resolv_conf).map_err(|error| failed(&error))?;
        Ok((ip, state.pause_pid))
    }
    .await;
    match attached {
        Ok((ip, pause_pid)) => Ok(Made { shim, ip, pause_pid }),
        Err(trouble) => {
            let _ = shim.order(&Request::Shutdown).await;
            Err(trouble)
        }
    }
}

/// A container that is ready to start.
pub struct Prepared {
    /// Identity of the image.
    pub image_id: String,
    /// Full name of the image.
    pub image_name: String,
    /// Signal that ends the container gently.
    pub stop_signal: Option<i32>,
    /// The order to the shim.
    pub request: StartContainer,
}

/// Gets everything that a container needs: image, environment, volumes.
pub async fn prepare(
    context: &Arc<Context>,
    pod: &Pod,
    made: &Made,
    name: &str,
    attempt: u32,
) -> Result<Prepared, Trouble> {
    let config = |error: &dyn std::fmt::Display| Trouble::new("CreateContainerConfigError", error);
    let container = find(pod, name).ok_or_else(|| config(&format_args!("no container {name}")))?;
    let image = image(context, pod, container).await?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut facts = context.facts.clone();
    facts.pod_ip.clone_from(&made.ip);

    let volumes = context.volumes.prepare(pod, context.as_ref(), &facts).await.map_err(|error| {
        context.recorder.record(pod, None, Kind::Warning, "FailedMount", error.to_string());
        Trouble::new("ContainerCreating", error)
    })?;
    let mut objects = Objects::new(namespace);
    env::fetch(container, context.as_ref(), &mut objects).await.map_err(|error| config(&error))?;
    fetch_files(made, container, &volumes, &mut objects).await.map_err(|error| config(&error))?;
    let environment =
        env::resolve(pod, container, &image.config.env, &objects, &facts).map_err(|error| config(&error))?;
    let request = request(context, pod, container, made.pause_pid, attempt, &image, &environment, &volumes)?;
    let (image_id, image_name) = (image.id.clone(), image.reference.clone());
    Ok(Prepared { image_id, image_name, stop_signal: stop_signal(&image), request })
}

/// Reads the files that the container's environment comes from, as the pod's shim sees them.
async fn fetch_files(
    made: &Made,
    container: &Container,
    volumes: &PodVolumes,
    objects: &mut Objects,
) -> Result<(), String> {
    let sources = container.env.iter().flatten().filter_map(|entry| entry.value_from.as_ref()?.file_key_ref.as_ref());
    for of in sources {
        let volume =
            volumes.path(&of.volume_name).ok_or_else(|| format!("no volume {:?} in the pod", of.volume_name))?;
        let shim = made.shim.state().await.map_err(|error| error.to_string())?.shim_pid;
        let seen = PathBuf::from(format!("/proc/{shim}/root")).join(volume.strip_prefix("/").unwrap_or(volume));
        let path = PathBuf::from(&of.path);
        let read = tokio::task::spawn_blocking(move || env_file::read(&seen, &path)).await;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if let Some(variables) = read.map_err(|error| format!("{} of volume {}: {error}", of.path, of.volume_name))? {
            objects.insert_file(&of.volume_name, &of.path, variables);
        }
    }
    Ok(())
}

/// Starts a container.
pub async fn run(context: &Context, pod: &Pod, made: &Made, request: StartContainer) -> Result<(), Trouble> {
    let name = request.name.clone();
    let permit = context.permits.acquire().await.map_err(|error| Trouble::new("CreateContainerError", error))?;
    context.recorder.record(pod, Some(&name), Kind::Normal, "Created", format!("Created container: {name}"));
    let started = made.shim.order(&Request::Start(Box::new(request))).await;
    drop(permit);
    match started {
        Ok(()) => {
            context.recorder.record(pod, Some(&name), Kind::Normal, "Started", format!("Started container {name}"));
            Ok(())
        }
        Err(error) => {
            context.recorder.record(pod, Some(&name), Kind::Warning, "Failed", format!("Error: {error}"));
            let reason = match &error {
                ShimError::Failed { kind: FailureKind::Config, .. } => "CreateContainerConfigError",
                ShimError::Failed { kind: FailureKind::Start, .. } => "RunContainerError",
                _ => "CreateContainerError",
            };
            let mut message = error.to_string();
            if message.contains("runAsNonRoot") || message.contains("runAsUser") {
                let metadata = &pod.metadata;
                let [of, namespace, uid] = [&metadata.name, &metadata.namespace, &metadata.uid]
                    .map(|text| text.as_deref().unwrap_or_default());
                message = format!("{message} (pod: \"{of}_{namespace}({uid})\", container: {name})");
            }
            Err(Trouble::new(reason, message))
        }
    }
}

/// The container of a name, init or not.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

async fn image(context: &Arc<Context>, pod: &Pod, container: &Container) -> Result<Image, Trouble> {
    let reference = container.image.clone().unwrap_or_default();
    let policy = PullPolicy::of(container.image_pull_policy.as_deref(), &reference);
    let credentials = credentials(context, pod, &reference).await;
    let name = container.name.as_str();
    let started = std::time::Instant::now();
    let announced = std::sync::atomic::AtomicBool::new(false);
    let progress = |_| {
        if !announced.swap(true, std::sync::atomic::Ordering::Relaxed) {
            let message = format!("Pulling image {reference:?}");
            context.recorder.record(pod, Some(name), Kind::Normal, "Pulling", message);
        }
    };
    let result = context.images.ensure(&reference, policy, credentials, progress).await;
    match result {
        Ok(image) => {
            let message = if announced.load(std::sync::atomic::Ordering::Relaxed) {
                format!("Successfully pulled image {reference:?} in {} ms", started.elapsed().as_millis())
            } else if image.stand_in {
                format!("This machine's own files stand in for image {reference:?}")
            } else {
                format!("Container image {reference:?} already present on machine")
            };
            context.recorder.record(pod, Some(name), Kind::Normal, "Pulled", message);
            Ok(image)
        }
        Err(error) => {
            let message = format!("Failed to pull image {reference:?}: {error}");
            context.recorder.record(pod, Some(name), Kind::Warning, "Failed", message);
            Err(Trouble::new(error.reason(), error))
        }
    }
}

/// The first of the pod's pull secrets that knows the image's registry.
async fn credentials(context: &Context, pod: &Pod, reference: &str) -> Option<Credentials> {
    let secrets = pod.spec.as_ref()?.image_pull_secrets.as_ref()?;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), pod.metadata.namespace.as_deref()?);
    for secret in secrets {
        if let Ok(Some(found)) = api.get_opt(&secret.name).await
            && let Some(config) = found.data.as_ref().and_then(|data| data.get(".dockerconfigjson"))
            && let Some(credentials) = Credentials::from_docker_config(&config.0, reference)
        {
            return Some(credentials);
        }
    }
    None
}

#[expect(clippy::too_many_arguments, reason = "one caller; the parts are made one by one and used once")]
fn request(
    context: &Context,
    pod: &Pod,
    container: &Container,
    pause: Option<i32>,
    attempt: u32,
    image: &Image,
    environment: &[(String, String)],
    volumes: &PodVolumes,
) -> Result<StartContainer, Trouble> {
    let config = |error: &dyn std::fmt::Display| Trouble::new("CreateContainerConfigError", error);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let dir = context.pod_dir(&uid);
    let name = &container.name;
    let mut binds: Vec<Bind> = image
        .binds
        .iter()
        .map(|bind| Bind { source: bind.source.clone(), target: bind.target.clone(), read_only: true })
        .collect();
    let mut sub_paths = Vec::new();
    let mounts = volumes.mounts(container, environment).map_err(|error| config(&error))?;
    for mount in mounts {
        let source = match mount.sub_path {
            None => mount.source,
            Some(part) => {
                let target = dir.join("c").join(name).join("sub").join(sub_paths.len().to_string());
                sub_paths.push(SubPath { volume: mount.source, part, target: target.clone() });
                target
            }
        };
        binds.push(Bind { source, target: mount.target, read_only: mount.read_only });
    }
    for file in ["hosts", "hostname", "resolv.conf"] {
        let target = PathBuf::from("/etc").join(file);
        // A volume of the pod's own there wins.
        if !binds.iter().any(|bind| bind.target == target) {
            binds.push(Bind { source: dir.join("etc").join(file), target, read_only: false });
        }
    }
    let message_path = container.termination_message_path.clone().unwrap_or("/dev/termination-log".to_owned());
    let message_file = dir.join("c").join(name).join("termination-log");
    std::fs::create_dir_all(dir.join("c").join(name)).map_err(|error| config(&error))?;
    std::fs::write(&message_file, b"").map_err(|error| config(&error))?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&message_file, open).map_err(|error| config(&error))?;
    binds.push(Bind { source: message_file.clone(), target: message_path.into(), read_only: false });

    let cgroup = format!("{}/{uid}/{name}", crate::cgroup::ROOT);
    let spec = spec::build(&Inputs {
        pod,
        container,
        image: &image.config,
        environment,
        binds: &binds,
        cgroup: &cgroup,
        pid_namespace: pause.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid"))),
        pids_limit: context.pids_limit,
        allow_privileged: context.allow_privileged,
    })
    .map_err(|error| config(&error))?;
    Ok(StartContainer {
        name: name.clone(),
        attempt,
        id: format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()),
        spec,
        image: container.image.clone().unwrap_or_default(),
        root: Root { lower: image.lower.clone() },
        user: spec::user(pod, container, &image.config).map_err(|error| config(&error))?,
        log: LogSettings {
            path: crate::logs::path(&dir, name, attempt),
            max_bytes: context.log_max_bytes,
            max_files: context.log_max_files,
        },
        termination_message: Some(message_file),
        message_from_log: container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        seccomp: spec::seccomp(pod, container).map_err(|error| Trouble::new("CreateContainerError", error))?,
        tmpfs: volumes
            .tmpfs
            .iter()
            .map(|volume| Tmpfs { path: volume.path.clone(), size: volume.size, mode: 0o1777 })
            .collect(),
        sub_paths,
    })
}

fn stop_signal(image: &Image) -> Option<i32> {
    let text = image.config.stop_signal.as_deref()?;
    text.parse().ok().or_else(|| {
        let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
        name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
    })
}
