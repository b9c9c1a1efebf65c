//! Routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::ip as address;
use super::{PROTOCOL, Request, Route, address_family, tolerate};
use crate::kernel::wire::{attributes, i32_at, u16_at, u32_at};

/// The size of `struct rtmsg`, and where things are in it.
const HEADER: usize = 12;
const PREFIX: usize = 1;
const TABLE: usize = 4;
const ORIGIN: usize = 5;
const KIND: usize = 7;

/// From `linux/rtnetlink.h`.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

/// The number of the main table.
pub const MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Refuses it, with an ICMP error.
    Unreachable,
    /// Drops it without a word.
    Blackhole,
    /// Takes it in.
    Local,
    /// Anything else: `RTN_*` of `linux/rtnetlink.h` (3 broadcast, 5 multicast, …).
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(number: u8) -> Self {
        match number {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_BLACKHOLE => Self::Blackhole,
            libc::RTN_LOCAL => Self::Local,
            other => Self::Other(other),
        }
    }
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => libc::RTN_UNICAST,
            RouteKind::Unreachable => libc::RTN_UNREACHABLE,
            RouteKind::Blackhole => libc::RTN_BLACKHOLE,
            RouteKind::Local => libc::RTN_LOCAL,
            RouteKind::Other(other) => other,
        }
    }
}

/// All of IPv4.
pub const ANYWHERE4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// All of IPv6.
pub const ANYWHERE6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

/// A route to make or remove. The default is an IPv4 default route of netbox's in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Where to; a prefix of no length is everywhere in that family.
    pub destination: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// In which table.
    pub table: u32,
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The next hop is on the link, whatever the addresses there say.
    pub onlink: bool,
    /// The index of the link to send through.
    pub dev: Option<u32>,
    /// The lower, the earlier it is taken.
    pub metric: Option<u32>,
    /// Whose it is. Removing takes only what has the same (0: anybody's).
    pub protocol: u8,
    /// Whether to take the place of one that is there.
    pub replace: bool,
}

impl Default for RouteSpec {
    fn default() -> Self {
        Self {
            destination: ANYWHERE4,
            kind: RouteKind::Unicast,
            table: MAIN,
            via: None,
            onlink: false,
            dev: None,
            metric: None,
            protocol: PROTOCOL,
            replace: false,
        }
    }
}

/// A route as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Where to; 0.0.0.0/0 and ::/0 are everywhere.
    pub destination: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// In which table.
    pub table: u32,
    /// The next hop; of several the first.
    pub via: Option<IpAddr>,
    /// The index of the link it sends through; of several the first.
    pub dev: Option<u32>,
    /// The address that packets from here have, where the route says.
    pub source: Option<IpAddr>,
    /// The lower, the earlier it is taken.
    pub metric: u32,
    /// Whose it is.
    pub protocol: u8,
}

/// Makes a route.
#[must_use]
pub fn add(route: &RouteSpec) -> Request {
    let mut message = message(route);
    // A route without a next hop leads to neighbours; IPv4 wants the scope to say so.
    message.header.scope = match (route.kind, route.via) {
        (RouteKind::Unicast, None) => RouteScope::Link,
        (RouteKind::Local, _) => RouteScope::Host,
        _ => RouteScope::Universe,
    };
    let flags = if route.replace { NLM_F_REPLACE } else { NLM_F_EXCL };
    Request::new(words("add", route), NLM_F_CREATE | flags, RouteNetlinkMessage::NewRoute(message))
}

/// Has packets to an IPv6 address of this namespace's delivered from now on.
///
/// The kernel does that by itself for every address of a link, but some time later: it leaves it to the work queue in which it
/// would find out whether the address is free (net/ipv6/addrconf.c, `addrconf_dad_work`), asked to or not. What is
/// sent there meanwhile is lost.
#[must_use]
pub fn deliver(index: u32, address: Ipv6Addr) -> Request {
    add(&RouteSpec {
        destination: IpNet::from(IpAddr::from(address)),
        kind: RouteKind::Other(libc::RTN_LOCAL),
        table: libc::RT_TABLE_LOCAL.into(),
        dev: Some(index),
        replace: true,
        ..RouteSpec::default()
    })
}

/// Removes a route that agrees with all that `route` says.
#[must_use]
pub fn delete(route: &RouteSpec) -> Request {
    let mut message = message(route);
    message.header.scope = RouteScope::NoWhere; // any
    Request::new(words("delete", route), 0, RouteNetlinkMessage::DelRoute(message))
}

fn words(verb: &str, route: &RouteSpec) -> String {
    let destination = match route.destination.prefix_len() {
        0 => "default".to_owned(),
        _ => route.destination.to_string(),
    };
    format!("ip route {verb} {destination} table {}", route.table)
}

