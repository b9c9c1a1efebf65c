//! What the command may do (promise I5).

use crate::spec::capability::{Capabilities, Capability};

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
}

impl Privileges {
    /// None.
    pub const NONE: Self = Self { held: Capabilities::NONE, most: Capabilities::NONE };
}

/// Decides on them. `own`: the capabilities of netbox itself, to which nothing is added.
#[must_use]
pub fn privileges(identity: &Identity, own: Capabilities) -> Privileges {
    // Root in a container may have less than Docker's set.
    let held = if identity.is_root() { OF_ROOT.and(own) } else { Capabilities::NONE };
    Privileges { held, most: held }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_dockers_set_less_two_and_a_user_nothing() {
        let of = |uid, own| {
            privileges(
                &Identity { uid, gid: uid, groups: vec![uid], account: None },
                Capabilities::from_bits(own),
            )
        };
        assert_eq!(of(0, u64::MAX), Privileges { held: OF_ROOT, most: OF_ROOT });
        assert_eq!(of(1000, u64::MAX), Privileges::NONE);
        assert_eq!(of(0, 1).held, Capabilities::of(&[Capability::CHOWN]));
    }
}
