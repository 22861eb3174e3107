//! Users and groups, read from `/etc/passwd` and `/etc/group` by ourselves: a static binary must not
//! load the guest's name service.

use std::collections::HashMap;

use crate::sys::Credentials;

/// One line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// The users and groups of the container, as they were when read.
#[derive(Debug, Clone, Default)]
pub struct Users {
    users: Vec<User>,
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Users {
    /// Reads both files; a missing one is empty.
    pub fn load() -> Self {
        let read = |path| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    /// Reads the two texts; lines that are none are passed over.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let mut f = line.split(':');
            let (name, _, uid, gid, _, home) = (f.next()?, f.next()?, f.next()?, f.next()?, f.next()?, f.next()?);
            Some(User { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() })
        });
        let groups = group.lines().filter_map(|line| {
            let mut f = line.split(':');
            let (name, _, gid, members) = (f.next()?, f.next()?, f.next()?, f.next().unwrap_or_default());
            let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            Some((name.to_owned(), gid.parse().ok()?, members))
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// The user with this id.
    pub fn user(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|u| u.uid == uid)
    }

    /// What a process of this user runs with. An unknown user without a group gets the group of its
    /// own number, never group 0.
    pub fn credentials(&self, uid: u32, gid: Option<u32>) -> Credentials {
        let user = self.user(uid);
        let gid = gid.unwrap_or_else(|| user.map_or(uid, |u| u.gid));
        let mut groups = vec![gid];
        if let Some(user) = user {
            let of_user = self.groups.iter().filter(|(_, _, members)| members.contains(&user.name));
            groups.extend(of_user.map(|(_, gid, _)| *gid).filter(|g| *g != gid));
        }
        Credentials { uid, gid, groups }
    }

    /// User id of a name or number.
    pub fn uid_of(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|u| u.name == name).map(|u| u.uid).or_else(|| name.parse().ok())
    }

    /// Group id of a name or number.
    pub fn gid_of(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(n, _, _)| n == name).map(|(_, gid, _)| *gid).or_else(|| name.parse().ok())
    }

    /// Names for many ids at once.
    pub fn names(&self) -> Names {
        Names {
            users: self.users.iter().rev().map(|u| (u.uid, u.name.clone())).collect(),
            groups: self.groups.iter().rev().map(|(name, gid, _)| (*gid, name.clone())).collect(),
        }
    }
}

/// Names by id.
#[derive(Debug, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Name of a user, or the number.
    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// Name of a group, or the number.
    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbad line\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\ndev:x:2000:bob,ann\nbroken\n";

    #[test]
    fn credentials_follow_the_database() {
        let users = Users::parse(PASSWD, GROUP);
        assert_eq!(users.credentials(1000, None), Credentials { uid: 1000, gid: 1001, groups: vec![1001, 2000] });
        assert_eq!(users.credentials(1000, Some(7)), Credentials { uid: 1000, gid: 7, groups: vec![7, 2000] });
        assert_eq!(users.credentials(4242, None), Credentials { uid: 4242, gid: 4242, groups: vec![4242] });
    }

    #[test]
    fn names_and_numbers() {
        let users = Users::parse(PASSWD, GROUP);
        assert_eq!((users.uid_of("ann"), users.uid_of("77"), users.uid_of("nobody")), (Some(1000), Some(77), None));
        assert_eq!((users.gid_of("dev"), users.gid_of("77")), (Some(2000), Some(77)));
        let names = users.names();
        assert_eq!((names.user(1000), names.user(5), names.group(2000)), ("ann".into(), "5".into(), "dev".into()));
    }
}
