//! Connections that the host's connection tracking knows with an address of the pool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::in_pool;
use crate::lab::netlink::{DUMP, Message, Netlink, attributes, find};

const GET: u16 = (1 << 8) | 1;

pub(super) fn of_the_pool() -> Vec<String> {
    let replies =
        Netlink::netfilter().dump(&Message::new(GET, DUMP, &[0; 4])).expect("a dump of connections");
    replies.iter().filter_map(|reply| entry(reply)).collect()
}

fn entry(reply: &[u8]) -> Option<String> {
    let all = attributes(&reply[4..]);
    let (original, answer) = (tuple(find(&all, 1)?)?, tuple(find(&all, 2)?)?);
    let concerned = [original.0, original.1, answer.0, answer.1].into_iter().any(in_pool);
    concerned.then(|| {
        format!("{} -> {} ({}), answered {} -> {}", original.0, original.1, original.2, answer.0, answer.1)
    })
}

/// Source, destination, and protocol with ports.
fn tuple(nested: &[u8]) -> Option<(IpAddr, IpAddr, String)> {
    let parts = attributes(nested);
    let address = attributes(find(&parts, 1)?);
    let end = |four, six| {
        let four =
            find(&address, four).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(|b| Ipv4Addr::from(b).into());
        let six = || {
            find(&address, six).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(|b| Ipv6Addr::from(b).into())
        };
        four.or_else(six)
    };
    let protocol = attributes(find(&parts, 2)?);
    let port = |kind| find(&protocol, kind).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(u16::from_be_bytes);
    let number = find(&protocol, 1)?.first().copied().unwrap_or(0);
    Some((end(1, 3)?, end(2, 4)?, format!("protocol {number}, ports {:?} {:?}", port(2), port(3))))
}
