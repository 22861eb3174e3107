//! From a Pod's container to the runtime's specification: a pure function, and the rules behind it.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};

use super::quantity;
use crate::env;
use crate::images::ImageDefaults;
use crate::shim::proto::UserRequest;

/// `PATH` of an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What containerd and Docker give a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A path of the host that appears in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Not writable.
    pub read_only: bool,
}

/// What the specification is made from.
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The image's defaults.
    pub image: &'a ImageDefaults,
    /// The environment, in order; later entries win.
    pub environment: &'a [(String, String)],
    /// The image's own parts, volumes and generated files; what lies below another comes after it.
    pub binds: &'a [Bind],
    /// The container's control group from the hierarchies' roots.
    pub cgroup: &'a str,
    /// The pod's pid namespace when it is shared.
    pub pid_namespace: Option<PathBuf>,
    /// Most processes in the container.
    pub pids_limit: u64,
    /// Whether `privileged` may be granted.
    pub allow_privileged: bool,
}

/// Why there can be no specification: the container waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// `privileged: true` where the node does not allow it.
    #[error("privileged containers are not allowed on this node")]
    Privileged,
    /// A capability that does not exist.
    #[error("unknown capability {0:?}")]
    Capability(String),
    /// A user or group id out of range.
    #[error("{0} must be between 0 and 4294967295")]
    Id(&'static str),
    /// A seccomp profile that is not there.
    #[error("seccompProfile {0} is not supported by this node")]
    Seccomp(String),
    /// A feature of the host that the pod may not have.
    #[error("{0} is not supported by this node")]
    Unsupported(&'static str),
    /// A value that the runtime's specification does not take.
    #[error("{0}")]
    Value(String),
}

impl From<oci_spec::OciSpecError> for SpecError {
    fn from(error: oci_spec::OciSpecError) -> Self {
        Self::Value(error.to_string())
    }
}

/// The specification of a container, all but its user, which needs the image's files.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, SpecError> {
    let security = inputs.container.security_context.clone().unwrap_or_default();
    if security.privileged == Some(true) && !inputs.allow_privileged {
        return Err(SpecError::Privileged);
    }
    let pod = inputs.pod.spec.clone().unwrap_or_default();
    for (asked, what) in [(pod.host_network, "hostNetwork"), (pod.host_pid, "hostPID"), (pod.host_ipc, "hostIPC")] {
        if asked == Some(true) {
            return Err(SpecError::Unsupported(what));
        }
    }
    let root =
        RootBuilder::default().path("rootfs").readonly(security.read_only_root_filesystem == Some(true)).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .mounts(mounts(inputs.binds)?)
        .process(process(inputs, &security)?)
        .linux(linux(inputs, &security)?)
        .build()?;
    // The host name is the sandbox's, not the container's, to set.
    spec.set_hostname(None);
    Ok(spec)
}

fn process(inputs: &Inputs<'_>, security: &SecurityContext) -> Result<Process, SpecError> {
    let arguments =
        env::arguments(inputs.container, &inputs.image.entrypoint, &inputs.image.command, inputs.environment);
    if arguments.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let mut environment: Vec<String> = Vec::new();
    if !inputs.environment.iter().any(|(name, _)| name == "PATH") {
        environment.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !inputs.environment.iter().any(|(name, _)| name == "HOSTNAME") {
        environment.push(format!("HOSTNAME={}", hostname(inputs.pod)));
    }
    environment.extend(inputs.environment.iter().map(|(name, value)| format!("{name}={value}")));
    let directory = inputs
        .container
        .working_dir
        .clone()
        .or_else(|| inputs.image.working_dir.clone())
        .filter(|dir| !dir.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    let mut process = ProcessBuilder::default()
        .args(arguments)
        .env(environment)
        .cwd(directory)
        .terminal(inputs.container.tty == Some(true))
        .build()?;
    process.set_rlimits(None);
    let held = capabilities(security)?;
    let mut capabilities =
        LinuxCapabilitiesBuilder::default().bounding(held.clone()).effective(held.clone()).permitted(held).build()?;
    // Inheritable capabilities would pass to every program that is executed by a user who is not root.
    capabilities.set_inheritable(Some(Capabilities::new())).set_ambient(Some(Capabilities::new()));
    process.set_capabilities(Some(capabilities));
    process.set_no_new_privileges(Some(security.allow_privilege_escalation == Some(false)));
    Ok(process)
}

fn capabilities(security: &SecurityContext) -> Result<Capabilities, SpecError> {
    let parse = |name: &str| -> Result<Capability, SpecError> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        // The specification's own spelling is with the prefix.
        serde_json::from_value(serde_json::Value::String(format!("CAP_{bare}")))
            .map_err(|_| SpecError::Capability(name.to_owned()))
    };
    let every = || -> Capabilities {
        caps::all().iter().filter_map(|capability| parse(&capability.to_string()).ok()).collect()
    };
    if security.privileged == Some(true) {
        return Ok(every());
    }
    let mut held: Capabilities = DEFAULT_CAPABILITIES.iter().map(|name| parse(name)).collect::<Result<_, _>>()?;
    let Some(asked) = &security.capabilities else { return Ok(held) };
    let (add, drop) = (asked.add.as_deref().unwrap_or_default(), asked.drop.as_deref().unwrap_or_default());
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    if all(add) {
        held = every();
    }
    if all(drop) {
        held.clear();
    }
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        held.remove(&parse(name)?);
    }
    for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        held.insert(parse(name)?);
    }
    Ok(held)
}

