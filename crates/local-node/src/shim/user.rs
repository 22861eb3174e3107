//! Who a container runs as: names are looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::proto::{RunUser, UserRequest};

/// Largest passwd or group file that is read.
const MAX_DATABASE: u64 = 1024 * 1024;

/// The identity of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl Identity {
    /// As the container's status tells it.
    pub fn told(&self) -> RunUser {
        let mut groups: Vec<u32> = self.groups.iter().copied().chain([self.gid]).collect();
        groups.sort_unstable();
        groups.dedup();
        RunUser { uid: self.uid, gid: self.gid, groups }
    }
}

/// Resolves a request against a mounted root file system.
///
/// # Errors
/// A message for the container's status.
pub fn resolve(root: &Path, request: &UserRequest) -> Result<Identity, String> {
    decide(&read(root, "etc/passwd"), &read(root, "etc/group"), request)
}

/// Reads a file of the image; symbolic links never lead out of it.
fn read(root: &Path, path: &str) -> String {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut text = Vec::new();
    if let Ok(dir) = File::open(root)
        && let Ok(file) = openat2(&dir, path, how)
    {
        let _ = File::from(file).take(MAX_DATABASE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn decide(passwd: &str, group: &str, request: &UserRequest) -> Result<Identity, String> {
    let (image_user, image_group) = match request.image_user.as_deref().unwrap_or("").split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (request.image_user.as_deref().unwrap_or(""), None),
    };
    let by_uid = |uid: u32| passwd.lines().find(|line| field(line, 2) == Some(uid));
    let (uid, entry) = match (request.uid, image_user) {
        (Some(uid), _) => (uid, by_uid(uid)),
        (None, "") => (0, by_uid(0)),
        (None, user) => match user.parse() {
            Ok(uid) => (uid, by_uid(uid)),
            Err(_) => {
                let line = passwd
                    .lines()
                    .find(|line| line.split(':').next() == Some(user))
                    .ok_or_else(|| format!("the image asks for user {user:?}, which its /etc/passwd does not have"))?;
                (
                    field(line, 2).ok_or_else(|| format!("user {user:?} has no uid in the image's /etc/passwd"))?,
                    Some(line),
                )
            }
        },
    };
    if request.non_root && request.uid == Some(0) {
        return Err("container's runAsUser breaks non-root policy".to_owned());
    }
    if request.non_root && uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    let group_of = |wanted: &str| -> Result<u32, String> {
        wanted.parse().or_else(|_| {
            group
                .lines()
                .find(|line| line.split(':').next() == Some(wanted))
                .and_then(|line| field(line, 2))
                .ok_or_else(|| format!("the image asks for group {wanted:?}, which its /etc/group does not have"))
        })
    };
    let gid = match (request.gid, image_group, entry) {
        (Some(gid), _, _) => gid,
        // The image's group belongs to the image's user.
        (None, Some(wanted), _) if request.uid.is_none() => group_of(wanted)?,
        (None, _, Some(line)) => field(line, 3).unwrap_or(0),
        (None, _, None) => 0,
    };
    let name = entry.and_then(|line| line.split(':').next()).unwrap_or("");
    let mut groups: Vec<u32> = group
        .lines()
        .filter(|line| {
            !name.is_empty() && line.split(':').nth(3).is_some_and(|users| users.split(',').any(|u| u == name))
        })
        .filter_map(|line| field(line, 2))
        .chain(request.extra_groups.iter().copied())
        .filter(|id| *id != gid)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let home = entry.and_then(|line| line.split(':').nth(5)).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn field(line: &str, index: usize) -> Option<u32> {
    line.split(':').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlog:x:7:web,other\n";

    fn ask(uid: Option<u32>, gid: Option<u32>, image: &str) -> Result<Identity, String> {
        let request = UserRequest {
            uid,
            gid,
            image_user: (!image.is_empty()).then(|| image.to_owned()),
            ..UserRequest::default()
        };
        decide(PASSWD, GROUP, &request)
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn users_are_found_as_containerd_finds_them() {
        assert_eq!(ask(None, None, "").unwrap(), identity(0, 0, &[], "/root"));
        assert_eq!(ask(None, None, "web").unwrap(), identity(101, 102, &[7], "/srv"));
        assert_eq!(ask(None, None, "101:log").unwrap(), identity(101, 7, &[], "/srv"));
        assert_eq!(ask(None, None, "4242").unwrap(), identity(4242, 0, &[], "/"));
        assert_eq!(ask(Some(101), None, "root:root").unwrap(), identity(101, 102, &[7], "/srv"));
        assert_eq!(ask(Some(5), Some(6), "web").unwrap(), identity(5, 6, &[], "/"));
    }

    #[test]
    fn unknown_names_and_root_where_forbidden_are_refused() {
        assert!(ask(None, None, "nobody-here").unwrap_err().contains("nobody-here"));
        assert!(ask(None, None, "web:nogroup").unwrap_err().contains("nogroup"));
        let request = UserRequest { non_root: true, ..UserRequest::default() };
        assert!(decide(PASSWD, GROUP, &request).unwrap_err().contains("runAsNonRoot"));
    }
}
