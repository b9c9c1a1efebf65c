//! Giving up every privilege, in order, and then proving that they are gone (promise I5).

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use crate::error::{Context, Error, Result};
use crate::kernel::privilege;
use crate::kernel::terminal::{self, Terminal};
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;
use crate::spec::capability::Capability;

/// Becomes `identity` with these privileges and no others, for good.
///
/// # Errors
/// When a step fails, or when anything that was given up can be had again: the caller must not go on.
pub fn drop_privileges(identity: &Identity, privileges: &Privileges) -> Result<()> {
    // The bounding set first: it takes CAP_SETPCAP, which the next steps give up.
    privilege::limit_bounding_set(privileges.most).map_err(|(capability, errno)| {
        Error::new(format!("cannot drop {capability} from the bounding set")).os(&errno.into())
    })?;
    // Groups before the user: afterwards there is no right to change them.
    become_user(identity)?;
    // The change of user cleared permitted and effective, but not when the user was the same before, and never the inheritable
    // set.
    privilege::keep_only(privileges.held).context(|| "cannot give up capabilities")?;
    if !privileges.may_gain {
        nix::sys::prctl::set_no_new_privs().context(|| "cannot set no_new_privs")?;
    }
    prove(identity, privileges)
}

fn become_user(identity: &Identity) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&groups) {
        Ok(()) => {}
        // user_namespaces(7): where setgroups is denied, the groups that are there must be the wanted ones.
        Err(Errno::EPERM) if getgroups().is_ok_and(|now| now == groups) => {}
        Err(errno) => {
            return Err(
                Error::new(format!("cannot take on the groups {:?}", identity.groups)).os(&errno.into())
            );
        }
    }
    if Uid::effective() != uid {
        // As this user still, whose quota is the larger one where it is root; possession is what counts for the other.
        privilege::leave_session_keyring().context(|| "cannot leave the session keyring")?;
        if Terminal::controlling().is_some() {
            // While there is CAP_SYS_ADMIN, which it takes where privileges may be gained.
            terminal::forbid_typing().context(|| "cannot protect the terminal")?;
        }
    }
    setresgid(gid, gid, gid).context(|| format!("cannot become group {gid}"))?;
    setresuid(uid, uid, uid).context(|| format!("cannot become user {uid}"))
}

/// Reads back what the kernel believes, then tries to regain what was given up.
fn prove(identity: &Identity, privileges: &Privileges) -> Result<()> {
    let users = getresuid().context(|| "cannot read the user")?;
    let groups = getresgid().context(|| "cannot read the group")?;
    let all = [users.real, users.effective, users.saved].map(Uid::as_raw);
    let all_groups = [groups.real, groups.effective, groups.saved].map(Gid::as_raw);
    if all != [identity.uid; 3] || all_groups != [identity.gid; 3] {
        return Err(leak(format!("the user is {all:?} and the group {all_groups:?}")));
    }
    // Without an inheritable capability there is no ambient one (`keep_only`).
    let now = privilege::own().context(|| "cannot read the capabilities")?;
    let left =
        [now.permitted.without(privileges.held), now.effective.without(privileges.held), now.inheritable];
    if left.iter().any(|set| !set.is_empty()) {
        return Err(leak(format!("the permitted, effective and inheritable sets still have {left:?}")));
    }
    if !privileges.may_gain && nix::sys::prctl::get_no_new_privs() != Ok(true) {
        return Err(leak("no_new_privs is not set".to_owned()));
    }
    if !identity.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(leak("user 0 can be had again".to_owned()));
    }
    if privileges.held.contains(Capability::SYS_ADMIN) {
        return Ok(());
    }
    // What CAP_SYS_ADMIN, the key to every other namespace, would allow.
    match nix::sched::unshare(CloneFlags::CLONE_NEWUTS) {
        Err(Errno::EPERM) => Ok(()),
        Ok(()) => Err(leak("a namespace could be made".to_owned())),
        Err(errno) => Err(leak(format!("the last test failed with {errno}"))),
    }
}

fn leak(what: String) -> Error {
    Error::new("cannot prove that every privilege is gone").because(what)
}
