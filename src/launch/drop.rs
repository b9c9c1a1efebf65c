//! Giving up every privilege, in order, and then proving that they are gone (promise I5).

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use crate::error::{Context, Error, Result};
use crate::plan::identity::Identity;

/// What a box of root itself keeps: Docker's default set less NET_RAW (no forged packets) and MKNOD (no
/// devices). Each is about files and processes; none about the network but ports below 1024.
const OF_ROOT: [Capability; 12] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// Becomes `identity` with its capabilities and no others, for good.
///
/// # Errors
/// When a step fails, or when anything that was given up can be had again: the caller must not go on.
pub fn drop_privileges(identity: &Identity) -> Result<()> {
    let kept = kept(identity)?;
    // The bounding set first: it takes CAP_SETPCAP, which the next steps give up.
    drop_bounding(&kept)?;
    caps::clear(None, CapSet::Ambient).map_err(refused("cannot clear the ambient capabilities"))?;
    // Groups before the user: afterwards there is no right to change them.
    become_user(identity)?;
    if identity.is_root() {
        for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            let wanted = if matches!(set, CapSet::Inheritable) { CapsHashSet::new() } else { kept.clone() };
            caps::set(None, set, &wanted).map_err(refused("cannot give up capabilities"))?;
        }
    } else {
        // The kernel cleared permitted and effective with the change of user, but not when the user was the
        // same before, nor the inheritable set.
        for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            caps::clear(None, set).map_err(refused("cannot give up capabilities"))?;
        }
    }
    nix::sys::prctl::set_no_new_privs().context(|| "cannot set no_new_privs")?;
    prove(identity, &kept)
}

fn kept(identity: &Identity) -> Result<CapsHashSet> {
    if !identity.is_root() {
        return Ok(CapsHashSet::new());
    }
    // Root in a container may have less than Docker's set: nothing is added to what there is.
    let own = caps::read(None, CapSet::Permitted).map_err(refused("cannot read the capabilities"))?;
    Ok(OF_ROOT.into_iter().filter(|capability| own.contains(capability)).collect())
}

/// By number up to what the kernel knows: the crate's own list ends before newer kernels' does.
fn drop_bounding(kept: &CapsHashSet) -> Result<()> {
    let keep: u64 = kept.iter().fold(0, |bits, capability| bits | capability.bitmask());
    for number in 0..64u8 {
        if keep >> number & 1 == 1 {
            continue;
        }
        match crate::kernel::process::drop_from_bounding_set(number) {
            Ok(()) => {}
            // capabilities(7): past the last capability that this kernel has.
            Err(Errno::EINVAL) => break,
            Err(errno) => {
                return Err(Error::new(format!("cannot drop capability {number} from the bounding set"))
                    .os(&errno.into()));
            }
        }
    }
    Ok(())
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
    setresgid(gid, gid, gid).context(|| format!("cannot become group {gid}"))?;
    setresuid(uid, uid, uid).context(|| format!("cannot become user {uid}"))
}

/// Reads back what the kernel believes, then tries to regain what was given up.
fn prove(identity: &Identity, kept: &CapsHashSet) -> Result<()> {
    let users = getresuid().context(|| "cannot read the user")?;
    let groups = getresgid().context(|| "cannot read the group")?;
    let all = [users.real, users.effective, users.saved].map(Uid::as_raw);
    let all_groups = [groups.real, groups.effective, groups.saved].map(Gid::as_raw);
    if all != [identity.uid; 3] || all_groups != [identity.gid; 3] {
        return Err(leak(format!("the user is {all:?} and the group {all_groups:?}")));
    }
    for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        let now = caps::read(None, set).map_err(refused("cannot read the capabilities"))?;
        let allowed = matches!(set, CapSet::Permitted | CapSet::Effective);
        if now.iter().any(|capability| !(allowed && kept.contains(capability))) {
            return Err(leak(format!("the {set:?} set still has {now:?}")));
        }
    }
    if nix::sys::prctl::get_no_new_privs() != Ok(true) {
        return Err(leak("no_new_privs is not set".to_owned()));
    }
    if !identity.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(leak("user 0 can be had again".to_owned()));
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

fn refused(what: &'static str) -> impl Fn(caps::errors::CapsError) -> Error {
    move |error| Error::new(what).because(io::Error::other(error))
}
