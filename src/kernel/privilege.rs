//! This process's capabilities, each set in one call.

use std::io;

use nix::errno::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::spec::capability::{Capabilities, Capability};

/// The three sets of a process that capget(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// What it may take into effect.
    pub permitted: Capabilities,
    /// What is in effect.
    pub effective: Capabilities,
    /// What it may pass on by exec.
    pub inheritable: Capabilities,
}

/// Reads the sets of this process.
///
/// # Errors
/// None that the manual names.
pub fn own() -> io::Result<Sets> {
    let sets = capabilities(None)?;
    let of = |set: CapabilitySet| Capabilities::from_bits(set.bits());
    Ok(Sets {
        permitted: of(sets.permitted),
        effective: of(sets.effective),
        inheritable: of(sets.inheritable),
    })
}

/// Keeps `kept` permitted and effective, and nothing inheritable. With that the ambient set is empty too: it holds only what
/// is both permitted and inheritable (capabilities(7); security/commoncap.c, `cap_capset`).
///
/// # Errors
/// EPERM when `kept` holds what is not permitted now.
pub fn keep_only(kept: Capabilities) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_retain(kept.bits());
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Removes everything but `kept` from what any later exec can gain (PR_CAPBSET_DROP(2const)), by number up to what the kernel
/// knows. A look at each would take as many calls.
///
/// # Errors
/// Naming the capability; EPERM without CAP_SETPCAP.
pub fn limit_bounding_set(kept: Capabilities) -> Result<(), (Capability, Errno)> {
    for capability in Capabilities::from_bits(!kept.bits()).iter() {
        // SAFETY: this prctl(2) takes a number and touches no memory.
        let dropped =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability.number()), 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            // capabilities(7): past the last capability that this kernel has.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err((capability, errno)),
        }
    }
    Ok(())
}

/// Gives this process a session keyring of its own, empty and without a name, in place of the one that it shares with its parent
/// (keyrings(7)). Who has a keyring possesses its keys, whatever user it is. It counts against the quota of the user that the
/// process is now.
///
/// # Errors
/// ENOMEM, EDQUOT.
pub fn leave_session_keyring() -> Result<(), Errno> {
    const NO_NAME: libc::c_ulong = 0;
    // SAFETY: keyctl(2) with a null name reads no memory of this process.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::c_ulong::from(libc::KEYCTL_JOIN_SESSION_KEYRING), NO_NAME)
    };
    match Errno::result(joined) {
        // A kernel without CONFIG_KEYS; or a container's seccomp filter, which goes for all that this process starts.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}
