//! Which TCP ports are listened to in the sandbox's network.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// State of a listening socket in the kernel's table.
const LISTEN: &str = "0A";

/// A port that somebody listens to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Number.
    pub port: u16,
    /// Addresses it is listened to at.
    pub addresses: Vec<IpAddr>,
    /// Process that does, if it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    #[serde(skip)]
    inodes: Vec<u64>,
}

/// All of them by number, without `own`.
pub fn listening(own: u16) -> BTreeMap<u16, Port> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    parse(&read("tcp"), &read("tcp6"), own)
}

fn parse(tcp: &str, tcp6: &str, own: u16) -> BTreeMap<u16, Port> {
    let mut found: BTreeMap<u16, Port> = BTreeMap::new();
    for line in tcp.lines().chain(tcp6.lines()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&LISTEN), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        let Some((address, port)) = local.split_once(':') else { continue };
        let (Some(address), Ok(port)) = (ip(address), u16::from_str_radix(port, 16)) else { continue };
        if port == own {
            continue;
        }
        let entry = found.entry(port).or_insert_with(|| Port {
            port,
            addresses: Vec::new(),
            pid: None,
            process: None,
            inodes: Vec::new(),
        });
        if !entry.addresses.contains(&address) {
            entry.addresses.push(address);
        }
        entry.inodes.extend(inode.parse::<u64>());
    }
    found
}

/// An address as the kernel prints it: words of four bytes in the machine's order.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(8 * at..8 * at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes.get_mut(4 * at..4 * at + 4)?.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// Adds who listens, as far as `/proc` tells.
pub fn name(ports: &mut BTreeMap<u16, Port>) {
    let mut wanted: HashMap<u64, u16> = HashMap::new();
    for port in ports.values() {
        wanted.extend(port.inodes.iter().map(|inode| (*inode, port.port)));
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for pid in processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        if wanted.is_empty() {
            return;
        }
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in descriptors.flatten().filter_map(|e| std::fs::read_link(e.path()).ok()) {
            let inode = link.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(port) = inode.and_then(|inode: u64| wanted.remove(&inode)) else { continue };
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
            if let Some(port) = ports.get_mut(&port).filter(|port| port.pid.is_none()) {
                (port.pid, port.process) = (Some(pid), name.map(|name| name.trim_end().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 00000000:AEE4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
                   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n\
                   2: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0\n";
        let tcp6 = "  sl  local_address                         remote_address                        st\n\
                    0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0 100 0 0 10 0\n";
        let found = parse(tcp, tcp6, 44772);
        let want: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [8080]);
        assert_eq!((&found[&8080].addresses, &found[&8080].inodes), (&want, &vec![12, 14]));
    }

    #[test]
    fn a_listener_of_this_process_is_found_by_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = listening(0);
        name(&mut ports);
        assert_eq!(ports[&port].pid, Some(std::process::id().cast_signed()));
    }
}
