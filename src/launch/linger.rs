//! What the keeper still does when the launcher has gone: see to it that the kernel frees what it frees late.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::apply::attach;
use crate::apply::gateway::{self, Gateway, Host};
use crate::apply::lease::Lease;
use crate::apply::state::State;
use crate::kernel::conntrack::{Conntrack, Selector};
use crate::kernel::namespace;
use crate::kernel::nft::Nft;
use crate::plan::record::PortMap;
use crate::plan::topology::box_link;

/// The kernel takes 20 to 30 ms to remove the links of a network namespace whose last process ended; longer only if
/// something else holds it, an orphaned TCP connection for instance. Also longer than nf_tables needs to free what was
/// deleted: a socket that is closed earlier makes the next transaction wait.
const KERNEL_FREES: Duration = Duration::from_millis(40);

/// What is left of a box.
#[derive(Debug)]
pub struct Remains {
    /// The host.
    pub host: Host,
    /// The state directory.
    pub state: State,
    /// The lease, ended.
    pub lease: Lease,
    /// The gateway that the box hung off.
    pub gateway: Option<Gateway>,
    /// Whether the host's side of the gateway was taken down: it was the last box.
    pub was_last: bool,
    /// The ports that were published.
    pub ports: Vec<PortMap>,
    /// The sockets that deleted rules on the host, which must stay open a while.
    pub deleted: Vec<Nft>,
}

/// Sees the box's link, its rules in the gateway and its connections off. Problems here have nobody to be told to; what
/// is not undone keeps the slot, and the next netbox sweeps it.
pub fn linger(remains: Remains) {
    let Remains { host, state, lease, gateway, was_last, ports, deleted } = remains;
    let Some(mut gateway) = gateway else {
        lease.give_back(&state);
        return;
    };
    let topology = gateway.record.topology;
    let address = topology.box_address(lease.slot);
    let mut clean = true;
    if was_last {
        // The last descriptor of its network namespace: the kernel takes the rest.
        drop(gateway);
        clean &= forget_connections(address);
        std::thread::sleep(KERNEL_FREES);
        clean &= gateway::remove_link(&topology).is_ok();
    } else {
        clean &= attach::disconnect(&mut gateway, lease.id.as_str(), lease.slot, &ports).is_ok();
        clean &= forget_connections(address);
        let inside = namespace::inside(gateway.network.as_fd(), host.network().as_fd(), || {
            forget_connections(address)
        });
        clean &= inside.unwrap_or(false);
        std::thread::sleep(KERNEL_FREES);
        clean &= gateway.route.remove_link(&box_link(lease.id.as_str())).is_ok();
    }
    drop(deleted);
    if clean {
        lease.give_back(&state);
    }
}

/// Deletes what connection tracking in the current namespace knows of the box.
fn forget_connections(address: std::net::Ipv4Addr) -> bool {
    let selectors = [Selector::Address(address)];
    Conntrack::open().and_then(|mut conntrack| conntrack.flush(&selectors)).is_ok()
}
