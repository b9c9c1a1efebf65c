//! Who the command runs as (promise I5).

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::capability::Capabilities;
use crate::spec::user::{GroupRef, UserRef, UserSpec};

/// Who called netbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// SUDO_UID and SUDO_GID, where both are numbers. They count only when root asks: root may say who it acts for.
    pub sudo: Option<(u32, u32)>,
    /// The capabilities of this process: root in a container, or in a box, has not all.
    pub capabilities: Capabilities,
}

/// A line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The login name.
    pub name: OsString,
    /// The user.
    pub uid: u32,
    /// The login group.
    pub gid: u32,
    /// The home directory.
    pub home: OsString,
    /// The login shell.
    pub shell: OsString,
}

/// The text of passwd(5) and group(5), as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: Vec<u8>,
    /// /etc/group
    pub group: Vec<u8>,
}

/// Who the command is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Real, effective and saved user.
    pub uid: u32,
    /// Real, effective and saved group.
    pub gid: u32,
    /// Supplementary groups, the primary one included (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// Whose HOME, USER, LOGNAME and SHELL the command gets; `None`: the caller's stay.
    pub account: Option<Account>,
}

impl Identity {
    /// Whether the command runs as root and so with capabilities.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }
}

impl Accounts {
    /// The account of user number `uid`.
    #[must_use]
    pub fn by_uid(&self, uid: u32) -> Option<Account> {
        self.all().find(|account| account.uid == uid)
    }

    /// The account called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Account> {
        self.all().find(|account| account.name == name)
    }

    fn all(&self) -> impl Iterator<Item = Account> {
        lines(&self.passwd).filter_map(|fields| {
            let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
            Some(Account {
                name: os(name),
                uid: number(uid)?,
                gid: number(gid)?,
                home: os(home),
                shell: os(shell),
            })
        })
    }

    /// The number of the group called `name`.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<u32> {
        lines(&self.group)
            .find(|fields| fields.first() == Some(&name.as_bytes()))
            .and_then(|f| number(f.get(2)?))
    }

    /// The groups of `account`, its login group first (initgroups(3)).
    #[must_use]
    pub fn groups_of(&self, account: &Account) -> Vec<u32> {
        let name = account.name.as_encoded_bytes();
        let mut groups = vec![account.gid];
        for fields in lines(&self.group) {
            let member = fields.get(3).is_some_and(|list| list.split(|b| *b == b',').any(|m| m == name));
            if let Some(gid) = fields.get(2).and_then(|gid| number(gid)).filter(|_| member) {
                groups.push(gid);
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn number(text: &[u8]) -> Option<u32> {
    // 4294967295 is "no user" to setresuid(2).
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number != u32::MAX)
}

fn os(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes.to_vec())
}

/// Decides who the command runs as: whom `-u` names, else whoever called sudo, else the caller.
///
/// # Errors
/// A user or group that does not exist; `-u` by a caller who is not root.
pub fn identity(caller: &Caller, accounts: &Accounts, wanted: Option<&UserSpec>) -> Result<Identity> {
    if let Some(wanted) = wanted {
        if caller.uid != 0 {
            return Err(
                Error::new("cannot run the command as another user").because("only root may change users")
            );
        }
        return named(accounts, wanted);
    }
    match caller.sudo.filter(|(uid, _)| caller.uid == 0 && *uid != 0) {
        Some((uid, gid)) => Ok(match accounts.by_uid(uid) {
            Some(account) => {
                let mut groups = accounts.groups_of(&account);
                groups.push(gid);
                groups.sort_unstable();
                groups.dedup();
                Identity { uid, gid, groups, account: Some(account) }
            }
            // A user of another name service: sudo's word for user and group, nothing more.
            None => Identity { uid, gid, groups: vec![gid], account: None },
        }),
        None => {
            Ok(Identity { uid: caller.uid, gid: caller.gid, groups: caller.groups.clone(), account: None })
        }
    }
}

fn named(accounts: &Accounts, wanted: &UserSpec) -> Result<Identity> {
    let account = match &wanted.user {
        UserRef::Name(name) => Some(accounts.by_name(name).ok_or_else(|| {
            Error::new(format!("cannot run the command as user {name:?}"))
                .because("there is no such user in /etc/passwd")
                .hint("a number is taken as it is: -u 1000:1000")
        })?),
        UserRef::Id(uid) => accounts.by_uid(*uid),
    };
    let uid = match (&wanted.user, &account) {
        (UserRef::Id(uid), _) => *uid,
        (UserRef::Name(_), Some(account)) => account.uid,
        (UserRef::Name(name), None) => return Err(Error::new(format!("there is no user {name:?}"))),
    };
    let group = match &wanted.group {
        None => None,
        Some(GroupRef::Id(gid)) => Some(*gid),
        Some(GroupRef::Name(name)) => Some(accounts.group(name).ok_or_else(|| {
            Error::new(format!("cannot run the command as group {name:?}"))
                .because("there is no such group in /etc/group")
        })?),
    };
    // As in Docker: a group that is named is the only one; a number without an account has group 0 there,
    // which is root's, so here it has its own number instead.
    let (gid, groups) = match (group, &account) {
        (Some(gid), _) => (gid, vec![gid]),
        (None, Some(account)) => (account.gid, accounts.groups_of(account)),
        (None, None) => (uid, vec![uid]),
    };
    Ok(Identity { uid, gid, groups, account })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000:Ada,,,:/home/ada:/bin/bash\nbroken\n"
                .to_vec(),
            group: b"root:x:0:\nada:x:1000:\nwheel:x:10:bob,ada\ndocker:x:999:adam\n".to_vec(),
        }
    }

    fn root(sudo: Option<(u32, u32)>) -> Caller {
        Caller { uid: 0, gid: 0, groups: vec![0], sudo, capabilities: Capabilities::NONE }
    }

    #[test]
    fn root_itself_stays_root() {
        let identity = identity(&root(None), &accounts(), None).unwrap();
        assert!(identity.is_root());
        assert_eq!((identity.groups, identity.account), (vec![0], None));
    }

    #[test]
    fn under_sudo_the_command_is_whoever_called_sudo_with_all_their_groups() {
        let identity = identity(&root(Some((1000, 1000))), &accounts(), None).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (1000, 1000, vec![10, 1000]));
        assert_eq!(identity.account.unwrap().home, "/home/ada");
    }

    #[test]
    fn the_variables_of_sudo_count_for_nothing_when_somebody_else_than_root_sets_them() {
        let caller = Caller {
            uid: 1001,
            gid: 1001,
            groups: vec![1001],
            sudo: Some((1000, 1000)),
            capabilities: Capabilities::NONE,
        };
        assert_eq!(identity(&caller, &accounts(), None).unwrap().uid, 1001);
    }

    #[test]
    fn a_user_that_no_file_knows_keeps_what_sudo_said_and_no_group_more() {
        let identity = identity(&root(Some((4000, 4001))), &accounts(), None).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (4000, 4001, vec![4001]));
    }
}
