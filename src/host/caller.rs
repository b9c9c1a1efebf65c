//! Who called netbox, and who else there is.

use nix::unistd::{getegid, geteuid, getgroups, getuid};

use crate::error::{Context, Result};
use crate::kernel::privilege;
use crate::plan::identity::{Accounts, Caller};

/// Who called netbox.
///
/// # Errors
/// Those of getgroups(2) and capget(2).
pub fn caller() -> Result<Caller> {
    let groups = getgroups().context(|| "cannot read the caller's groups")?;
    Ok(Caller {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        sudo: sudo(),
        capabilities: privilege::own().context(|| "cannot read the caller's capabilities")?.effective,
    })
}

/// Whether netbox was started with another user's rights than its caller's (setuid), which it is not made for.
#[must_use]
pub fn is_setuid() -> bool {
    getuid() != geteuid()
}

/// sudo(8): SUDO_UID and SUDO_GID are the numbers of the user who called it.
fn sudo() -> Option<(u32, u32)> {
    let number = |name| std::env::var(name).ok()?.parse().ok().filter(|number| *number != u32::MAX);
    Some((number("SUDO_UID")?, number("SUDO_GID")?))
}

/// The accounts of this machine: /etc/passwd and /etc/group. A static program asks no name service.
#[must_use]
pub fn accounts() -> Accounts {
    // Without the files there are no accounts, and numbers still work.
    Accounts {
        passwd: std::fs::read("/etc/passwd").unwrap_or_default(),
        group: std::fs::read("/etc/group").unwrap_or_default(),
    }
}
