//! A blocking rtnetlink client: the kernel answers within the call, so that a thread of its own loses nothing by waiting.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::Ipv4Net;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// One page of a dump fits; the kernel never sends more in one message.
const BUFFER: usize = 64 * 1024;

/// A network interface, as far as the node cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index of the interface.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Alias, which marks who made the interface.
    pub alias: Option<String>,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Largest packet.
    pub mtu: u32,
}

/// An IPv4 route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// What it leads to.
    pub destination: Ipv4Net,
    /// Index of the interface it uses.
    pub interface: Option<u32>,
}

/// What a pod's pair of interfaces is made from.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// Name of the end on the host.
    pub name: &'a str,
    /// Name of the end in the pod.
    pub peer: &'a str,
    /// Network namespace of the pod.
    pub netns: &'a OwnedFd,
    /// Hardware address of the pod's end.
    pub mac: [u8; 6],
    /// Largest packet.
    pub mtu: u32,
    /// Index of the bridge.
    pub bridge: u32,
}

/// A socket to the kernel of the network namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&rtnetlink::sys::SocketAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, message: Message, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(self.sequence)
    }

    /// Receives answers until the one that ends the exchange.
    fn receive(&mut self, sequence: u32, single: bool, mut each: impl FnMut(Message)) -> io::Result<()> {
        loop {
            let mut bytes = Vec::with_capacity(BUFFER);
            self.socket.recv(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Message>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let length = (message.header.length as usize).next_multiple_of(4);
                if length == 0 {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => {
                        each(inner);
                        if single {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn execute(&mut self, message: Message, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, NLM_F_ACK | flags)?;
        self.receive(sequence, false, |_| {})
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let sequence = self.send(Message::GetLink(LinkUnspec::new_with_name(name).build()), 0)?;
        let mut found = None;
        let answer = self.receive(sequence, true, |message| {
            if let Message::NewLink(link) = message {
                found = Some(read_link(&link));
            }
        });
        match answer {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Every interface.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let sequence = self.send(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.receive(sequence, false, |message| {
            if let Message::NewLink(link) = message {
                found.push(read_link(&link));
            }
        })?;
        Ok(found)
    }

    /// Every IPv4 route of every table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let sequence = self.send(Message::GetRoute(request), NLM_F_DUMP)?;
        let mut found = Vec::new();
        self.receive(sequence, false, |message| {
            let Message::NewRoute(route) = message else { return };
            let (mut address, mut interface) = (Ipv4Addr::UNSPECIFIED, None);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(destination)) => address = *destination,
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    _ => {}
                }
            }
            if let Ok(destination) = Ipv4Net::new(address, route.header.destination_prefix_length) {
                found.push(Route { destination: destination.trunc(), interface });
            }
        })?;
        Ok(found)
    }

    /// Makes a bridge that is up.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let link = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
        self.execute(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Marks an interface.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.execute(Message::SetLink(LinkUnspec::new_with_index(index).alias(alias).build()), 0)
    }

    /// Sets an interface up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.execute(Message::SetLink(LinkUnspec::new_with_index(index).up().build()), 0)
    }

    /// Makes a pair of interfaces: one a port of the bridge and up, the other in the pod. The kernel refuses to set that
    /// one up before the pair is whole.
    pub fn add_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer)
            .address(pair.mac.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.netns.as_raw_fd())
            .build();
        let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pair.name)
            .mtu(pair.mtu)
            .controller(pair.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        self.execute(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an interface; one that is gone already is no error.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        match self.execute(Message::DelLink(LinkUnspec::new_with_name(name).build()), 0) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Gives an interface an address; one that it has already is no error.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build();
        tolerate_existing(self.execute(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Adds the default route.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        tolerate_existing(self.execute(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL))
    }
}

fn tolerate_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), alias: None, master: None, mtu: 1500 };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}
