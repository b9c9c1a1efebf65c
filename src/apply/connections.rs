//! Tracked connections: a later box must not inherit those of one that has ended with its address or a port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::kernel::conntrack::{Conntrack, Selector};
use crate::kernel::namespace;
use crate::kernel::nft::Nft;
use crate::kernel::sock_diag::TcpConnections;
use crate::plan::network::Member;
use crate::plan::record::{Attachment, PortMap};
use crate::plan::ruleset::PublishedPort;
use crate::plan::topology::box_link;
use crate::spec::port::Protocol;

use super::attach::translated;
use super::census::{Census, census};
use super::gateway::Gateway;
use super::host::Host;
use super::state::Locked;

/// So long the gateway remembers every connection at least (`settings::of_tracking`), a ping, a reset and a denied one too.
const REMEMBERED: Duration = Duration::from_millis(900);

/// Deletes what connection tracking knows of the addresses of the box with this id, in the gateway and on the host. Cheap for a box
/// of that age (`None`: unknown) where nothing is tracked at all.
///
/// # Errors
/// Those of ctnetlink.
pub fn forget(
    locked: &Locked<'_>,
    host: &mut Host,
    census: &Census,
    gateway: Option<&Gateway>,
    attachment: &Attachment,
    id: &str,
    age: Option<Duration>,
) -> Result<()> {
    let Attachment { topology, slot, .. } = *attachment;
    if !topology.has(slot) {
        // A box without a network had it: the address would be somebody else's.
        return Ok(());
    }
    let four = [Selector::Address(topology.box_address(slot).into())];
    let six: Vec<_> =
        topology.box_address6(slot).map(|six| Selector::Address(six.into())).into_iter().collect();
    let mut had_six = !six.is_empty();
    if let Some(gateway) = gateway {
        let mut inside = Conntrack::on(&gateway.nft)?;
        if inside.count()? != 0 {
            // What is only between a box of a network and others never had the other address.
            let networks = attachment.networks.iter();
            let own = networks.clone().map(|member| Selector::Address(member.address.into()));
            inside.flush(&four.iter().copied().chain(own).collect::<Vec<_>>())?;
            // A port of a bridge counts no packets of IPv6: who has an address there may have got some.
            let own6: Vec<_> =
                networks.filter_map(Member::address6).map(|six| Selector::Address(six.into())).collect();
            had_six = had_six && (!own6.is_empty() || got_ipv6(gateway, host, id)?);
            if had_six {
                inside.flush(&six.iter().copied().chain(own6).collect::<Vec<_>>())?;
            }
        } else if age.is_some_and(|age| age < REMEMBERED) {
            // What the gateway has not seen has not reached the host either. What it has forgotten by now may be there still:
            // the host's timeouts are others, and what ends a connection here need not come as far as there.
            return Ok(());
        } else {
            let has_six = attachment.networks.iter().any(|member| member.ipv6.is_some());
            had_six = had_six && (has_six || got_ipv6(gateway, host, id)?);
        }
    }
    // Where other machines reach the network, or nobody knows, the host has seen the box's own address too.
    let is_routed = |member: &&Member| {
        let routed = gateway.map(|gateway| &gateway.record.routed);
        routed.is_none_or(|all| all.iter().any(|one| one.network == member.network))
    };
    let own = attachment.networks.iter().filter(is_routed);
    let own = own.map(|member| Selector::Address(member.address.into()));
    let mut outside = Conntrack::on(host.nft(locked, census)?)?;
    outside.flush(&four.into_iter().chain(own).collect::<Vec<_>>())?;
    if had_six { outside.flush(&six) } else { Ok(()) }
}

/// Deletes what is tracked of the addresses of a box in one network, which it leaves.
///
/// # Errors
/// Those of ctnetlink.
pub fn forget_member(locked: &Locked<'_>, host: &mut Host, gateway: &Gateway, member: &Member) -> Result<()> {
    let four = Selector::Address(member.address.into());
    let six = member.address6().map(|six| Selector::Address(six.into()));
    Conntrack::on(&gateway.nft)?.flush(&[four].into_iter().chain(six).collect::<Vec<_>>())?;
    // Where other machines reach the network, the host has seen that address too.
    if gateway.record.routed.iter().any(|one| one.network == member.network) {
        Conntrack::on(host.nft(locked, &census(locked.slots()))?)?.flush(&[four])?;
    }
    Ok(())
}

