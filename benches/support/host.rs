//! A host for netbox: a network namespace with an uplink, and a state directory of its own.

use std::fs::File;
use std::net::Ipv4Addr;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::links;
use super::namespaces::mount_new;
use super::place::Place;

/// The host's address on its uplink.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Its neighbour and router.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Beyond its router. (pasta takes the router's address for the host's.)
pub(crate) const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The interface that holds its default route.
pub(crate) const UPLINK: &str = "uplink";

/// What programs started on it see. A benchmark may have several, which know nothing of each other.
#[derive(Debug)]
pub(crate) struct Host {
    network: File,
    mounts: File,
    outside: Place,
}

impl Host {
    /// Makes one and enters it.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network and a mount namespace");
        let own = |kind: &str| File::open(format!("/proc/self/ns/{kind}")).expect("a namespace");
        let (network, mounts) = (own("net"), own("mnt"));
        let none: Option<&str> = None;
        for (kind, at, options) in [("sysfs", "/sys", none), ("tmpfs", "/run/netbox", Some("mode=755"))] {
            mount(Some(kind), at, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options)
                .unwrap_or_else(|errno| panic!("cannot mount {kind} on {at}: {errno}"));
        }
        Place::defaults();
        let outside = Place::new();
        links::veth(UPLINK, "host", outside.file());
        links::up(UPLINK);
        links::address(UPLINK, HOST.into(), 24);
        outside.run(|| {
            links::up("host");
            links::address("host", OUTSIDE.into(), 24);
            links::address("host", BEYOND.into(), 32);
        });
        links::route(Ipv4Addr::UNSPECIFIED.into(), 0, OUTSIDE.into());
        Self { network, mounts, outside }
    }

    /// Has a directory of its own for what outlives a reboot: networks are kept there. The calling thread is on it.
    pub(crate) fn keep_networks(&self) {
        self.enter();
        mount_new("tmpfs", "/var/lib", MsFlags::empty());
    }

    /// From now on programs are started here.
    pub(crate) fn enter(&self) {
        setns(&self.network, CloneFlags::CLONE_NEWNET).expect("to enter the host's network namespace");
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).expect("to enter the host's mount namespace");
    }

    /// The network namespace at the other end of its uplink.
    pub(crate) fn outside(&self) -> &Place {
        &self.outside
    }
}