fn message(route: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(route.destination.addr()),
        destination_prefix_length: route.destination.prefix_len(),
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: route.protocol.into(),
        kind: RouteType::from(u8::from(route.kind)),
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let address = |address| match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.extend(
        [
            (route.destination.prefix_len() > 0)
                .then(|| RouteAttribute::Destination(address(route.destination.network()))),
            route.via.map(|via| RouteAttribute::Gateway(address(via))),
            route.dev.map(RouteAttribute::Oif),
            route.metric.map(RouteAttribute::Priority),
        ]
        .into_iter()
        .flatten(),
    );
    message
}

impl Route {
    /// Makes a route.
    ///
    /// # Errors
    /// EEXIST when there is one and `replace` is not asked; ENETUNREACH for a next hop that no link leads
    /// to; ENETDOWN when the link is down.
    pub fn add_route(&mut self, route: &RouteSpec) -> io::Result<()> {
        self.execute(add(route))
    }

    /// Removes a route that agrees with all that `route` says.
    ///
    /// # Errors
    /// ESRCH when there is none.
    pub fn delete_route(&mut self, route: &RouteSpec) -> io::Result<()> {
        self.execute(delete(route))
    }

    /// Removes a route. One that is already gone, alone or with its table or link, is success.
    ///
    /// # Errors
    /// EPERM and those of the socket.
    pub fn remove_route(&mut self, route: &RouteSpec) -> io::Result<()> {
        tolerate(self.delete_route(route), &[libc::ESRCH, libc::ENOENT, libc::ENODEV])
    }

    /// The routes of all tables.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the tables would not stand still.
    pub fn routes(&mut self) -> io::Result<Vec<RouteInfo>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Unspec;
        self.dump(RouteNetlinkMessage::GetRoute(message), decode)
    }

    /// The routes of the main table.
    ///
    /// # Errors
    /// Those of [`Route::routes`].
    pub fn main_routes(&mut self) -> io::Result<Vec<RouteInfo>> {
        let mut routes = self.routes()?;
        routes.retain(|route| route.table == MAIN);
        Ok(routes)
    }
}

fn decode(payload: &[u8]) -> Option<RouteInfo> {
    let prefix = *payload.get(PREFIX)?;
    let anywhere = match i32::from(*payload.first()?) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        // MPLS, multicast routing.
        _ => return None,
    };
    let mut route = RouteInfo {
        destination: IpNet::new(anywhere, prefix).ok()?,
        kind: (*payload.get(KIND)?).into(),
        table: (*payload.get(TABLE)?).into(),
        via: None,
        dev: None,
        source: None,
        metric: 0,
        protocol: *payload.get(ORIGIN)?,
    };
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            RTA_DST => route.destination = IpNet::new(address(value)?, prefix).ok()?,
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_OIF => route.dev = u32_at(value, 0),
            RTA_GATEWAY => route.via = address(value),
            RTA_PREFSRC => route.source = address(value),
            RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            RTA_MULTIPATH => {
                // struct rtnexthop: u16 length, u8 flags, u8 weight, int index, attributes
                let hop = value.get(..u16_at(value, 0)?.into())?;
                route.dev = i32_at(hop, 4).and_then(|index| u32::try_from(index).ok());
                let via = attributes(hop.get(8..)?).find(|(kind, _)| *kind == RTA_GATEWAY);
                route.via = via.and_then(|(_, value)| address(value));
            }
            _ => {}
        }
    }
    Some(route)
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = decode(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_what_was_asked() {
        for (destination, via) in [
            ("10.77.128.0/18", "10.77.128.1"),
            ("fd12:3456:789a::/64", "fd12:3456:789a::1"),
            ("::/0", "fd00::1"),
        ] {
            let spec = RouteSpec {
                destination: destination.parse().unwrap(),
                table: 0x6e62,
                via: Some(via.parse().unwrap()),
                onlink: true,
                dev: Some(7),
                metric: Some(9),
                ..RouteSpec::default()
            };
            let request = add(&spec);
            let read = decode(&request.bytes[16..]).unwrap();
            assert_eq!(read.destination, spec.destination);
            assert_eq!((read.table, read.via, read.dev, read.metric), (spec.table, spec.via, spec.dev, 9));
            assert_eq!((read.kind, read.protocol), (RouteKind::Unicast, PROTOCOL));
            assert_eq!(u32_at(&request.bytes, 16 + 8), Some(4), "RTNH_F_ONLINK");
            assert_eq!(u16_at(&request.bytes, 6), Some(0x601), "NLM_F_REQUEST, NLM_F_CREATE, NLM_F_EXCL");
        }
    }

    #[test]
    fn a_route_of_two_next_hops_is_read_as_its_first() {
        let mut payload = vec![2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        payload.extend([36, 0, 9, 0]);
        for (index, last) in [(3, 1), (4, 2)] {
            payload.extend([16, 0, 0, 0, index, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, last]);
        }
        let route = decode(&payload).unwrap();
        assert_eq!((route.dev, route.via), (Some(3), Some(Ipv4Addr::new(192, 0, 2, 1).into())));
    }
}
