//! Pod network: one bridge, a pair of interfaces and an address for each pod.

mod ipam;
mod netlink;
mod rules;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use ipam::Ipam;
use netlink::{Link, Netlink, Route};
use worker::{Attachment, Worker};

/// The network that pods get unless it is taken.
pub const DEFAULT_CIDR: &str = "10.88.0.0/16";

const BRIDGE_PREFIX: &str = "osb";
const STATE_FILE: &str = "network.json";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Bridges of ours that one machine may have.
const MAX_BRIDGES: u32 = 16;

/// What the network is made from.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Where addresses and what was changed on the machine are written down.
    pub state_dir: PathBuf,
    /// Name of the bridge; the first free of `osb0`, `osb1`, ... when none is given.
    pub bridge: Option<String>,
    /// Network of the pods; when none is given, `10.88.0.0/16` or the next /16 that nothing on the machine uses.
    pub cidr: Option<Ipv4Net>,
}

impl NetworkConfig {
    /// Bridge and network chosen by what is free.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), bridge: None, cidr: None }
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The network given is in use.
    #[error("the pod network {cidr} overlaps {route}, which this machine already routes; choose another")]
    Overlap {
        /// Asked for.
        cidr: Ipv4Net,
        /// In use.
        route: Ipv4Net,
    },
    /// The network given cannot hold pods.
    #[error("the pod network {0} is too small or too large; its prefix must be between 8 and 29 bits")]
    Size(Ipv4Net),
    /// Nothing is free.
    #[error("no network between 10.88.0.0 and 10.254.0.0 is free on this machine; name one")]
    NoneFree,
    /// The bridge belongs to somebody else.
    #[error("the bridge {bridge} belongs to {owner}")]
    BridgeTaken {
        /// Bridge.
        bridge: String,
        /// Who made it.
        owner: String,
    },
    /// Every address is in use.
    #[error("no address is left in {0}")]
    Exhausted(Ipv4Net),
    /// The kernel or the disk refused.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Io { what, source }
}

/// A pod's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// Address.
    pub ip: Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix: u8,
    /// Default gateway, which is this machine.
    pub gateway: Ipv4Addr,
    /// Name of the pod's interface on the host.
    pub interface: String,
}

/// What was decided at the first start, and what has to be undone at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    bridge: String,
    cidr: Ipv4Net,
    rules: Option<rules::Tool>,
    forwarding_was_off: bool,
}

/// The pods' network. Clones share it.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state_dir: PathBuf,
    record: Record,
    bridge_index: u32,
    mtu: u32,
    ipam: Mutex<Ipam>,
    /// Removal of interfaces waits for the kernel's grace periods; a thread of its own keeps that from new pods.
    attaching: Worker,
    detaching: Worker,
}

impl Network {
    /// Makes the bridge, or finds the one of an earlier run, with its addresses.
    pub async fn setup(config: NetworkConfig) -> Result<Self, NetworkError> {
        let task = tokio::task::spawn_blocking(move || setup(&config));
        task.await.map_err(|error| failed("set up the pod network")(io::Error::other(error)))?
    }

    /// The pods' network.
    pub fn cidr(&self) -> Ipv4Net {
        self.shared.record.cidr
    }

    /// This machine's address as pods see it.
    pub fn gateway(&self) -> Ipv4Addr {
        ipam::gateway(self.cidr())
    }

    /// Name of the bridge.
    pub fn bridge(&self) -> &str {
        &self.shared.record.bridge
    }

    /// Whether pods reach the world outside this machine.
    pub fn has_egress(&self) -> bool {
        self.shared.record.rules.is_some()
    }

