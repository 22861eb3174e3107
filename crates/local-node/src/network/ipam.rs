//! Which pod has which address: a file for each address, named by it and holding the pod's UID.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// The file that holds the address given last, so that the next one is another also after a restart.
const CURSOR: &str = "cursor";

/// Addresses of one network. Every change is on disk before it is told.
#[derive(Debug)]
pub struct Ipam {
    dir: PathBuf,
    net: Ipv4Net,
    by_pod: BTreeMap<String, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, String>,
    cursor: Ipv4Addr,
}

impl Ipam {
    /// Reads what is there; what is no address of this network is dropped.
    pub fn open(dir: PathBuf, net: Ipv4Net) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut ipam = Self { dir, net, by_pod: BTreeMap::new(), by_address: BTreeMap::new(), cursor: gateway(net) };
        for entry in fs::read_dir(&ipam.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let content = fs::read_to_string(entry.path()).unwrap_or_default();
            if name == CURSOR {
                if let Ok(address) = content.trim().parse() {
                    ipam.cursor = address;
                }
                continue;
            }
            match name.parse::<Ipv4Addr>() {
                Ok(address) if usable(net, address) && !content.is_empty() && !ipam.by_pod.contains_key(&content) => {
                    ipam.by_pod.insert(content.clone(), address);
                    ipam.by_address.insert(address, content);
                }
                _ => {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        if !net.contains(&ipam.cursor) {
            ipam.cursor = gateway(net);
        }
        Ok(ipam)
    }

    /// The pod's address.
    pub fn address_of(&self, pod: &str) -> Option<Ipv4Addr> {
        self.by_pod.get(pod).copied()
    }

    /// Every pod that has an address.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.by_pod.keys().map(String::as_str)
    }

    /// Gives the pod an address, the one that was free for longest; `None` when all are taken.
    pub fn allocate(&mut self, pod: &str) -> io::Result<Option<Ipv4Addr>> {
        if let Some(address) = self.address_of(pod) {
            return Ok(Some(address));
        }
        let (first, last) = (u32::from(self.net.network()) + 2, u32::from(self.net.broadcast()) - 1);
        let mut next = u32::from(self.cursor);
        for _ in first..=last {
            next = if next >= last || next < first { first } else { next + 1 };
            let address = Ipv4Addr::from(next);
            if self.by_address.contains_key(&address) {
                continue;
            }
            self.write(CURSOR, &address.to_string())?;
            self.write(&address.to_string(), pod)?;
            self.cursor = address;
            self.by_pod.insert(pod.to_owned(), address);
            self.by_address.insert(address, pod.to_owned());
            return Ok(Some(address));
        }
        Ok(None)
    }

    /// Takes the pod's address back.
    pub fn release(&mut self, pod: &str) -> io::Result<()> {
        let Some(address) = self.by_pod.remove(pod) else { return Ok(()) };
        self.by_address.remove(&address);
        match fs::remove_file(self.dir.join(address.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let temporary = self.dir.join(".new");
        fs::File::create(&temporary)?.write_all(content.as_bytes())?;
        fs::rename(temporary, self.dir.join(name))
    }
}

/// The first address of a network is the bridge's own.
pub fn gateway(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + 1)
}

fn usable(net: Ipv4Net, address: Ipv4Addr) -> bool {
    net.contains(&address) && address != net.network() && address != gateway(net) && address != net.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 9, 8, last))
    }

    #[test]
    fn addresses_go_round_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let net: Ipv4Net = "10.9.8.0/29".parse().unwrap();
        let mut ipam = Ipam::open(dir.path().into(), net).unwrap();
        assert_eq!(ipam.allocate("a").unwrap(), address(2));
        assert_eq!(ipam.allocate("b").unwrap(), address(3));
        assert_eq!(ipam.allocate("a").unwrap(), address(2), "asking again changes nothing");
        ipam.release("a").unwrap();
        let mut ipam = Ipam::open(dir.path().into(), net).unwrap();
        assert_eq!(ipam.address_of("b"), address(3));
        assert_eq!(ipam.allocate("c").unwrap(), address(4), "a freed address is not reused at once");
        assert_eq!(ipam.allocate("d").unwrap(), address(5));
        assert_eq!(ipam.allocate("e").unwrap(), address(6));
        assert_eq!(ipam.allocate("f").unwrap(), address(2), "the round begins again");
        assert_eq!(ipam.allocate("g").unwrap(), None, "no network, gateway or broadcast address is given");
        assert_eq!(ipam.pods().collect::<Vec<_>>(), ["b", "c", "d", "e", "f"]);
    }

    #[test]
    fn what_is_no_address_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("10.9.8.1", "x"), ("10.1.1.1", "y"), ("junk", "z"), ("10.9.8.4", "")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let ipam = Ipam::open(dir.path().into(), "10.9.8.0/29".parse().unwrap()).unwrap();
        assert_eq!(ipam.pods().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
