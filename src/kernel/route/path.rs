//! IPv4 routes.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{PROTOCOL, Request, Route, tolerate};
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
    /// Anything else: `RTN_*` of `linux/rtnetlink.h` (2 local, 3 broadcast, 5 multicast, …).
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(number: u8) -> Self {
        match number {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_BLACKHOLE => Self::Blackhole,
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
            RouteKind::Other(other) => other,
        }
    }
}

/// A route to make or remove. The default is a default route of netbox's in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Where to; nothing is everywhere.
    pub destination: Option<Ipv4Net>,
    /// What it does.
    pub kind: RouteKind,
    /// In which table.
    pub table: u32,
    /// The next hop.
    pub via: Option<Ipv4Addr>,
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
            destination: None,
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
    /// Where to; 0.0.0.0/0 is everywhere.
    pub destination: Ipv4Net,
    /// What it does.
    pub kind: RouteKind,
    /// In which table.
    pub table: u32,
    /// The next hop; of several the first.
    pub via: Option<Ipv4Addr>,
    /// The index of the link it sends through; of several the first.
    pub dev: Option<u32>,
    /// The address that packets from here have, where the route says.
    pub source: Option<Ipv4Addr>,
    /// The lower, the earlier it is taken.
    pub metric: u32,
    /// Whose it is.
    pub protocol: u8,
}

/// Makes a route.
#[must_use]
pub fn add(route: &RouteSpec) -> Request {
    let mut message = message(route);
    // A route without a next hop leads to neighbours; the kernel wants the scope to say so.
    message.header.scope = match (route.kind, route.via) {
        (RouteKind::Unicast, None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let flags = if route.replace { NLM_F_REPLACE } else { NLM_F_EXCL };
    Request::new(words("add", route), NLM_F_CREATE | flags, RouteNetlinkMessage::NewRoute(message))
}

/// Removes a route that agrees with all that `route` says.
#[must_use]
pub fn delete(route: &RouteSpec) -> Request {
    let mut message = message(route);
    message.header.scope = RouteScope::NoWhere; // any
    Request::new(words("delete", route), 0, RouteNetlinkMessage::DelRoute(message))
}

fn words(verb: &str, route: &RouteSpec) -> String {
    let destination = route.destination.map_or_else(|| "default".to_owned(), |net| net.to_string());
    format!("ip route {verb} {destination} table {}", route.table)
}

fn message(route: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: route.destination.map_or(0, |net| net.prefix_len()),
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: route.protocol.into(),
        kind: RouteType::from(u8::from(route.kind)),
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let address = |address| RouteAddress::Inet(address);
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.extend(
        [
            route.destination.map(|net| RouteAttribute::Destination(address(net.network()))),
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

    /// The IPv4 routes of all tables.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the tables would not stand still.
    pub fn routes(&mut self) -> io::Result<Vec<RouteInfo>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        self.dump(RouteNetlinkMessage::GetRoute(message), decode)
    }

    /// The IPv4 routes of the main table.
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
    let mut route = RouteInfo {
        destination: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix).ok()?,
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
            RTA_DST => route.destination = Ipv4Net::new(address(value)?, prefix).ok()?,
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

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
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
        let spec = RouteSpec {
            destination: Some("10.77.128.0/18".parse().unwrap()),
            table: 0x6e62,
            via: Some(Ipv4Addr::new(10, 77, 128, 1)),
            onlink: true,
            dev: Some(7),
            metric: Some(9),
            ..RouteSpec::default()
        };
        let request = add(&spec);
        let read = decode(&request.bytes[16..]).unwrap();
        assert_eq!(Some(read.destination), spec.destination);
        assert_eq!((read.table, read.via, read.dev, read.metric), (spec.table, spec.via, spec.dev, 9));
        assert_eq!((read.kind, read.protocol), (RouteKind::Unicast, PROTOCOL));
        assert_eq!(u32_at(&request.bytes, 16 + 8), Some(4), "RTNH_F_ONLINK");
        assert_eq!(u16_at(&request.bytes, 6), Some(0x601), "NLM_F_REQUEST, NLM_F_CREATE, NLM_F_EXCL");
    }

    #[test]
    fn a_route_of_two_next_hops_is_read_as_its_first() {
        let mut payload = vec![2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        payload.extend([36, 0, 9, 0]);
        for (index, last) in [(3, 1), (4, 2)] {
            payload.extend([16, 0, 0, 0, index, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, last]);
        }
        let route = decode(&payload).unwrap();
        assert_eq!((route.dev, route.via), (Some(3), Some(Ipv4Addr::new(192, 0, 2, 1))));
    }
}
