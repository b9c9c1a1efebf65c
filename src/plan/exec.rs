//! A further command in a living box: who it runs as, and with which rights.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::capability::Capabilities;
use crate::spec::user::UserSpec;

use super::identity::{Accounts, Caller, Identity, identity};
use super::privileges::Privileges;

/// Who the command of a box was started as, and with which rights, as the box's record has it. What the command is by now
/// counts for nothing: it may have changed that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// The capabilities that it started with, as bits.
    pub held: u64,
    /// Its bounding set, as bits.
    pub most: u64,
    /// Whether it started without `no_new_privs`.
    pub may_gain: bool,
    /// Whether the box has a user namespace of its own.
    pub own_users: bool,
}

impl Rights {
    /// Those of a command that is about to start.
    #[must_use]
    pub fn new(identity: &Identity, privileges: &Privileges) -> Self {
        Self {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
            held: privileges.held.bits(),
            most: privileges.most.bits(),
            may_gain: privileges.may_gain,
            own_users: privileges.own_users,
        }
    }

    /// Who a further command runs as: whom `-u` names, else whoever the box's own command was started as.
    ///
    /// # Errors
    /// A user or group that does not exist; root in a box that cannot be root: the settings of the kernel are not closed to
    /// it there, and for them a user number is enough.
    pub fn identity(
        &self,
        caller: &Caller,
        accounts: &Accounts,
        wanted: Option<&UserSpec>,
    ) -> Result<Identity> {
        if wanted.is_none() {
            // As in `run`: the caller's own HOME and names stay, somebody else's are theirs.
            let account = if self.uid == caller.uid { None } else { accounts.by_uid(self.uid) };
            return Ok(Identity { uid: self.uid, gid: self.gid, groups: self.groups.clone(), account });
        }
        let chosen = identity(caller, accounts, wanted)?;
        if chosen.is_root() && self.uid != 0 && !self.may_gain {
            return Err(Error::new("cannot run the command as root")
                .because(format!("the box was started for user {}, and nothing in it can be root", self.uid))
                .hint("netbox run -u root … starts a box of root"));
        }
        Ok(chosen)
    }

    /// What it may do: no more than the box's own command could when it started.
    #[must_use]
    pub fn privileges(&self, identity: &Identity) -> Privileges {
        let is_root = identity.is_root();
        let most = Capabilities::from_bits(self.most);
        let most = if is_root || self.may_gain { most } else { Capabilities::NONE };
        let held = if is_root { most } else { Capabilities::NONE };
        Privileges { held, most, may_gain: self.may_gain, own_users: self.own_users }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::privileges::{OF_ROOT, privileges};
    use crate::spec::capability::{Capability, CapabilityList};
    use crate::spec::request::RunRequest;

    const ALL: Capabilities = Capabilities::from_bits((1 << 41) - 1);

    fn caller() -> Caller {
        Caller { uid: 0, gid: 0, groups: vec![0], sudo: None, capabilities: ALL }
    }

    fn accounts() -> Accounts {
        Accounts { passwd: b"ada:x:1000:1000::/home/ada:/bin/bash\n".to_vec(), group: Vec::new() }
    }

    fn of(uid: u32, request: &RunRequest) -> (Identity, Privileges, Rights) {
        let identity = Identity { uid, gid: uid, groups: vec![uid, 7], account: None };
        let privileges = privileges(request, &identity, ALL).unwrap();
        let rights = Rights::new(&identity, &privileges);
        (identity, privileges, rights)
    }

    #[test]
    fn a_further_command_is_who_the_box_was_started_as_with_the_same_rights() {
        let added = CapabilityList::default().and("NET_ADMIN").unwrap();
        let dropped = CapabilityList::default().and("CHOWN").unwrap();
        for (uid, request) in [
            (0, RunRequest::default()),
            (1000, RunRequest::default()),
            (0, RunRequest { cap_add: added, cap_drop: dropped, ..Default::default() }),
            (1000, RunRequest { allow_new_privs: true, ..Default::default() }),
        ] {
            let (identity, privileges, rights) = of(uid, &request);
            let written = serde_json::to_string(&rights).unwrap();
            let rights: Rights = serde_json::from_str(&written).unwrap();
            let found = rights.identity(&caller(), &accounts(), None).unwrap();
            assert_eq!(Identity { account: None, ..found.clone() }, identity);
            assert_eq!(found.account.is_some(), uid == 1000);
            assert_eq!(rights.privileges(&found), privileges);
        }
    }

    #[test]
    fn a_user_asked_for_has_no_capability_though_the_box_is_roots() {
        let (_, _, rights) = of(0, &RunRequest::default());
        let ada = rights.identity(&caller(), &accounts(), Some(&"ada".parse().unwrap())).unwrap();
        assert_eq!((ada.uid, rights.privileges(&ada)), (1000, Privileges::NONE));
    }

    #[test]
    fn root_is_refused_in_a_box_that_cannot_be_root() {
        let root = "root:0".parse().unwrap();
        let root = Some(&root);
        let accounts = Accounts { passwd: b"root:x:0:0::/root:/bin/sh\n".to_vec(), ..accounts() };
        let (_, _, user) = of(1000, &RunRequest::default());
        let refused = user.identity(&caller(), &accounts, root).unwrap_err();
        assert_eq!(refused.exit_status(), 125);
        assert!(refused.to_string().contains("1000"), "{refused}");
        let (_, _, gaining) = of(1000, &RunRequest { allow_new_privs: true, ..Default::default() });
        let identity = gaining.identity(&caller(), &accounts, root).unwrap();
        assert_eq!(gaining.privileges(&identity).held, OF_ROOT);
        assert!(!gaining.privileges(&identity).held.contains(Capability::NET_ADMIN));
    }
}
