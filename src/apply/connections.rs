//! Tracked connections of a box that has ended: a later box with its address must not inherit them.

use std::net::IpAddr;

use crate::error::Result;
use crate::kernel::conntrack::{Conntrack, Selector};
use crate::plan::topology::Topology;

use super::census::Census;
use super::gateway::Gateway;
use super::host::Host;
use super::state::Locked;

/// Deletes what connection tracking knows of the addresses of the box in `slot`, in the gateway and on the host. Cheap where nothing is tracked at all.
///
/// # Errors
/// Those of ctnetlink.
pub fn forget(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    gateway: Option<&Gateway>,
    topology: &Topology,
    slot: u32,
) -> Result<()> {
    let addresses =
        [Some(IpAddr::V4(topology.box_address(slot))), topology.box_address6(slot).map(IpAddr::V6)];
    let selectors: Vec<_> = addresses.into_iter().flatten().map(Selector::Address).collect();
    if let Some(gateway) = gateway {
        let mut inside = Conntrack::on(&gateway.nft)?;
        // What the gateway has not seen has not reached the host either.
        if inside.count()? == 0 {
            return Ok(());
        }
        inside.flush(&selectors)?;
    }
    Conntrack::on(host.nft(locked, census)?)?.flush(&selectors)
}