    /// The network namespace of a process.
    pub fn netns_of(pid: i32) -> io::Result<OwnedFd> {
        fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from)
    }

    /// Gives the pod its address and its interface `eth0`, up, with a default route; the same address when asked again.
    pub async fn attach(&self, netns: OwnedFd, pod_uid: &str) -> Result<PodAddress, NetworkError> {
        let ip = self
            .shared
            .ipam
            .lock()
            .allocate(pod_uid)
            .map_err(failed("write down a pod's address"))?
            .ok_or(NetworkError::Exhausted(self.cidr()))?;
        let address = self.place(pod_uid, ip);
        let attachment = Attachment {
            netns,
            name: address.interface.clone(),
            address: ip,
            prefix: address.prefix,
            gateway: address.gateway,
            mac: mac_of(ip),
            mtu: self.shared.mtu,
            bridge: self.shared.bridge_index,
        };
        if let Err(error) = self.shared.attaching.attach(attachment).await {
            let _ = self.shared.ipam.lock().release(pod_uid);
            return Err(failed("attach a pod to the network")(error));
        }
        Ok(address)
    }

    /// The pod's place, when it has one.
    pub fn address_of(&self, pod_uid: &str) -> Option<PodAddress> {
        let ip = self.shared.ipam.lock().address_of(pod_uid)?;
        Some(self.place(pod_uid, ip))
    }

    /// Removes the pod's interface and frees its address. Doing it again is no error.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.shared.detaching.delete(interface_name(pod_uid)).await.map_err(failed("remove a pod's interface"))?;
        self.shared.ipam.lock().release(pod_uid).map_err(failed("free a pod's address"))
    }

    /// Detaches every pod that is not among `live`, and removes interfaces on the bridge that nobody owns.
    pub async fn release_except(&self, live: &BTreeSet<String>) -> Result<Vec<String>, NetworkError> {
        let gone: Vec<String> =
            self.shared.ipam.lock().pods().filter(|pod| !live.contains(*pod)).map(str::to_owned).collect();
        for pod in &gone {
            self.detach(pod).await?;
        }
        let known: BTreeSet<String> = live.iter().map(|pod| interface_name(pod)).collect();
        let bridge = self.shared.bridge_index;
        let links = tokio::task::spawn_blocking(move || Netlink::open()?.links());
        let links = links.await.map_err(io::Error::other).and_then(|links| links);
        for link in links.map_err(failed("list interfaces"))? {
            if link.master == Some(bridge) && link.name.starts_with(BRIDGE_PREFIX) && !known.contains(&link.name) {
                self.shared.detaching.delete(link.name).await.map_err(failed("remove a pod's interface"))?;
            }
        }
        Ok(gone)
    }

    /// Removes everything that `setup` and `attach` have made on this machine.
    pub async fn purge(self) -> Result<(), NetworkError> {
        purge(&self.shared.state_dir).await
    }

    fn place(&self, pod_uid: &str, ip: Ipv4Addr) -> PodAddress {
        PodAddress { ip, prefix: self.cidr().prefix_len(), gateway: self.gateway(), interface: interface_name(pod_uid) }
    }
}

/// Removes what an earlier run left under this directory: interfaces, bridge, rules, addresses.
pub async fn purge(state_dir: &Path) -> Result<(), NetworkError> {
    let state_dir = state_dir.to_owned();
    let task = tokio::task::spawn_blocking(move || purge_now(&state_dir));
    task.await.map_err(|error| failed("remove the pod network")(io::Error::other(error)))?
}

fn purge_now(state_dir: &Path) -> Result<(), NetworkError> {
    let what = "remove the pod network";
    let Some(record) = read_record(state_dir) else {
        return match fs::remove_dir_all(state_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(what)(error)),
            _ => Ok(()),
        };
    };
    let mut netlink = Netlink::open().map_err(failed(what))?;
    let links = netlink.links().map_err(failed(what))?;
    let ours = links.iter().find(|link| link.name == record.bridge && link.alias.as_deref() == Some(&alias(state_dir)));
    if let Some(bridge) = ours {
        for port in links.iter().filter(|link| link.master == Some(bridge.index)) {
            netlink.delete_link(&port.name).map_err(failed(what))?;
        }
        netlink.delete_link(&bridge.name).map_err(failed(what))?;
        if let Some(tool) = record.rules {
            rules::remove(tool, &record.bridge);
        }
    }
    let last = !links.iter().any(|link| is_ours(link) && link.name != record.bridge);
    if record.forwarding_was_off && last {
        let _ = fs::write(FORWARDING, "0");
    }
    fs::remove_dir_all(state_dir).map_err(failed(what))
}

fn setup(config: &NetworkConfig) -> Result<Network, NetworkError> {
    fs::create_dir_all(&config.state_dir).map_err(failed("make the network's directory"))?;
    let state_dir = fs::canonicalize(&config.state_dir).map_err(failed("make the network's directory"))?;
    let mut netlink = Netlink::open().map_err(failed("speak to the kernel's network"))?;
    let links = netlink.links().map_err(failed("list interfaces"))?;
    let routes = netlink.routes().map_err(failed("list routes"))?;
    let before = read_record(&state_dir);

    let bridge = choose_bridge(config, before.as_ref(), &links, &alias(&state_dir))?;
    let own = links.iter().find(|link| link.name == bridge).map(|link| link.index);
    let taken: Vec<Ipv4Net> = routes
        .iter()
        .filter(|route| route.destination.prefix_len() > 0 && (own.is_none() || route.interface != own))
        .map(|route| route.destination)
        .collect();
    let cidr = choose_cidr(config.cidr, before.as_ref().map(|record| record.cidr), &taken)?;
    let mtu = uplink_mtu(&links, &routes);

    let forwarding_was_off = before.as_ref().is_some_and(|record| record.forwarding_was_off)
        || fs::read_to_string(FORWARDING).is_ok_and(|value| value.trim() == "0");
    let mut record =
        Record { bridge: bridge.clone(), cidr, rules: before.and_then(|record| record.rules), forwarding_was_off };
    // Written first: what is made from here on is undone by whoever reads this.
    write_record(&state_dir, &record).map_err(failed("write down the network"))?;
    if own.is_none() {
        netlink.add_bridge(&bridge, mac_of(ipam::gateway(cidr)), mtu).map_err(failed("make the bridge"))?;
    }
    let index = netlink
        .link(&bridge)
        .and_then(|link| link.map(|l| l.index).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
        .map_err(failed("find the bridge"))?;
    netlink.set_alias(index, &alias(&state_dir)).map_err(failed("mark the bridge"))?;
    netlink.set_up(index).map_err(failed("set the bridge up"))?;
    netlink
        .add_address(index, ipam::gateway(cidr), cidr.prefix_len())
        .map_err(failed("give the bridge its address"))?;
    fs::write(FORWARDING, "1").map_err(failed("let this machine forward packets"))?;
    record.rules = match rules::install(&bridge, cidr) {
        Ok(Some(tool)) => Some(tool),
        Ok(None) => {
            tracing::warn!("neither iptables nor nft is on this machine: pods cannot reach the world outside it");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the packet filter takes no rules: pods cannot reach the world outside this machine");
            None
        }
    };
    write_record(&state_dir, &record).map_err(failed("write down the network"))?;
    let ipam = Ipam::open(state_dir.join("addresses"), cidr).map_err(failed("read the pods' addresses"))?;
    Ok(Network {
        shared: Arc::new(Shared {
            state_dir,
            record,
            bridge_index: index,
            mtu,
            ipam: Mutex::new(ipam),
            attaching: Worker::start("pod-attach").map_err(failed("start a thread"))?,
            detaching: Worker::start("pod-detach").map_err(failed("start a thread"))?,
        }),
    })
}

fn alias(state_dir: &Path) -> String {
    // An alias has at most 255 bytes.
    let path = state_dir.to_string_lossy();
    let start = path.len().saturating_sub(200);
    let start = (start..=path.len()).find(|at| path.is_char_boundary(*at)).unwrap_or(0);
    format!("opensandbox:{}", &path[start..])
}

fn is_ours(link: &Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with("opensandbox:"))
}

