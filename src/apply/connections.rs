//! Tracked connections: a later box must not inherit those of one that has ended with its address or a port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::kernel::conntrack::{Conntrack, Selector};
use crate::kernel::nft::Nft;
use crate::kernel::sock_diag::TcpConnections;
use crate::plan::record::PortMap;
use crate::plan::ruleset::PublishedPort;
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

/// To be called when `ports` lead to the box no more: ends the connections that came by them, those of TCP for both sides to see.
/// `inside`: the box's own. A connection came by the port to which it went when it began, on the host or, from another box, in the
/// gateway.
///
/// # Errors
/// Those of ctnetlink and of sock_diag(7).
pub fn cut(host: &Nft, gateway: &Nft, inside: &mut TcpConnections, ports: &[PublishedPort]) -> Result<()> {
    let mut tracking = [Conntrack::on(host)?, Conntrack::on(gateway)?];
    let tcp: Vec<_> = ports.iter().filter(|port| port.protocol == Protocol::Tcp.number()).collect();
    let in_box: BTreeSet<_> = tcp.iter().map(|port| port.target.port()).collect();
    for port in in_box {
        let open = inside.at(port).context(|| format!("cannot list the connections of port {port}"))?;
        for connection in open {
            let (own, peer) = (connection.own, connection.peer);
            let led_here = |asked: SocketAddr| {
                tcp.iter().any(|port| {
                    port.target == own
                        && port.host_port == asked.port()
                        && port.host_address.is_none_or(|address| address == asked.ip())
                })
            };
            for place in &mut tracking {
                // Not translated here: in the gateway that is what the host has translated, and what the relay carries.
                let Some(asked) = place.began_at(own, peer)?.filter(|asked| *asked != own) else { continue };
                if led_here(asked) && inside.end(&connection).is_err() {
                    // A kernel that cannot: whoever speaks next finds nobody.
                    place.forget(own, peer)?;
                }
                break;
            }
        }
    }
    let others = ports.iter().filter(|port| port.protocol != Protocol::Tcp.number());
    let others: Vec<_> = others
        .map(|port| Selector::Translated {
            protocol: port.protocol,
            port: port.host_port,
            target: port.target,
        })
        .collect();
    tracking.iter_mut().try_for_each(|place| place.flush(&others))
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
