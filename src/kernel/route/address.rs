//! Addresses of links.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Request, Route, address_family};
use crate::kernel::wire::{attribute, u32_at};

/// The size of `struct ifaddrmsg`, and where things are in it.
const HEADER: usize = 8;
const PREFIX: usize = 1;
const INDEX: usize = 4;

/// From `linux/if_addr.h`.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Gives a link an address, which can be used at once: nobody is asked whether it is free (RFC 4862 §5.4), which takes
/// a second. One that it has already is no error. A /32 or /128 brings no route with it.
#[must_use]
pub fn add(index: u32, address: impl Into<IpAddr>, prefix_len: u8) -> Request {
    let address = address.into();
    let mut message = AddressMessage::default();
    message.header.family = address_family(address);
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    let mut flags = AddressFlags::empty();
    if prefix_len == IpNet::from(address).max_prefix_len() {
        flags |= AddressFlags::Noprefixroute;
    }
    if address.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    let what = format!("ip address add {address}/{prefix_len} dev #{index}");
    Request::new(what, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewAddress(message))
}

impl Route {
    /// Gives a link an address. One that it has already is no error. A /32 or /128 brings no route with it.
    ///
    /// # Errors
    /// ENODEV when there is no such link, EINVAL for a prefix longer than the address.
    pub fn add_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix_len: u8) -> io::Result<()> {
        self.execute(add(index, address, prefix_len))
    }

    /// All addresses of the namespace as (index of the link, address with the length of its subnet's
    /// prefix), each link's primary IPv4 address before its others.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the table would not stand still.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpNet)>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Unspec;
        self.dump(RouteNetlinkMessage::GetAddress(message), decode)
    }
}

fn decode(payload: &[u8]) -> Option<(u32, IpNet)> {
    let attributes = payload.get(HEADER..)?;
    // IPv6 tells a local address apart only where the other end has one of its own.
    let local = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    Some((u32_at(payload, INDEX)?, IpNet::new(ip(local)?, *payload.get(PREFIX)?).ok()?))
}

/// An address as netlink has it: 4 or 16 bytes.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        _ => <[u8; 16]>::try_from(value).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
    }
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = decode(payload);
}
