//! The threads that speak to the kernel. Entering a pod's network namespace changes the whole thread, hence its own.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use tokio::sync::{mpsc, oneshot};

use super::netlink::{Netlink, VethPair};

/// The interface's name in every pod.
const POD_INTERFACE: &str = "eth0";

/// Requests that may wait; a caller beyond waits for its turn.
const QUEUE: usize = 256;

/// What a pod's end of the network is.
#[derive(Debug)]
pub struct Attachment {
    /// Network namespace of the pod.
    pub netns: OwnedFd,
    /// Name of the interface on the host.
    pub name: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: Ipv4Addr,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Largest packet.
    pub mtu: u32,
    /// Index of the bridge.
    pub bridge: u32,
}

enum Job {
    Attach(Box<Attachment>, oneshot::Sender<io::Result<()>>),
    Delete(String, oneshot::Sender<io::Result<()>>),
}

/// A thread with one socket to the kernel. It ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let home = fs::File::open("/proc/self/ns/net")?;
        let netlink = Netlink::open()?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(queue, netlink, &home.into()))?;
        Ok(Self { jobs })
    }

    /// Puts a pod on the bridge.
    pub async fn attach(&self, attachment: Attachment) -> io::Result<()> {
        let (answer, waiting) = oneshot::channel();
        self.ask(Job::Attach(Box::new(attachment), answer), waiting).await
    }

    /// Removes an interface.
    pub async fn delete(&self, name: String) -> io::Result<()> {
        let (answer, waiting) = oneshot::channel();
        self.ask(Job::Delete(name, answer), waiting).await
    }

    async fn ask(&self, job: Job, answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        let gone = || io::Error::other("the network thread has ended");
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn run(mut queue: mpsc::Receiver<Job>, mut netlink: Netlink, home: &OwnedFd) {
    while let Some(job) = queue.blocking_recv() {
        // A caller that no longer waits has given up; the pod is detached by its own clean-up.
        match job {
            Job::Attach(attachment, answer) => {
                let done = attach(&mut netlink, home, &attachment);
                if done.is_err() {
                    let _ = netlink.delete_link(&attachment.name);
                }
                let _ = answer.send(done);
            }
            Job::Delete(name, answer) => {
                let _ = answer.send(netlink.delete_link(&name));
            }
        }
    }
}

fn attach(netlink: &mut Netlink, home: &OwnedFd, attachment: &Attachment) -> io::Result<()> {
    // A socket belongs to the namespace that it was opened in, wherever the thread goes afterwards.
    let mut inside = enter(&attachment.netns, home)?;
    let pair = VethPair {
        name: &attachment.name,
        peer: POD_INTERFACE,
        netns: &attachment.netns,
        mac: attachment.mac,
        mtu: attachment.mtu,
        bridge: attachment.bridge,
    };
    match netlink.add_veth(&pair) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {
            // Left by an attempt that was interrupted.
            netlink.delete_link(&attachment.name)?;
            netlink.add_veth(&pair)?;
        }
        other => other?,
    }
    let eth0 = inside.link(POD_INTERFACE)?.ok_or_else(|| io::Error::other("the pod's interface has vanished"))?;
    inside.add_address(eth0.index, attachment.address, attachment.prefix)?;
    inside.set_up(eth0.index)?;
    if let Some(lo) = inside.link("lo")? {
        inside.set_up(lo.index)?;
    }
    inside.add_default_route(attachment.gateway)
}

fn enter(netns: &OwnedFd, home: &OwnedFd) -> io::Result<Netlink> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    // Pods have IPv4 only: no address of the kernel's own making on the bridge. `::1` on `lo` stays.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let inside = Netlink::open();
    setns(home, CloneFlags::CLONE_NEWNET)?;
    inside
}
