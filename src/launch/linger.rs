//! What the keeper still does when the launcher has gone: see to it that the kernel frees what it frees late.

use std::time::Duration;

use crate::apply::census::census;
use crate::apply::connections;
use crate::apply::gateway::{self, Gateway};
use crate::apply::host::Host;
use crate::apply::lease::Lease;
use crate::apply::state::State;
use crate::error::Result;
use crate::plan::network::Member;
use crate::plan::record::Attachment;
use crate::plan::topology::box_link;
use crate::serve::watch::Watch;

/// The kernel takes 20 to 30 ms to remove the links of a network namespace whose last process ended, and as much again when
/// it is just at work for another one; longer only if something holds it, an orphaned TCP connection for instance.
const KERNEL_FREES: Duration = Duration::from_millis(65);

/// What is left of a box.
#[derive(Debug)]
pub struct Remains {
    /// The host, and the socket there, which must stay open a while after a deletion.
    pub host: Host,
    /// The state directory.
    pub state: State,
    /// The lease, ended.
    pub lease: Lease,
    /// The gateway that the box hung off.
    pub gateway: Option<Gateway>,
    /// The networks that it was in.
    pub networks: Vec<Member>,
    /// What it listened to the host with: the kernel makes whoever closes such a socket wait, as it does with `host`.
    pub watch: Option<Watch>,
    /// Whether the host's side of the gateway was taken down: it was the last box.
    pub was_last: bool,
    /// Whether all that came before is undone. Where not, record and slot stay for the next sweep.
    pub all_undone: bool,
}

/// Sees the box's link and its connections off. Problems here have nobody to be told to; what is not undone keeps the
/// slot, and the next netbox sweeps it.
pub fn linger(remains: Remains) {
    let Remains { mut host, mut state, lease, gateway, networks, watch, was_last, all_undone } = remains;
    let Some(mut gateway) = gateway else {
        if all_undone {
            lease.give_back(&mut state, &networks);
        }
        return;
    };
    let topology = gateway.record.topology;
    let attachment = Attachment::at_most(topology, lease.slot, networks);
    let mut clean = all_undone;
    clean &= forget_connections(&mut state, &mut host, &gateway, &attachment, &lease).is_ok();
    if was_last {
        // The last descriptor of its network namespace: the kernel takes the rest.
        drop(gateway);
        std::thread::sleep(KERNEL_FREES);
        clean &= gateway::remove_link(&topology).is_ok();
    } else {
        std::thread::sleep(KERNEL_FREES);
        for link in attachment.links() {
            clean &= gateway.route.remove_link(&box_link(lease.id.as_str(), link)).is_ok();
        }
    }
    if clean {
        lease.give_back(&mut state, &attachment.networks);
    }
    drop((host, watch));
}

/// Deletes what connection tracking knows of the box.
fn forget_connections(
    state: &mut State,
    host: &mut Host,
    gateway: &Gateway,
    attachment: &Attachment,
    lease: &Lease,
) -> Result<()> {
    let locked = state.lock()?;
    let found = census(locked.slots());
    let (id, age) = (lease.id.as_str(), Some(lease.age()));
    connections::forget(&locked, host, &found, Some(gateway), attachment, id, age)
}
