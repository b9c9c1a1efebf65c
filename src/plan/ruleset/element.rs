//! What sets and maps hold: one element for a box, an address, a published port or a range of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::{AWAY4, AWAY6, HOME4, HOME6, ROUTED4, SNAT4, SNAT6, SUBNETS4};
use crate::plan::topology::Mac;
use crate::spec::host_port::HostPortSpec;

/// The type of a value in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The name of an interface.
    Ifname,
    /// A hardware address.
    Ether,
    /// A packet's mark.
    Mark,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An IP protocol number.
    Proto,
    /// A port.
    Port,
}

/// A value in a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Datum {
    /// The name of an interface.
    Ifname(String),
    /// A hardware address.
    Ether(Mac),
    /// A packet's mark.
    Mark(u32),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// An IP protocol number.
    Proto(u8),
    /// A port.
    Port(u16),
    /// Ports, from the first to the last (in the key of an interval map).
    Ports(u16, u16),
    /// All addresses of a network (in the key of an interval set).
    Net(Ipv4Net),
}

impl From<IpAddr> for Datum {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// The name of its set or map.
    pub set: &'static str,
    /// What it is found by.
    pub key: Vec<Datum>,
    /// What is found; empty in a set.
    pub value: Vec<Datum>,
}

pub(super) const PUBLISHED_AT: &[Type] = &[Type::Ipv4, Type::Proto, Type::Port];
pub(super) const OPENED: &[Type] = &[Type::Ipv4, Type::Ipv4, Type::Proto, Type::Port];
pub(super) const PUBLISHED_AT6: &[Type] = &[Type::Ipv6, Type::Proto, Type::Port];
pub(super) const SERVICE6: &[Type] = &[Type::Ipv6, Type::Port];
pub(super) const RANGE: &[Type] = &[Type::Port];
pub(super) const PUBLISHED_ANYWHERE: &[Type] = &[Type::Proto, Type::Port];
pub(super) const SERVICE: &[Type] = &[Type::Ipv4, Type::Port];

impl Element {
    pub(super) fn of_set(set: &'static str, key: impl Into<Vec<Datum>>) -> Self {
        Self { set, key: key.into(), value: Vec::new() }
    }
}

/// Gateway: the box behind `link` may send from `address`, and from no other.
#[must_use]
pub fn boxes4(link: &str, address: Ipv4Addr) -> Element {
    Element::of_set("boxes4", [Datum::Ifname(link.into()), Datum::Ipv4(address)])
}

/// The same for its IPv6 address.
#[must_use]
pub fn boxes6(link: &str, address: Ipv6Addr) -> Element {
    Element::of_set("boxes6", [Datum::Ifname(link.into()), Datum::Ipv6(address)])
}

/// Gateway: the count of the connections of the box that is behind `link`, where its packets have this mark. Its first one put
/// it there.
#[must_use]
pub fn conns(link: &str, mark: u32) -> Element {
    Element::of_set("conns", [Datum::Ifname(link.into()), Datum::Mark(mark)])
}

/// Gateway: the box at `address` may ask the resolver at `resolver`, which is its own, and no other.
#[must_use]
pub fn asks(address: Ipv4Addr, resolver: Ipv4Addr) -> Element {
    Element::of_set("asks4", [Datum::Ipv4(address), Datum::Ipv4(resolver)])
}

/// Gateway: the box at `address` may reach this port of the host's, at `resolver`, which is the address of its own resolver.
#[must_use]
pub fn opened(address: Ipv4Addr, resolver: Ipv4Addr, port: HostPortSpec) -> Element {
    let (protocol, number) = (Datum::Proto(port.protocol.number()), Datum::Port(port.box_port));
    Element::of_set("opened4", [Datum::Ipv4(address), Datum::Ipv4(resolver), protocol, number])
}

/// Gateway: the box of a network that has `address` may tell of errors in connections of its own.
#[must_use]
pub fn itself(address: IpAddr) -> Element {
    let set = if address.is_ipv4() { "selves4" } else { "selves6" };
    Element::of_set(set, [Datum::from(address), Datum::from(address)])
}

/// Gateway: the box at `address` has other links than that of its way out.
#[must_use]
pub fn several(address: IpAddr) -> Element {
    let set = if address.is_ipv4() { "several4" } else { "several6" };
    Element::of_set(set, [Datum::from(address)])
}

/// Gateway: the network behind this bridge has no way out.
#[must_use]
pub fn internal(bridge: &str) -> Element {
    Element::of_set("internal", [Datum::Ifname(bridge.into())])
}

/// Both: boxes of the network `own` and machines of the network `other` reach each other by their own addresses.
#[must_use]
pub fn reached_by(own: Ipv4Net, other: Ipv4Net) -> Element {
    Element::of_set(ROUTED4.name, [Datum::Net(own), Datum::Net(other)])
}

/// Both: these are addresses of such boxes, which nobody else may send from.
#[must_use]
pub fn routed_subnet(own: Ipv4Net) -> Element {
    Element::of_set(SUBNETS4.name, [Datum::Net(own)])
}

/// Gateway: the box that has `own` in its network is `pool` to the host, both ways. `None`: they are of two families.
#[must_use]
pub fn known_outside_as(own: IpAddr, pool: IpAddr) -> Option<[Element; 2]> {
    let (away, home) = match (own, pool) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (AWAY4, HOME4),
        (IpAddr::V6(_), IpAddr::V6(_)) => (AWAY6, HOME6),
        _ => return None,
    };
    Some([
        Element { set: away.name, key: vec![own.into()], value: vec![pool.into()] },
        Element { set: home.name, key: vec![pool.into()], value: vec![own.into()] },
    ])
}

/// Gateway: an address of the host's. Boxes reach what is published there and nothing else.
#[must_use]
pub fn host_address(address: IpAddr) -> Element {
    let set = if address.is_ipv4() { "hosts4" } else { "hosts6" };
    Element::of_set(set, [Datum::from(address)])
}

/// Host: an interface whose IPv4 forwarding netbox switched on, and which forwards for boxes only.
#[must_use]
pub fn switched(interface: &str) -> Element {
    Element::of_set("switched", [Datum::Ifname(interface.into())])
}

/// Host: the same for IPv6.
#[must_use]
pub fn switched6(interface: &str) -> Element {
    Element::of_set("switched6", [Datum::Ifname(interface.into())])
}

/// Host: what the box at `address` sends leaves with the host's address `source`. `None`: they are of two families.
#[must_use]
pub fn leaves_as(address: IpAddr, source: IpAddr) -> Option<Element> {
    let map = match (address, source) {
        (IpAddr::V4(_), IpAddr::V4(_)) => SNAT4,
        (IpAddr::V6(_), IpAddr::V6(_)) => SNAT6,
        _ => return None,
    };
    Some(Element { set: map.name, key: vec![address.into()], value: vec![source.into()] })
}
