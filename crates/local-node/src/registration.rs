//! The node's own objects: a Node that says what there is, and a Lease that says that it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};

/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long others believe a lease. Long, because a laptop sleeps.
const LEASE_SECONDS: i32 = 240;
/// Where leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// What the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of processors.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of disk below the state directory.
    pub disk: i64,
    /// Most pods.
    pub pods: u32,
}

impl Capacity {
    /// Reads it from the machine.
    pub fn of_machine(state_dir: &std::path::Path, pods: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<i64>().ok())
            .map_or(0, |kib| kib * 1024);
        let disk = nix::sys::statvfs::statvfs(state_dir)
            .map_or(0, |disk| (disk.blocks() as i64).saturating_mul(disk.fragment_size() as i64));
        Self { cpu_milli: cpus * 1000, memory, disk, pods }
    }

    fn quantities(&self) -> BTreeMap<String, Quantity> {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity((self.cpu_milli / 1000).to_string())),
            ("memory".to_owned(), Quantity(format!("{}Ki", self.memory / 1024))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", self.disk / 1024))),
            ("pods".to_owned(), Quantity(self.pods.to_string())),
        ])
    }
}

/// Labels that every Kubernetes node carries.
pub fn labels(name: &str) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    BTreeMap::from(
        [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", arch)]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

fn status(capacity: &Capacity, ip: &str, name: &str, since: Timestamp) -> NodeStatus {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |value| value.trim_matches('"').to_owned());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(since)),
        last_transition_time: Some(Time(since)),
    };
    NodeStatus {
        capacity: Some(capacity.quantities()),
        allocatable: Some(capacity.quantities()),
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_owned() },
            NodeAddress { type_: "Hostname".to_owned(), address: name.to_owned() },
        ]),
        conditions: Some(vec![condition("Ready", "True", "NodeReady", "pods can be started")]),
        node_info: Some(NodeSystemInfo {
            architecture: labels(name)["kubernetes.io/arch"].clone(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: format!("osb://{}", env!("CARGO_PKG_VERSION")),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            kubelet_version: format!("v1.36.0+osb-{}", env!("CARGO_PKG_VERSION")),
            machine_id: read("/etc/machine-id"),
            operating_system: "linux".to_owned(),
            os_image,
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

/// Makes the Node, or brings it up to date.
pub async fn register(client: &kube::Client, name: &str, ip: &str, capacity: &Capacity) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels(name)), ..ObjectMeta::default() },
        spec: Some(NodeSpec::default()),
        status: None,
    };
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let patch = serde_json::json!({"status": status(capacity, ip, name, Timestamp::now())});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Renews the lease until the task is dropped.
pub async fn heartbeat(client: kube::Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, LEASES);
    let mut timer = tokio::time::interval(HEARTBEAT);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if let Err(error) = renew(&leases, &name).await {
            tracing::debug!(%error, "node lease not renewed");
        }
    }
}

async fn renew(leases: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = serde_json::json!({"spec": {"renewTime": now}});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.to_owned()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}
