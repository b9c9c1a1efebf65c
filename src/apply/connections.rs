//! Tracked connections: a later box must not inherit those of one that has ended with its address or a port.

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
    let four = [Selector::Address(topology.box_address(slot).into())];
    let six: Vec<_> =
        topology.box_address6(slot).map(|six| Selector::Address(six.into())).into_iter().collect();
    let is_young = age.is_some_and(|age| age < REMEMBERED);
    let mut had_six = true;
    if let Some(gateway) = gateway {
        let mut inside = Conntrack::on(&gateway.nft)?;
        if inside.count()? != 0 {
            inside.flush(&four)?;
            had_six = inside.flush_one_by_one(&six)? != 0;
        } else if is_young {
            // What the gateway has not seen has not reached the host either. What it has forgotten by now may be there still:
            // the host's timeouts are others, and what ends a connection here need not come as far as there.
            return Ok(());
        }
    }
    let mut host = Conntrack::on(host.nft(locked, census)?)?;
    host.flush(&four)?;
    // Listing takes the kernel some milliseconds.
    if had_six || !is_young { host.flush(&six) } else { Ok(()) }
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
