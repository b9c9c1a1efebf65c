//! Neighbours: which hardware address an IPv4 address has on a link.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Request, Route};
use crate::plan::topology::Mac;

/// Fixes a neighbour's hardware address for good, so that nobody is asked for it. Lost when the link
/// goes down.
#[must_use]
pub fn set(index: u32, address: Ipv4Addr, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    let what = format!("ip neighbour replace {address} dev #{index}");
    Request::new(what, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
}

impl Route {
    /// Fixes a neighbour's hardware address for good, so that nobody is asked for it. Lost when the link
    /// goes down.
    ///
    /// # Errors
    /// ENODEV when there is no such link.
    pub fn set_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
        self.execute(set(index, address, mac))
    }
}
