//! Capabilities: by name as Docker takes them, in sets as the kernel does.

use std::fmt;

use crate::error::{Error, Result};

/// include/uapi/linux/capability.h, in order: a capability's number is its place.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability of capabilities(7), by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(u8);

impl Capability {
    /// Change the owner of files.
    pub const CHOWN: Self = Self(0);
    /// Pass over file permissions.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Pass over checks of a file's owner.
    pub const FOWNER: Self = Self(3);
    /// Keep set-user-id bits.
    pub const FSETID: Self = Self(4);
    /// Signal any process.
    pub const KILL: Self = Self(5);
    /// Change groups.
    pub const SETGID: Self = Self(6);
    /// Change users.
    pub const SETUID: Self = Self(7);
    /// Change its own sets.
    pub const SETPCAP: Self = Self(8);
    /// Bind ports below 1024.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// Configure networks.
    pub const NET_ADMIN: Self = Self(12);
    /// chroot(2)
    pub const SYS_CHROOT: Self = Self(18);
    /// Namespaces, mounts, and much else.
    pub const SYS_ADMIN: Self = Self(21);
    /// Write to the audit log.
    pub const AUDIT_WRITE: Self = Self(29);
    /// Give files capabilities.
    pub const SETFCAP: Self = Self(31);

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The one of this name, in any case, with or without `CAP_`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let place = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(place).ok().map(Self)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => write!(f, "CAP_{name}"),
            None => write!(f, "capability {}", self.0),
        }
    }
}

/// A set of capabilities: a bit for each, by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// All that have a name.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// These.
    #[must_use]
    pub const fn of(capabilities: &[Capability]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < capabilities.len() {
            bits |= 1 << capabilities[index].0;
            index += 1;
        }
        Self(bits)
    }

    /// From the kernel's bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> capability.0 & 1 == 1
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// One by one, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..64).map(Capability).filter(move |capability| self.contains(*capability))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(|capability| capability.to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

/// What `--cap-add` or `--cap-drop` named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityList {
    /// `ALL`
    pub all: bool,
    /// One by one.
    pub named: Capabilities,
}

impl CapabilityList {
    /// The list with one more name.
    ///
    /// # Errors
    /// When no capability has that name.
    pub fn and(self, name: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case("ALL") {
            return Ok(Self { all: true, ..self });
        }
        match Capability::named(name) {
            Some(capability) => Ok(Self { named: self.named.or(Capabilities::of(&[capability])), ..self }),
            None => Err(Error::usage(format!("invalid capability {name:?}"))
                .because("there is none of this name")
                .hint("NET_RAW or CAP_NET_RAW, and so on: capabilities(7); ALL for all of them")),
        }
    }

    /// Whether it names none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.all && self.named.is_empty()
    }
}

impl fmt::Display for CapabilityList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.all, self.named.is_empty()) {
            (true, true) => f.write_str("ALL"),
            (true, false) => write!(f, "ALL, {}", self.named),
            (false, _) => self.named.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_kernel() {
        for (capability, number, name) in [
            (Capability::CHOWN, CapabilitySet::CHOWN, "CAP_CHOWN"),
            (Capability::DAC_OVERRIDE, CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
            (Capability::FOWNER, CapabilitySet::FOWNER, "CAP_FOWNER"),
            (Capability::FSETID, CapabilitySet::FSETID, "CAP_FSETID"),
            (Capability::KILL, CapabilitySet::KILL, "CAP_KILL"),
            (Capability::SETGID, CapabilitySet::SETGID, "CAP_SETGID"),
            (Capability::SETUID, CapabilitySet::SETUID, "CAP_SETUID"),
            (Capability::SETPCAP, CapabilitySet::SETPCAP, "CAP_SETPCAP"),
            (Capability::NET_BIND_SERVICE, CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
            (Capability::NET_ADMIN, CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (Capability::SYS_CHROOT, CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
            (Capability::SYS_ADMIN, CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
            (Capability::AUDIT_WRITE, CapabilitySet::AUDIT_WRITE, "CAP_AUDIT_WRITE"),
            (Capability::SETFCAP, CapabilitySet::SETFCAP, "CAP_SETFCAP"),
            (Capability(40), CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"),
        ] {
            assert_eq!(1 << capability.number(), number.bits());
            assert_eq!(capability.to_string(), name);
        }
        assert_eq!(Capability(41).to_string(), "capability 41");
    }

    #[test]
    fn sets() {
        let set = Capabilities::of(&[Capability::CHOWN, Capability::NET_ADMIN]);
        assert_eq!(set.bits(), 0x1001);
        assert_eq!(set.to_string(), "CAP_CHOWN, CAP_NET_ADMIN");
        assert!(set.contains(Capability::NET_ADMIN) && !set.contains(Capability::SYS_ADMIN));
        assert!(set.without(set).is_empty());
        assert_eq!(set.and(Capabilities::of(&[Capability::CHOWN])).bits(), 1);
    }
    #[test]
    fn names_are_dockers() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_Net_Admin"] {
            assert_eq!(Capability::named(name), Some(Capability::NET_ADMIN), "{name}");
        }
        let list = CapabilityList::default().and("kill").unwrap().and("all").unwrap();
        assert!(list.all && list.named.contains(Capability::KILL) && list.to_string() == "ALL, CAP_KILL");
        for name in ["", "CAP_", "NET ADMIN", "NET_ADMIN,KILL", "CAP_ALL", "41", "CAP_CAP_KILL"] {
            assert_eq!(CapabilityList::default().and(name).unwrap_err().exit_status(), 2, "{name:?}");
        }
    }
}