fn linux(inputs: &Inputs<'_>, security: &SecurityContext) -> Result<Linux, SpecError> {
    let privileged = security.privileged == Some(true);
    let paths = |list: &[&str]| -> Vec<String> {
        if privileged { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let mut pid = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
    if let Some(path) = &inputs.pid_namespace {
        pid = pid.path(path.clone());
    }
    // Network, host name and IPC are the shim's own namespaces, which every container of the pod is born into.
    let namespaces: Vec<LinuxNamespace> =
        vec![pid.build()?, LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount).build()?];
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .cgroups_path(format!("/{}", inputs.cgroup))
        .resources(resources(inputs, privileged)?)
        .masked_paths(paths(&MASKED_PATHS))
        .readonly_paths(paths(&READ_ONLY_PATHS))
        .build()?;
    linux.set_devices(None);
    Ok(linux)
}

fn resources(inputs: &Inputs<'_>, privileged: bool) -> Result<LinuxResources, SpecError> {
    let asked = inputs.container.resources.clone().unwrap_or_default();
    let (limits, requests) = (asked.limits.unwrap_or_default(), asked.requests.unwrap_or_default());
    let number = |quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>, cpu: bool| {
        quantity.and_then(|q| if cpu { quantity::milli(q) } else { quantity::units(q) })
    };
    let mut resources = LinuxResourcesBuilder::default()
        .devices(vec![LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build()?])
        .pids(LinuxPidsBuilder::default().limit(inputs.pids_limit as i64).build()?);
    let cpu_limit = number(limits.get("cpu"), true);
    let request = number(requests.get("cpu"), true).or(cpu_limit).unwrap_or(0);
    // A thousandth of a processor is 1.024 shares, of at least 2.
    let mut cpu = LinuxCpuBuilder::default().shares((request * 1024 / 1000).clamp(2, 262_144) as u64);
    if let Some(limit) = cpu_limit.filter(|limit| *limit > 0) {
        cpu = cpu.period(100_000u64).quota((limit * 100).max(1000));
    }
    resources = resources.cpu(cpu.build()?);
    if let Some(limit) = number(limits.get("memory"), false).filter(|limit| *limit > 0) {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(limit).build()?);
    }
    Ok(resources.build()?)
}

fn mounts(binds: &[Bind]) -> Result<Vec<Mount>, SpecError> {
    let system = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"][..]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let mut mounts = Vec::with_capacity(system.len() + binds.len());
    for (target, kind, source, options) in system {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        mounts.push(MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()?);
    }
    for bind in binds {
        // Read-only holds for one mount: what is mounted below on the host is left out rather than left writable.
        let options = if bind.read_only { ["bind", "rprivate", "ro"] } else { ["rbind", "rprivate", "rw"] };
        mounts.push(
            MountBuilder::default()
                .destination(bind.target.clone())
                .typ("bind")
                .source(bind.source.clone())
                .options(options.map(str::to_owned).to_vec())
                .build()?,
        );
    }
    Ok(mounts)
}

/// Who the container runs as, as far as the pod says.
pub fn user(pod: &Pod, container: &Container, image: &ImageDefaults) -> Result<UserRequest, SpecError> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id =
        |value: Option<i64>, what| value.map(|value| u32::try_from(value).map_err(|_| SpecError::Id(what))).transpose();
    let mut extra_groups = Vec::new();
    for group in of_pod.supplemental_groups.unwrap_or_default().into_iter().chain(of_pod.fs_group) {
        extra_groups.push(u32::try_from(group).map_err(|_| SpecError::Id("a supplementary group"))?);
    }
    Ok(UserRequest {
        uid: id(own.run_as_user.or(of_pod.run_as_user), "runAsUser")?,
        gid: id(own.run_as_group.or(of_pod.run_as_group), "runAsGroup")?,
        image_user: image.user.clone().filter(|user| !user.is_empty()),
        non_root: own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true),
        extra_groups,
    })
}

/// Whether the default system call filter is asked for.
pub fn seccomp(pod: &Pod, container: &Container) -> Result<bool, SpecError> {
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.seccomp_profile.as_ref());
    match own.or(of_pod).map(|profile| profile.type_.as_str()) {
        None | Some("Unconfined") => Ok(false),
        Some("RuntimeDefault") => Ok(true),
        Some(other) => Err(SpecError::Seccomp(other.to_owned())),
    }
}

/// Sysctls that concern the pod's own namespaces alone, as Kubernetes lists them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The sysctls that the pod asks for, as paths below `/proc/sys`, and their values.
pub fn sysctls(pod: &Pod) -> Vec<(String, String)> {
    let asked = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref());
    asked.into_iter().flatten().map(|sysctl| (dotted(&sysctl.name).replace('.', "/"), sysctl.value.clone())).collect()
}

/// The first sysctl of the pod that is not known to be safe.
pub fn unsafe_sysctl(pod: &Pod) -> Option<String> {
    let asked = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref());
    asked
        .into_iter()
        .flatten()
        .map(|sysctl| &sysctl.name)
        .find(|name| !SAFE_SYSCTLS.contains(&dotted(name).as_str()))
        .cloned()
}

/// A sysctl's name may be written with slashes.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

/// The pod's host name: `spec.hostname`, or its name cut to what a host name may be.
pub fn hostname(pod: &Pod) -> String {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty())
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
