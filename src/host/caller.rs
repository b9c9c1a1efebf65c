//! Who called netbox, and who else there is.

use std::ffi::OsString;

use nix::unistd::{getegid, geteuid, getgroups, getuid};

use crate::error::{Context, Error, Result};
use crate::kernel::privilege;
use crate::plan::identity::{Accounts, Caller, Identity, identity};
use crate::spec::request::RunRequest;

/// Who called netbox.
///
/// # Errors
/// Those of getgroups(2) and capget(2); what sudo(8) says of its caller where it cannot be understood.
pub fn caller() -> Result<Caller> {
    let groups = getgroups().context(|| "cannot read the caller's groups")?;
    Ok(Caller {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        sudo: if geteuid().is_root() { sudo(|name| std::env::var_os(name))? } else { None },
        capabilities: privilege::own().context(|| "cannot read the caller's capabilities")?.effective,
    })
}

/// Who the command runs as. The account files are read only where somebody else than the caller may be meant.
///
/// # Errors
/// A user or a group that does not exist.
pub fn who(request: &RunRequest, caller: &Caller) -> Result<Identity> {
    let somebody_else = request.user.is_some() || caller.sudo.is_some();
    let accounts = if somebody_else { accounts() } else { Accounts::default() };
    identity(caller, &accounts, request.user.as_ref())
}

/// Whether netbox was started with another user's rights than its caller's (setuid), which it is not made for.
#[must_use]
pub fn is_setuid() -> bool {
    getuid() != geteuid()
}

/// sudo(8): SUDO_UID and SUDO_GID are the numbers of the user who called it. One that cannot be read must not make root of
/// him.
fn sudo(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<(u32, u32)>> {
    let of = |name: &str| -> Result<Option<u32>> {
        let Some(value) = variable(name) else { return Ok(None) };
        let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number != u32::MAX);
        number
            .map(Some)
            .ok_or_else(|| unclear(format!("{name} is {value:?}, which is no number of a user or group")))
    };
    match (of("SUDO_UID")?, of("SUDO_GID")?) {
        (Some(uid), Some(gid)) => Ok(Some((uid, gid))),
        (None, None) => Ok(None),
        _ => Err(unclear("only one of SUDO_UID and SUDO_GID is set".to_owned())),
    }
}

fn unclear(why: String) -> Error {
    Error::new("cannot tell who called sudo")
        .because(why)
        .hint("unset both to run as root, or use sudo itself, which sets both")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sudo_says_is_understood_or_an_error() {
        let said = |uid: Option<&str>, gid: Option<&str>| {
            sudo(|name| if name == "SUDO_UID" { uid } else { gid }.map(OsString::from))
                .map_err(|error| error.to_string())
        };
        assert_eq!(said(None, None), Ok(None));
        assert_eq!(said(Some("1000"), Some("100")), Ok(Some((1000, 100))));
        for (uid, gid) in [
            (Some("1000"), None),
            (None, Some("100")),
            (Some(""), Some("100")),
            (Some("1000"), Some("x")),
            (Some("-1"), Some("100")),
            (Some("4294967295"), Some("100")),
        ] {
            let error = said(uid, gid).unwrap_err();
            assert!(error.contains("SUDO_"), "{error}");
        }
    }
}
