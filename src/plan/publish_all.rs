//! What `-P` publishes: decided from what listens in the box.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::spec::port::Protocol;

/// The most ports that a box can have published by listening on them: each takes a port and a descriptor of the host's.
pub const MOST: usize = 256;

/// A socket of the box that takes what comes: TCP that listens, or UDP that is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address it is bound to; unspecified means all, of an IPv6 socket perhaps those of IPv4 too.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// A port of the box.
pub type BoxPort = (Protocol, u16);

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ports of the box that are to be published.
    pub add: Vec<BoxPort>,
    /// Those whose publishing is to end.
    pub remove: Vec<BoxPort>,
    /// Those that listen too, and for which there is no room.
    pub left_out: Vec<BoxPort>,
}

/// The ports of the box that others can reach, out of all that listens. `addresses`: the box's.
///
/// What listens on the box's loopback only is its own business. A UDP socket on one of the ports that the kernel gives to clients
/// (`net.ipv4.ip_local_port_range`) is taken for a client's: it cannot be told from one.
#[must_use]
pub fn serving(
    listeners: &[Listener],
    addresses: &[IpAddr],
    clients: &RangeInclusive<u16>,
) -> BTreeSet<BoxPort> {
    let is_reached = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_unspecified() || addresses.contains(&address)
    };
    let is_client = |one: &Listener| one.protocol == Protocol::Udp && clients.contains(&one.port);
    let serving = listeners.iter().filter(|one| is_reached(one.address) && !is_client(one));
    serving.map(|one| (one.protocol, one.port)).collect()
}

/// Decides from the ports that are `serving`, all that are `published`, and those among these that are so because the box listened,
/// the `automatic` ones.
#[must_use]
pub fn changes(
    serving: &BTreeSet<BoxPort>,
    published: &BTreeSet<BoxPort>,
    automatic: &BTreeSet<BoxPort>,
) -> Changes {
    let remove: Vec<_> = automatic.difference(serving).copied().collect();
    let room = MOST.saturating_sub(automatic.len().saturating_sub(remove.len()));
    let mut add: Vec<_> = serving.difference(published).copied().collect();
    let left_out = if add.len() > room { add.split_off(room) } else { Vec::new() };
    Changes { add, remove, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Tcp, Udp};

    const CLIENTS: RangeInclusive<u16> = 32768..=60999;

    fn listener(protocol: Protocol, address: &str, port: u16) -> Listener {
        Listener { protocol, address: address.parse().unwrap(), port }
    }

    fn decide(listeners: &[Listener], published: &[BoxPort], automatic: &[BoxPort]) -> Changes {
        let addresses = ["10.0.0.16", "fd00::10"].map(|address| address.parse().unwrap());
        let set = |ports: &[BoxPort]| ports.iter().copied().collect();
        changes(&serving(listeners, &addresses, &CLIENTS), &set(published), &set(automatic))
    }

    #[test]
    fn what_can_be_reached_from_outside_the_box_is_published_once() {
        let all = [
            listener(Tcp, "0.0.0.0", 80),
            listener(Tcp, "::", 80),
            listener(Tcp, "10.0.0.16", 81),
            listener(Udp, "fd00::10", 53),
            listener(Tcp, "::ffff:10.0.0.16", 82),
        ];
        let add = vec![(Tcp, 80), (Tcp, 81), (Tcp, 82), (Udp, 53)];
        assert_eq!(decide(&all, &[], &[]), Changes { add, ..Default::default() });
    }

    #[test]
    fn what_listens_on_loopback_only_is_not_published_nor_what_is_a_clients() {
        let all = [
            listener(Tcp, "127.0.0.1", 80),
            listener(Tcp, "127.0.0.53", 53),
            listener(Tcp, "::1", 80),
            listener(Udp, "0.0.0.0", 40_000),
            listener(Tcp, "fe80::1", 80),
        ];
        assert_eq!(decide(&all, &[], &[]), Changes::default());
        // TCP that listens is no client.
        assert_eq!(decide(&[listener(Tcp, "::", 40_000)], &[], &[]).add, [(Tcp, 40_000)]);
    }

    #[test]
    fn what_is_published_already_stays_as_it_is_and_what_was_asked_for_outlives_its_listener() {
        let both = [(Tcp, 80), (Tcp, 81)];
        assert_eq!(
            decide(&[listener(Tcp, "::", 80), listener(Tcp, "::", 81)], &both, &[(Tcp, 81)]),
            Changes::default()
        );
        let remove = vec![(Tcp, 81)];
        assert_eq!(decide(&[], &both, &[(Tcp, 81)]), Changes { remove, ..Default::default() });
    }

    #[test]
    fn there_is_room_for_so_many_and_what_goes_makes_room() {
        let listeners: Vec<_> = (1..=300).map(|port| listener(Tcp, "::", port)).collect();
        let decided = decide(&listeners, &[], &[]);
        assert_eq!((decided.add.len(), decided.left_out.len()), (MOST, 44));
        let automatic: Vec<_> = (201..=456).map(|port| (Tcp, port)).collect();
        let decided = decide(&listeners, &automatic, &automatic);
        assert_eq!((decided.remove.len(), decided.add.len(), decided.left_out.len()), (156, 156, 44));
    }
}
