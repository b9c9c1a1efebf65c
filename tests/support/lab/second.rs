//! A second host beside the lab's own: another network namespace on wan's bridge, with its own idea of what netbox keeps.

use std::fs::File;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};

use super::namespaces::mount_new;
use super::{Lab, Place, Shape, Snapshot, WAN, attach, links, settled_state, try_within};

/// The second host's address on the uplink's network.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The host. What runs in it sees its `/var/lib` and its `/sys`; `/run`, and with it the programs, are the lab's.
#[derive(Debug)]
pub(crate) struct SecondHost {
    place: Place,
    mounts: File,
    before: Snapshot,
}

impl SecondHost {
    /// On the network that the first one's uplink is on.
    pub(crate) fn new(lab: &Lab) -> Self {
        assert_eq!(lab.shape, Shape::SharedUplink, "there is a bridge for it");
        let place = Place::new();
        lab.wan(|| {
            links::veth("p2", "hw", place.file());
            links::enslave("p2", "br0");
            links::up("p2");
        });
        place.run(|| {
            let own6 = std::net::Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);
            attach("hw", (SECOND, own6));
            links::route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
        });
        let mounts = place.run(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a new mount namespace");
            mount_new("tmpfs", "/var/lib", MsFlags::empty());
            mount_new("sysfs", "/sys", MsFlags::MS_NOEXEC);
            File::open("/proc/thread-self/ns/mnt").expect("this thread's mount namespace")
        });
        let before = in_both(&place, &mounts, || {
            let _ = Snapshot::take();
            settled_state()
        });
        Self { place, mounts, before }
    }

    /// Runs `work` there, and waits for it; its panic is the caller's.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_both(&self.place, &self.mounts, work)
    }

    /// Waits until it is as it was, but for what is the first one's too, and fails if it is not within two seconds.
    pub(crate) fn assert_clean(&self) {
        let limit = Duration::from_secs(2);
        let mut difference = String::new();
        let clean = try_within(limit, || {
            difference = self.before.difference(&self.run(Snapshot::take));
            difference.is_empty().then_some(())
        });
        assert!(clean.is_some(), "the second host is not as it was {limit:?} later:\n{difference}");
    }
}

fn in_both<T: Send>(place: &Place, mounts: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            // Or the directory that this thread is in would be the other threads' too.
            unshare(CloneFlags::CLONE_FS).expect("a working directory of its own");
            setns(mounts, CloneFlags::CLONE_NEWNS).expect("to enter a mount namespace of the lab");
            setns(place.file(), CloneFlags::CLONE_NEWNET).expect("to enter a network namespace of the lab");
            work()
        });
        done.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
