//! Which processes are a box's.

use serde::Deserialize;

use super::record::MountIdentity;

/// What of a box's record tells its processes from others: read for every box, the rest is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Marks {
    /// The keeper.
    pub keeper_pid: i32,
    /// Its mount namespace; `None` for a box that shares the host's.
    pub mounts: Option<MountIdentity>,
    /// Its network namespace; `None` for a box that shares the host's.
    pub network: Option<u64>,
}

/// Where a process is, by the inodes of its namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its network namespace.
    pub network: u64,
    /// Its mount namespace.
    pub mounts: u64,
}

impl Marks {
    /// The namespace that who is in it is in the box, wherever it came from, by its kind and inode: the network, as `ip netns
    /// pids` has it, or, where the box has none of its own, the mounts.
    #[must_use]
    pub fn enclosure(&self) -> Option<(&'static str, u64)> {
        let mounts = self.mounts.map(|(inode, _)| ("mnt", inode));
        self.network.map(|inode| ("net", inode)).or(mounts)
    }

    /// Whether whoever is there is in that.
    #[must_use]
    pub fn encloses(&self, there: Whereabouts) -> bool {
        match self.enclosure() {
            Some(("net", inode)) => inode == there.network,
            Some((_, inode)) => inode == there.mounts,
            None => false,
        }
    }

    /// Whether a descendant of the keeper that is there is the box's. In a box with mounts of its own those among the keeper's
    /// mounts are its helpers: what the box starts cannot get out.
    #[must_use]
    pub const fn has_as_descendant(&self, there: Whereabouts, keeper: Whereabouts) -> bool {
        self.mounts.is_none() || there.mounts != keeper.mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Whereabouts = Whereabouts { network: 1, mounts: 2 };
    const NAT: Marks = Marks { keeper_pid: 10, mounts: Some((20, Some(7))), network: Some(30) };
    const HOSTS_NETWORK: Marks = Marks { network: None, ..NAT };
    const NOTHING_OF_ITS_OWN: Marks = Marks { mounts: None, ..HOSTS_NETWORK };

    #[test]
    fn who_is_in_a_boxs_network_is_in_the_box() {
        assert!(NAT.encloses(Whereabouts { network: 30, mounts: 20 }));
        assert!(NAT.encloses(Whereabouts { network: 30, mounts: 2 }), "entered from outside");
        assert!(!NAT.encloses(HOST));
        assert!(!NAT.encloses(Whereabouts { network: 1, mounts: 20 }));
    }

    #[test]
    fn who_is_among_the_mounts_of_a_box_without_a_network_is_in_it() {
        assert!(HOSTS_NETWORK.encloses(Whereabouts { network: 1, mounts: 20 }));
        assert!(!HOSTS_NETWORK.encloses(HOST));
        assert!(!NOTHING_OF_ITS_OWN.encloses(HOST), "everybody is there");
    }

    #[test]
    fn helpers_are_not_the_boxs_and_nested_namespaces_are() {
        assert!(!NAT.has_as_descendant(HOST, HOST));
        assert!(NAT.has_as_descendant(Whereabouts { network: 99, mounts: 98 }, HOST));
        assert!(!HOSTS_NETWORK.has_as_descendant(HOST, HOST));
        assert!(NOTHING_OF_ITS_OWN.has_as_descendant(HOST, HOST), "a box without a network has no helpers");
    }
}
