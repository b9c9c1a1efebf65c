//! Tracked connections of a box that has ended: a later box with its address must not inherit them.

use std::net::Ipv4Addr;

use crate::error::Result;
use crate::kernel::conntrack::{Conntrack, Selector};

use super::census::Census;
use super::gateway::Gateway;
use super::host::Host;
use super::state::Locked;

/// Deletes what connection tracking knows of `address`, in the gateway and on the host. Cheap where nothing is tracked at all.
///
/// # Errors
/// Those of ctnetlink.
pub fn forget(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    gateway: Option<&Gateway>,
    address: Ipv4Addr,
) -> Result<()> {
    let selectors = [Selector::Address(address)];
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
