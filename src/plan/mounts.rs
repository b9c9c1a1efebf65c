//! The mounts of a box, as values that print in the words of mount(8).
//!
//! What is mounted and what `--dry-run` prints are the same lists.

use std::fmt;

use crate::spec::net::Net;
use crate::spec::request::RunRequest;

/// Where systemd-resolved has its sockets, and the files that /etc/resolv.conf may be a link to.
pub const RESOLVED: &str = "/run/systemd/resolve";

/// Where the C library finds name services of the host.
const NAME_SERVICES: [&str; 2] = [RESOLVED, "/run/nscd"];

/// The options of the empty file system that hides a directory (tmpfs(5)).
pub const TMPFS_OF_HIDDEN: &str = "size=4k,nr_inodes=8,mode=755";

/// A change to the box's mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// What the box mounts never appears on the host.
    Separate {
        /// Nor does what the host mounts later appear in the box (MS_PRIVATE); otherwise it does (MS_SLAVE), as for a
        /// command started bare.
        apart: bool,
    },
    /// None of the networks that ip-netns(8) has names for is held by the box: what the host unmounts later stays in a box apart.
    LetGoOfNetworks,
    /// All ignore set-user-id bits and file capabilities.
    ///
    /// no_new_privs ignores set-user-id bits but not file capabilities: a program that has one which the bounding set
    /// has not, as ping often does, would be refused (EPERM, `cap_bprm_creds_from_file`). On a nosuid mount it just runs.
    Nosuid,
    /// A sysfs of the box's own network, where there is one.
    Sysfs {
        /// File permissions in /sys do not stop what is in the box.
        read_only: bool,
    },
    /// Hides sockets by which the C library asks the host's name services, past the box's resolver: nscd(8), and
    /// systemd-resolved (nss-resolve(8)). Their directory, where there is one, as the sockets are made anew with every
    /// start of these.
    Hide {
        /// Where they are.
        directory: &'static str,
        /// Whether the box has a resolv.conf(5) of its own.
        with_resolver: bool,
    },
    /// A /proc of the box's own processes.
    Proc,
    /// The box's own message queues, where there are some.
    MessageQueues,
    /// Nobody may write there any more.
    ReadOnly(&'static str),
}

/// Those that are made before the settings of the box are written. `can_be_root`: whether something in the box can.
#[must_use]
pub fn before_settings(request: &RunRequest, can_be_root: bool) -> Vec<Mount> {
    if !request.has_own_mounts() {
        return Vec::new();
    }
    let with_resolver = request.net.is_behind_gateway() || matches!(request.net, Net::Box(_));
    // In a namespace that is there, names are found as `ip netns exec` finds them.
    let has_names = with_resolver || request.has_own_network();
    let [resolved, nscd] = NAME_SERVICES.map(|directory| Mount::Hide { directory, with_resolver });
    let rest = [
        (request.unshare.mount, Mount::LetGoOfNetworks),
        (!request.allow_new_privs, Mount::Nosuid),
        (request.is_off_the_host(), Mount::Sysfs { read_only: can_be_root }),
        (has_names, resolved),
        (has_names, nscd),
        (request.unshare.pid, Mount::Proc),
        (request.unshare.ipc, Mount::MessageQueues),
    ];
    let first = Mount::Separate { apart: request.unshare.mount };
    let rest = rest.into_iter().filter(|(wanted, _)| *wanted).map(|(_, mount)| mount);
    [first].into_iter().chain(rest).collect()
}

/// Those after: /proc/sys is closed to a box of root, to whom the kernel gives the settings of its own network
/// namespace, and those of the whole machine, by user id alone.
#[must_use]
pub fn after_settings(request: &RunRequest, can_be_root: bool) -> Option<Mount> {
    (request.has_own_mounts() && can_be_root).then_some(Mount::ReadOnly("/proc/sys"))
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HARMLESS: &str = "nosuid,nodev,noexec";
        match self {
            Self::Separate { apart: false } => f.write_str("mount --make-rslave /"),
            Self::Separate { apart: true } => f.write_str("mount --make-rprivate /"),
            Self::LetGoOfNetworks => f.write_str("umount -l /run/netns"),
            Self::Nosuid => f.write_str("mount -o remount,bind,nosuid=recursive /"),
            Self::Sysfs { read_only } => {
                let access = if *read_only { ",ro" } else { "" };
                write!(f, "mount -t sysfs -o {HARMLESS}{access} sysfs /sys")
            }
            Self::Hide { directory, .. } => {
                write!(f, "mount -t tmpfs -o {HARMLESS},ro,{TMPFS_OF_HIDDEN} netbox {directory}")
            }
            Self::Proc => write!(f, "mount -t proc -o {HARMLESS} proc /proc"),
            Self::MessageQueues => write!(f, "mount -t mqueue -o {HARMLESS} mqueue /dev/mqueue"),
            Self::ReadOnly(path) => write!(f, "mount --bind -o ro,{HARMLESS} {path} {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::net::Net;

    #[test]
    fn a_box_has_the_mounts_that_its_namespaces_and_rights_take() {
        let bare = RunRequest::default();
        let hide = |directory| Mount::Hide { directory, with_resolver: true };
        let plain = [
            Mount::Separate { apart: false },
            Mount::Nosuid,
            Mount::Sysfs { read_only: false },
            hide("/run/systemd/resolve"),
            hide("/run/nscd"),
        ];
        assert_eq!(before_settings(&bare, false), plain);
        assert_eq!(after_settings(&bare, false), None);
        assert_eq!(after_settings(&bare, true), Some(Mount::ReadOnly("/proc/sys")));
        let mut on_host = RunRequest { net: Net::Host, ..RunRequest::default() };
        assert_eq!((before_settings(&on_host, true), after_settings(&on_host, true)), (Vec::new(), None));
        (on_host.unshare.pid, on_host.allow_new_privs) = (true, true);
        assert_eq!(before_settings(&on_host, true), [Mount::Separate { apart: false }, Mount::Proc]);
    }
}
