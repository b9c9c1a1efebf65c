//! Tracked connections: a later box must not inherit those of one that has ended with its address or a port.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::Result;
use crate::kernel::conntrack::{Conntrack, Selector};
use crate::kernel::nft::Nft;
use crate::plan::record::PortMap;
use crate::plan::topology::Topology;
use crate::spec::port::Protocol;

use super::census::Census;
use super::gateway::Gateway;
use super::host::Host;
use super::state::Locked;

/// So long the gateway remembers every connection at least (`settings::of_tracking`), a ping, a reset and a denied one too.
const REMEMBERED: Duration = Duration::from_millis(900);

/// Deletes what connection tracking knows of the addresses of the box in `slot`, in the gateway and on the host. Cheap for a box
/// of that age (`None`: unknown) where nothing is tracked at all.
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
    age: Option<Duration>,
) -> Result<()> {
    if !topology.has(slot) {
        // A box without a network had it: the address would be somebody else's.
        return Ok(());
    }
    let addresses =
        [Some(IpAddr::V4(topology.box_address(slot))), topology.box_address6(slot).map(IpAddr::V6)];
    let selectors: Vec<_> = addresses.into_iter().flatten().map(Selector::Address).collect();
    if let Some(gateway) = gateway {
        let mut inside = Conntrack::on(&gateway.nft)?;
        if inside.count()? != 0 {
            inside.flush(&selectors)?;
        } else if age.is_some_and(|age| age < REMEMBERED) {
            // What the gateway has not seen has not reached the host either. What it has forgotten by now may be there still:
            // the host's timeouts are others, and what ends a connection here need not come as far as there.
            return Ok(());
        }
    }
    Conntrack::on(host.nft(locked, census)?)?.flush(&selectors)
}

/// To be called when `ports` have just been mapped: lets what is sent to them be translated, though its connection is older than
/// the map and would keep leading where it led. A UDP client that never pauses would never reach the box.
///
/// TCP is left alone: a SYN makes a connection anew, and an old one has nothing to say to the box.
///
/// # Errors
/// Those of ctnetlink.
pub fn renew(nft: &Nft, ports: &[PortMap]) -> Result<()> {
    let selectors: Vec<_> = ports
        .iter()
        .filter(|map| map.protocol != Protocol::Tcp && !map.is_loopback_only())
        .map(|map| Selector::Port {
            ipv6: map.host_address.is_ipv6(),
            protocol: map.protocol.number(),
            port: map.host_port,
        })
        .collect();
    if selectors.is_empty() {
        return Ok(());
    }
    Conntrack::on(nft)?.flush(&selectors)
}
