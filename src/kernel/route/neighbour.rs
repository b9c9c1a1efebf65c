//! Neighbours: which hardware address an address has on a link.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Request, Route, address_family};
use crate::plan::topology::Mac;

/// Fixes a neighbour's hardware address for good, so that nobody is asked for it. Lost when the link
/// goes down.
#[must_use]
pub fn set(index: u32, address: impl Into<IpAddr>, mac: Mac) -> Request {
    let address = address.into();
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
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
    pub fn set_neighbour(&mut self, index: u32, address: impl Into<IpAddr>, mac: Mac) -> io::Result<()> {
        self.execute(set(index, address, mac))
    }
}
