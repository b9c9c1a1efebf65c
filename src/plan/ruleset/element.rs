//! What sets and maps hold: one element for a box, an address, a published port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{SNAT4, SNAT6, T4A, T4W, T6A, T6W};

/// The type of a value in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The name of an interface.
    Ifname,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datum {
    /// The name of an interface.
    Ifname(String),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// An IP protocol number.
    Proto(u8),
    /// A port.
    Port(u16),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The name of its set or map.
    pub set: &'static str,
    /// What it is found by.
    pub key: Vec<Datum>,
    /// What is found; empty in a set.
    pub value: Vec<Datum>,
}

pub(super) const PUBLISHED_AT: &[Type] = &[Type::Ipv4, Type::Proto, Type::Port];
pub(super) const PUBLISHED_AT6: &[Type] = &[Type::Ipv6, Type::Proto, Type::Port];
pub(super) const SERVICE6: &[Type] = &[Type::Ipv6, Type::Port];
pub(super) const PUBLISHED_ANYWHERE: &[Type] = &[Type::Proto, Type::Port];
pub(super) const SERVICE: &[Type] = &[Type::Ipv4, Type::Port];

impl Element {
    fn of_set(set: &'static str, key: impl Into<Vec<Datum>>) -> Self {
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

/// Gateway: the count of the connections of `link`, which its first one put there.
#[must_use]
pub fn conns(link: &str) -> Element {
    Element::of_set("conns", [Datum::Ifname(link.into())])
}

/// Gateway: a box that reaches itself through a published port is answered through the gateway.
#[must_use]
pub fn reaches_itself(address: IpAddr) -> Element {
    let (set, address) = match address {
        IpAddr::V4(_) => ("self4", Datum::from(address)),
        IpAddr::V6(_) => ("self6", Datum::from(address)),
    };
    Element::of_set(set, [address.clone(), address])
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

/// A port of the host's that leads to a port of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// The one address of the host's that it is published on; every address of the target's family if there is none. Never a
    /// loopback address: what is sent to those is relayed, not translated.
    pub host_address: Option<IpAddr>,
    /// The IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// The host's port.
    pub host_port: u16,
    /// Where it leads.
    pub target: SocketAddr,
}

impl PublishedPort {
    /// The elements of the host's maps.
    #[must_use]
    pub fn host(&self) -> Vec<Element> {
        vec![self.translation()]
    }

    /// The elements of the gateway's maps and of the set of what it lets in.
    #[must_use]
    pub fn gateway(&self) -> Vec<Element> {
        let set = if self.target.is_ipv4() { "pub4" } else { "pub6" };
        let key =
            [Datum::from(self.target.ip()), Datum::Proto(self.protocol), Datum::Port(self.target.port())];
        vec![self.translation(), Element::of_set(set, key)]
    }

    fn translation(&self) -> Element {
        let (at, anywhere) = if self.target.is_ipv4() { (T4A, T4W) } else { (T6A, T6W) };
        let value = vec![Datum::from(self.target.ip()), Datum::Port(self.target.port())];
        let (protocol, port) = (Datum::Proto(self.protocol), Datum::Port(self.host_port));
        match self.host_address {
            Some(address) => Element { set: at.name, key: vec![Datum::from(address), protocol, port], value },
            None => Element { set: anywhere.name, key: vec![protocol, port], value },
        }
    }
}