fn choose_bridge(
    config: &NetworkConfig,
    before: Option<&Record>,
    links: &[Link],
    alias: &str,
) -> Result<String, NetworkError> {
    let by_name: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    // Free, ours, or left by a cluster whose directory is gone.
    let usable = |name: &str| match by_name.get(name) {
        None => true,
        Some(link) if link.alias.as_deref() == Some(alias) => true,
        Some(link) => link
            .alias
            .as_deref()
            .and_then(|alias| alias.strip_prefix("opensandbox:"))
            .is_some_and(|owner| owner.starts_with('/') && !Path::new(owner).join(STATE_FILE).exists()),
    };
    let wanted = config.bridge.clone();
    if let Some(name) = wanted {
        if usable(&name) {
            return Ok(name);
        }
        let owner = by_name.get(name.as_str()).and_then(|link| link.alias.clone());
        let owner = owner.unwrap_or_else(|| "another program".to_owned());
        return Err(NetworkError::BridgeTaken { bridge: name, owner });
    }
    before
        .map(|record| record.bridge.clone())
        .into_iter()
        .chain((0..MAX_BRIDGES).map(|number| format!("{BRIDGE_PREFIX}{number}")))
        .find(|name| usable(name))
        .ok_or_else(|| NetworkError::BridgeTaken {
            bridge: format!("{BRIDGE_PREFIX}0"),
            owner: "another cluster, and so do all that could be made instead".to_owned(),
        })
}

/// The network asked for or used before, unless it collides; else the first that is free.
fn choose_cidr(asked: Option<Ipv4Net>, before: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Result<Ipv4Net, NetworkError> {
    let collision = |net: &Ipv4Net| taken.iter().find(|t| t.contains(net) || net.contains(*t)).copied();
    if let Some(asked) = asked {
        let cidr = asked.trunc();
        if !(8..=29).contains(&cidr.prefix_len()) {
            return Err(NetworkError::Size(cidr));
        }
        return collision(&cidr).map_or(Ok(cidr), |route| Err(NetworkError::Overlap { cidr, route }));
    }
    let candidates = (88..=254).filter_map(|second| Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16).ok());
    before.into_iter().chain(candidates).find(|net| collision(net).is_none()).ok_or(NetworkError::NoneFree)
}

/// What leaves the machine must fit through the interface of its default route.
fn uplink_mtu(links: &[Link], routes: &[Route]) -> u32 {
    let uplink = routes.iter().find(|route| route.destination.prefix_len() == 0).and_then(|route| route.interface);
    links.iter().find(|link| Some(link.index) == uplink).map_or(1500, |link| link.mtu.clamp(576, 1500))
}

/// A hardware address that follows from the address: a reused address never meets a stale neighbour entry.
fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// `osb` and 48 bits of a hash of the pod's UID: an interface's name has at most 15 characters.
fn interface_name(pod_uid: &str) -> String {
    let hash = Sha256::digest(pod_uid.as_bytes());
    let mut name = BRIDGE_PREFIX.to_owned();
    name.extend(
        hash.iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .take(12)
            .map(|n| char::from_digit(u32::from(n), 16).unwrap_or('0')),
    );
    name
}

fn read_record(state_dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(state_dir.join(STATE_FILE)).ok()?).ok()
}

fn write_record(state_dir: &Path, record: &Record) -> io::Result<()> {
    let temporary = state_dir.join(".network.json");
    fs::write(&temporary, serde_json::to_vec_pretty(record)?)?;
    fs::rename(temporary, state_dir.join(STATE_FILE))
}

#[cfg(test)]
mod tests;