/// Whether anything was sent to the box over IPv6, but for multicasts, which every link has. To forget connections over IPv6 takes the
/// kernel some milliseconds, for which it lists all; one that nobody answered is gone by itself after two minutes at most.
fn got_ipv6(gateway: &Gateway, host: &Host, id: &str) -> Result<bool> {
    let path = format!("/proc/thread-self/net/dev_snmp6/{}", box_link(id, 0));
    let read = || std::fs::read_to_string(path);
    let text = namespace::inside(gateway.network.as_fd(), host.network().as_fd(), read)
        .context(|| "cannot look into the gateway")?;
    // The link is gone: nobody knows.
    Ok(text.is_err() || text.is_ok_and(|text| unicasts(&text) != 0))
}

/// How many packets but multicasts left by an interface, from its file in /proc/net/dev_snmp6.
fn unicasts(counters: &str) -> u64 {
    let count = |name: &str| -> u64 {
        let mut lines = counters.lines().filter_map(|line| line.split_once(char::is_whitespace));
        lines.find(|(own, _)| *own == name).and_then(|(_, count)| count.trim().parse().ok()).unwrap_or(0)
    };
    let sent = count("Ip6OutRequests") + count("Ip6OutForwDatagrams");
    sent.saturating_sub(count("Ip6OutMcastPkts"))
}

/// To be called when `ports` lead to the box no more: ends the connections that came by them, those of TCP for both sides to see.
/// `inside`: the box's own. A connection came by the port to which it went when it began, on the host or, from another box, in the
/// gateway. To the host a box of a network has another address.
///
/// # Errors
/// Those of ctnetlink and of sock_diag(7).
pub fn cut(
    host: &Nft,
    gateway: &Nft,
    inside: &mut TcpConnections,
    attachment: &Attachment,
    ports: &[PortMap],
) -> Result<()> {
    let (inside_gateway, outside) = (attachment.inside(), attachment.outside());
    let mut tracking = [(Conntrack::on(host)?, outside), (Conntrack::on(gateway)?, inside_gateway)];
    let in_gateway = translated(ports, inside_gateway);
    let tcp: Vec<_> = in_gateway.iter().filter(|port| port.protocol == Protocol::Tcp.number()).collect();
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
            for (place, reached) in &mut tracking {
                let known_as = SocketAddr::new(reached.like(own.ip()).unwrap_or(own.ip()), own.port());
                // Not translated here: in the gateway that is what the host has translated, and what the relay carries.
                let not_here =
                    |asked: &SocketAddr| *asked == own || outside.like(asked.ip()) == Some(asked.ip());
                let asked = place.began_at(known_as, peer)?.filter(|asked| !not_here(asked));
                let Some(asked) = asked else { continue };
                if led_here(asked) && inside.end(&connection).is_err() {
                    // A kernel that cannot: whoever speaks next finds nobody.
                    place.forget(known_as, peer)?;
                }
                break;
            }
        }
    }
    tracking.iter_mut().try_for_each(|(place, reached)| {
        let all = translated(ports, *reached);
        let others = all.iter().filter(|port| port.protocol != Protocol::Tcp.number());
        let selector = |port: &PublishedPort| Selector::Translated {
            protocol: port.protocol,
            port: port.host_port,
            target: port.target,
        };
        place.flush(&others.map(selector).collect::<Vec<_>>())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_link_sends_is_no_connection() {
        let idle = "ifIndex                         \t65536\nIp6OutForwDatagrams             \t0\n\
                    Ip6OutRequests                  \t2\nIp6OutMcastPkts                 \t2\n";
        assert_eq!(unicasts(idle), 0);
        assert_eq!(unicasts(&idle.replace("Datagrams             \t0", "Datagrams \t3")), 3);
        assert_eq!(unicasts(""), 0);
    }
}
