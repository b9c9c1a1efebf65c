//! Neighbours: which hardware address an address has on a link, and behind which port of a bridge a hardware address is.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Request, Route, address_family, tolerate};
use crate::plan::topology::Mac;
use crate::plan::wiring::written;

/// Fixes a neighbour's hardware address for good, so that nobody is asked for it. Lost when the link
/// goes down.
#[must_use]
pub fn set(index: u32, address: impl Into<IpAddr>, mac: Mac) -> Request {
    let address = address.into();
    let mut message = named(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    let what = format!("ip neighbour replace {address} dev #{index}");
    Request::new(what, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
}

fn named(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(address);
    message.header.ifindex = index;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

/// Fixes behind which port of its bridge a hardware address is. It goes with the port. Static (NUD_NOARP): a permanent one would be
/// the bridge's own (net/bridge/br_fdb.c, `fdb_add_entry`).
#[must_use]
pub fn forward(port: u32, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    let what = format!("bridge fdb replace {} dev #{port} master static", written(mac));
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

    /// Forgets a neighbour. One that is not known, or whose link is gone, is success.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn remove_neighbour(&mut self, index: u32, address: impl Into<IpAddr>) -> io::Result<()> {
        let address = address.into();
        let what = format!("ip neighbour delete {address} dev #{index}");
        let request = Request::new(what, 0, RouteNetlinkMessage::DelNeighbour(named(index, address)));
        tolerate(self.execute(request), &[libc::ENOENT, libc::ENODEV])
    }
}
