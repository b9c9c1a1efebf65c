//! IPv4 addresses of links.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Request, Route};
use crate::kernel::wire::{attribute, u32_at};

/// The size of `struct ifaddrmsg`, and where things are in it.
const HEADER: usize = 8;
const PREFIX: usize = 1;
const INDEX: usize = 4;

/// From `linux/if_addr.h`.
const IFA_LOCAL: u16 = 2;

/// Gives a link an address. One that it has already is no error. A /32 brings no route with it.
#[must_use]
pub fn add(index: u32, address: Ipv4Addr, prefix_len: u8) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    if prefix_len == 32 {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    }
    let what = format!("ip address add {address}/{prefix_len} dev #{index}");
    Request::new(what, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewAddress(message))
}

impl Route {
    /// Gives a link an address. One that it has already is no error. A /32 brings no route with it.
    ///
    /// # Errors
    /// ENODEV when there is no such link, EINVAL for a prefix longer than 32.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        self.execute(add(index, address, prefix_len))
    }

    /// All IPv4 addresses of the namespace as (index of the link, address with the length of its subnet's
    /// prefix), each link's primary address before its others.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the table would not stand still.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Net)>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        self.dump(RouteNetlinkMessage::GetAddress(message), decode)
    }
}

fn decode(payload: &[u8]) -> Option<(u32, Ipv4Net)> {
    let local = attribute(payload.get(HEADER..)?, IFA_LOCAL)?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(local).ok()?);
    Some((u32_at(payload, INDEX)?, Ipv4Net::new(address, *payload.get(PREFIX)?).ok()?))
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = decode(payload);
}
