//! What the command may do (promise I5).

use crate::error::{Error, Result};
use crate::spec::capability::{Capabilities, Capability};
use crate::spec::request::RunRequest;

use super::identity::Identity;

/// What a box of root itself has: Docker's default set less NET_RAW (no forged packets) and MKNOD (no
/// devices). Each is about files and processes; none about the network but ports below 1024.
pub const OF_ROOT: Capabilities = Capabilities::of(&[
    Capability::CHOWN,
    Capability::DAC_OVERRIDE,
    Capability::FSETID,
    Capability::FOWNER,
    Capability::SETGID,
    Capability::SETUID,
    Capability::SETFCAP,
    Capability::SETPCAP,
    Capability::NET_BIND_SERVICE,
    Capability::SYS_CHROOT,
    Capability::KILL,
    Capability::AUDIT_WRITE,
]);

/// The rights of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privileges {
    /// The capabilities that it starts with.
    pub held: Capabilities,
    /// Those that it and whatever it executes can ever have: the bounding set.
    pub most: Capabilities,
    /// Whether a program that it executes may have more rights than it: no `no_new_privs`.
    pub may_gain: bool,
    /// Whether the box has a user namespace of its own, in which alone the capabilities count.
    ///
    /// CAP_NET_ADMIN over the host's user namespace would be one over the gateway and the host: rtnetlink(7) takes links of
    /// every network namespace that a process can name, and a box can name the gateway's, where its link's other end is.
    pub own_users: bool,
}

impl Privileges {
    /// None.
    pub const NONE: Self =
        Self { held: Capabilities::NONE, most: Capabilities::NONE, may_gain: false, own_users: false };

    /// Whether something in the box can be root.
    #[must_use]
    pub const fn can_be_root(&self, identity: &Identity) -> bool {
        identity.is_root() || self.may_gain
    }
}

/// Decides on them. `own`: the capabilities of netbox itself, to which nothing is added.
///
/// # Errors
/// Capabilities asked for that cannot be had.
pub fn privileges(request: &RunRequest, identity: &Identity, own: Capabilities) -> Result<Privileges> {
    let may_gain = request.allow_new_privs;
    let (add, drop) = (request.cap_add, request.cap_drop);
    if !add.is_empty() && !identity.is_root() && !may_gain {
        return Err(Error::new(format!("cannot add {add} to the box"))
            .because(format!("the command runs as user {}, who has no capabilities", identity.uid))
            .hint("-u root; docs/security.md says what a box of root can do to the host"));
    }
    let missing = add.named.without(own);
    if !missing.is_empty() {
        return Err(
            Error::new(format!("cannot add {missing} to the box")).because("netbox itself does not have it")
        );
    }
    // As in Docker: ALL first, then what is named.
    let added = if add.all { own } else { add.named };
    let kept = if drop.all { Capabilities::NONE } else { OF_ROOT.and(own) };
    let most = kept.or(added).without(drop.named);
    let most = if identity.is_root() || may_gain { most } else { Capabilities::NONE };
    let held = if identity.is_root() { most } else { Capabilities::NONE };
    Ok(Privileges { held, most, may_gain, own_users: !most.without(OF_ROOT).is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::capability::CapabilityList;

    const OWN: Capabilities = Capabilities::from_bits((1 << 41) - 1);

    fn list(names: &[&str]) -> CapabilityList {
        names.iter().fold(CapabilityList::default(), |list, name| list.and(name).unwrap())
    }

    fn decide(uid: u32, add: &[&str], drop: &[&str], allow_new_privs: bool) -> Result<Privileges> {
        let request =
            RunRequest { cap_add: list(add), cap_drop: list(drop), allow_new_privs, ..RunRequest::default() };
        privileges(&request, &Identity { uid, gid: uid, groups: vec![uid], account: None }, OWN)
    }

    #[test]
    fn root_has_dockers_set_less_two_and_a_user_nothing() {
        let root = decide(0, &[], &[], false).unwrap();
        assert_eq!((root.held, root.most), (OF_ROOT, OF_ROOT));
        assert!(!root.may_gain && !root.own_users);
        assert_eq!(decide(1000, &[], &[], false), Ok(Privileges::NONE));
        assert_eq!(decide(1000, &[], &["ALL"], false), Ok(Privileges::NONE));
    }

    #[test]
    fn what_is_added_beyond_the_default_counts_in_a_user_namespace_only() {
        let added = decide(0, &["net_admin"], &[], false).unwrap();
        assert!(added.held.contains(Capability::NET_ADMIN) && added.own_users);
        assert!(added.held.contains(Capability::CHOWN));
        let known = decide(0, &["CHOWN"], &["ALL"], false).unwrap();
        assert_eq!(known.held, Capabilities::of(&[Capability::CHOWN]));
        assert!(!known.own_users);
        assert_eq!(decide(0, &["ALL"], &[], false).unwrap().held, OWN);
        let less = decide(0, &["ALL"], &["SYS_ADMIN"], false).unwrap();
        assert!(!less.held.contains(Capability::SYS_ADMIN) && less.held.contains(Capability::NET_ADMIN));
        assert!(decide(0, &[], &["ALL"], false).unwrap().most.is_empty());
    }

    #[test]
    fn a_user_gets_no_capability_but_what_programs_may_gain_is_limited() {
        let refused = decide(1000, &["NET_RAW"], &[], false).unwrap_err();
        assert!(
            refused.to_string().contains("CAP_NET_RAW") && refused.to_string().contains("1000"),
            "{refused}"
        );
        let gaining = decide(1000, &[], &["KILL"], true).unwrap();
        assert!(gaining.held.is_empty() && gaining.may_gain);
        assert_eq!(gaining.most, OF_ROOT.without(Capabilities::of(&[Capability::KILL])));
    }

    #[test]
    fn nothing_is_added_to_what_netbox_has() {
        let request = RunRequest { cap_add: list(&["SYS_TIME"]), ..RunRequest::default() };
        let identity = Identity { uid: 0, gid: 0, groups: vec![], account: None };
        let refused = privileges(&request, &identity, OF_ROOT).unwrap_err();
        assert!(refused.to_string().contains("CAP_SYS_TIME"), "{refused}");
        let few = Capabilities::of(&[Capability::CHOWN]);
        assert_eq!(privileges(&RunRequest::default(), &identity, few).unwrap().held, few);
    }
}
