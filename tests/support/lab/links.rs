//! Links, addresses and routes, made in the namespace that the calling thread is in.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use nix::net::if_::if_nametoindex;

use super::netlink::{ACK, CREATE, DUMP, EXCL, Message, Netlink, attribute, attributes, find, u32_at};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DEL_RULE: u16 = 33;
const GET_RULE: u16 = 34;

const MAKE: u16 = ACK | CREATE | EXCL;

pub(crate) const MAIN: u8 = 254;

/// A pair of veths: `name` here, `peer` in the namespace `there`.
pub(crate) fn veth(name: &str, peer: &str, there: &File) {
    let fd = u32::try_from(there.as_raw_fd()).expect("an open descriptor");
    // IFLA_IFNAME 3, IFLA_NET_NS_FD 28, IFLA_LINKINFO 18 { KIND 1, DATA 2 { VETH_INFO_PEER 1 } }
    let peer = [link(0, 0, 0).to_vec(), attribute(3, &text(peer)), attribute(28, &fd.to_ne_bytes())].concat();
    let info = [attribute(1, b"veth"), attribute(2, &attribute(1, &peer))].concat();
    must(
        "a veth pair",
        Netlink::route().ask(&[Message::new(NEW_LINK, MAKE, &link(0, 0, 0)).text(3, name).attr(18, &info)]),
    );
}

pub(crate) fn bridge(name: &str) {
    let message = Message::new(NEW_LINK, MAKE, &link(0, 0, 0)).text(3, name);
    must("a bridge", Netlink::route().ask(&[message.attr(18, &attribute(1, b"bridge"))]));
}

pub(crate) fn up(name: &str) {
    must("a link up", Netlink::route().ask(&[Message::new(NEW_LINK, ACK, &link(index(name), 1, 1))]));
}

pub(crate) fn down(name: &str) {
    must("a link down", Netlink::route().ask(&[Message::new(NEW_LINK, ACK, &link(index(name), 0, 1))]));
}

pub(crate) fn rename(name: &str, to: &str) {
    let message = Message::new(NEW_LINK, ACK, &link(index(name), 0, 0)).text(3, to);
    must("a new name", Netlink::route().ask(&[message]));
}

/// Moves a link to the namespace `there`.
pub(crate) fn move_to(name: &str, there: &File) {
    let fd = u32::try_from(there.as_raw_fd()).expect("an open descriptor");
    let message = Message::new(NEW_LINK, ACK, &link(index(name), 0, 0)).u32(28, fd);
    must("a move", Netlink::route().ask(&[message]));
}

pub(crate) fn remove(name: &str) {
    must("a removal", Netlink::route().ask(&[Message::new(DEL_LINK, ACK, &link(index(name), 0, 0))]));
}

/// The names of all links.
pub(crate) fn names() -> Vec<String> {
    let all = nix::net::if_::if_nameindex().expect("the links");
    all.iter().map(|link| link.name().to_string_lossy().into_owned()).collect()
}

/// Makes `name` a port of the bridge `master`.
pub(crate) fn enslave(name: &str, master: &str) {
    let message = Message::new(NEW_LINK, ACK, &link(index(name), 0, 0)).u32(10, index(master));
    must("a bridge port", Netlink::route().ask(&[message]));
}

pub(crate) fn set_mtu(name: &str, mtu: u32) {
    let message = Message::new(NEW_LINK, ACK, &link(index(name), 0, 0)).u32(4, mtu);
    must("an MTU", Netlink::route().ask(&[message]));
}

/// Whether every link that is up has been seen by the kernel to have a carrier (`IFF_RUNNING`).
pub(crate) fn all_running() -> bool {
    const UP: u32 = 0x1;
    const RUNNING: u32 = 0x40;
    let replies = Netlink::route().dump(&Message::new(GET_LINK, DUMP, &link(0, 0, 0))).expect("the links");
    replies.iter().all(|reply| u32_at(reply, 8) & UP == 0 || u32_at(reply, 8) & RUNNING != 0)
}

/// Whether the kernel has done with looking whether somebody else has one of the IPv6 addresses (`IFA_F_TENTATIVE`).
pub(crate) fn no_address_is_tentative() -> bool {
    const GET_ADDRESS: u16 = 22;
    const TENTATIVE: u8 = 0x40;
    // struct ifaddrmsg: family, length of the prefix, flags (their first eight bits), scope, link.
    let replies = Netlink::route().dump(&Message::new(GET_ADDRESS, DUMP, &[0; 8])).expect("the addresses");
    replies.iter().all(|reply| reply.get(2).is_some_and(|flags| flags & TENTATIVE == 0))
}

/// The MTU of a link, in bytes.
pub(crate) fn mtu(name: &str) -> u32 {
    let request = Message::new(GET_LINK, ACK, &link(index(name), 0, 0));
    let replies = Netlink::route().dump(&request).expect("a link");
    let attributes = attributes(&replies[0][16..]);
    u32_at(find(&attributes, 4).expect("an MTU"), 0)
}

/// The hardware address of a link.
pub(crate) fn mac(name: &str) -> [u8; 6] {
    let request = Message::new(GET_LINK, ACK, &link(index(name), 0, 0));
    let replies = Netlink::route().dump(&request).expect("a link");
    let attributes = attributes(&replies[0][16..]);
    find(&attributes, 1).expect("a hardware address").try_into().expect("six bytes")
}

pub(crate) fn address(name: &str, address: IpAddr, prefix: u8) {
    must("an address", try_address(name, address, prefix));
}

/// The same where it may be refused (IPv6 may be switched off).
pub(crate) fn try_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, bytes) = wire(address);
    let mut header = vec![family, prefix, 0, 0];
    header.extend(index(name).to_ne_bytes());
    let mut message = Message::new(NEW_ADDRESS, MAKE, &header).attr(1, &bytes).attr(2, &bytes);
    if address.is_ipv6() {
        message = message.u32(8, 0x02); // IFA_F_NODAD: usable at once
    }
    Netlink::route().ask(&[message])
}

pub(crate) fn remove_address(name: &str, address: IpAddr, prefix: u8) {
    let (family, bytes) = wire(address);
    let mut header = vec![family, prefix, 0, 0];
    header.extend(index(name).to_ne_bytes());
    let message = Message::new(DEL_ADDRESS, ACK, &header).attr(1, &bytes).attr(2, &bytes);
    must("an address go", Netlink::route().ask(&[message]));
}

/// Removes what [`route`] made.
pub(crate) fn remove_route(to: IpAddr, prefix: u8, via: IpAddr) {
    let ((family, to), (_, via)) = (wire(to), wire(via));
    let header = [family, prefix, 0, 0, MAIN, 4, 0, 1, 0, 0, 0, 0];
    let message = Message::new(DEL_ROUTE, ACK, &header).attr(1, &to).attr(5, &via);
    must("a route go", Netlink::route().ask(&[message]));
}

/// A route to `to`/`prefix` by way of `via`, in the main table.
pub(crate) fn route(to: IpAddr, prefix: u8, via: IpAddr) {
    let ((family, to), (_, via)) = (wire(to), wire(via));
    // rtmsg: family, dst_len, src_len, tos, table, protocol (4 = static), scope, type (1 = unicast), flags
    let header = [family, prefix, 0, 0, MAIN, 4, 0, 1, 0, 0, 0, 0];
    must(
        "a route",
        Netlink::route().ask(&[Message::new(NEW_ROUTE, MAKE, &header).attr(1, &to).attr(5, &via)]),
    );
}

/// A route by way of `via`, which is on this link whatever the addresses there say.
pub(crate) fn route_by(name: &str, to: IpAddr, prefix: u8, via: IpAddr) {
    let ((family, to), (_, via)) = (wire(to), wire(via));
    // The flag is RTNH_F_ONLINK, the attribute RTA_OIF.
    let header = [family, prefix, 0, 0, MAIN, 4, 0, 1, 4, 0, 0, 0];
    let message = Message::new(NEW_ROUTE, MAKE, &header).attr(1, &to).attr(4, &index(name).to_ne_bytes());
    must("a route", Netlink::route().ask(&[message.attr(5, &via)]));
}

/// Removes every IPv4 route that `like` picks, by its table and its kind (1 unicast, 6 blackhole, 7 unreachable).
pub(crate) fn remove_routes(like: impl Fn(u32, u8) -> bool) {
    remove_routes_that(|table, header| like(table, header[7]));
}

/// Whether the main table has a route to just that, which leads somewhere (is of type unicast).
pub(crate) fn has_route(to: Ipv4Addr, prefix: u8) -> bool {
    let all = Netlink::route()
        .dump(&Message::new(GET_ROUTE, DUMP, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        .expect("routes");
    all.iter().any(|route| {
        let is_to = find(&attributes(&route[12..]), 1).is_some_and(|bytes| bytes == to.octets());
        is_to && route[1] == prefix && route[4] == MAIN && route[7] == 1
    })
}

/// Removes every IPv4 route that somebody marked as theirs (`rtm_protocol`).
pub(crate) fn remove_routes_of(protocol: u8) {
    remove_routes_that(|_, header| header[5] == protocol);
}

fn remove_routes_that(like: impl Fn(u32, &[u8]) -> bool) {
    let socket = Netlink::route();
    let all =
        socket.dump(&Message::new(GET_ROUTE, DUMP, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).expect("routes");
    for route in all {
        let table = u32_at(find(&attributes(&route[12..]), 15).expect("a table"), 0);
        if like(table, &route) {
            let mut message = Message::new(DEL_ROUTE, ACK, &route[..12]);
            for (kind, value) in attributes(&route[12..]) {
                // What a route was used for is no part of it (RTA_CACHEINFO).
                if kind != 12 {
                    message = message.attr(kind, value);
                }
            }
            must("the end of a route", socket.ask(&[message]));
        }
    }
}

/// Removes every IPv4 rule with one of these priorities; what `ip rule flush` does to them.
pub(crate) fn remove_rules(priorities: std::ops::RangeInclusive<u32>) {
    remove_rules_of(2, priorities);
}

/// The same of IPv6.
pub(crate) fn remove_rules6(priorities: std::ops::RangeInclusive<u32>) {
    remove_rules_of(10, priorities);
}

fn remove_rules_of(family: u8, priorities: std::ops::RangeInclusive<u32>) {
    let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for priority in priorities {
        while Netlink::route().ask(&[Message::new(DEL_RULE, ACK, &header).u32(6, priority)]).is_ok() {}
    }
}

/// The IPv4 rules and routes that somebody marked as theirs (`rtm_protocol`, FRA_PROTOCOL), as bytes.
pub(crate) fn owned_by(protocol: u8) -> (Vec<String>, Vec<String>) {
    let four = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let listed = |kind| Netlink::route().dump(&Message::new(kind, DUMP, &four)).expect("rules and routes");
    let sorted = |mut lines: Vec<String>| {
        lines.sort_unstable();
        lines
    };
    let rules = listed(GET_RULE)
        .into_iter()
        .filter(|rule| find(&attributes(&rule[12..]), 21).is_some_and(|of| of == [protocol]));
    let routes = listed(GET_ROUTE).into_iter().filter(|route| route[5] == protocol);
    (
        sorted(rules.map(|rule| format!("{rule:?}")).collect()),
        sorted(routes.map(|r| format!("{r:?}")).collect()),
    )
}

/// A rule with this priority that looks up the main table.
pub(crate) fn rule(priority: u32) {
    // fib_rule_hdr: family, dst_len, src_len, tos, table, 0, 0, action (1 = look up), flags
    let header = [2, 0, 0, 0, MAIN, 0, 0, 1, 0, 0, 0, 0];
    must("a rule", Netlink::route().ask(&[Message::new(NEW_RULE, MAKE, &header).u32(6, priority)]));
}

// IFLA_NET_NS_PID 19, IFLA_LINK_NETNSID 37, IFLA_TARGET_NETNSID 46 (linux/if_link.h)

/// Moves a link to the network namespace of a process.
pub(crate) fn move_to_process(name: &str, pid: u32) -> io::Result<()> {
    Netlink::route().ask(&[Message::new(SET_LINK, ACK, &link(index(name), 0, 0)).u32(19, pid)])
}

/// Moves a link to where the other end of it is: the kernel itself gives that namespace a number here.
pub(crate) fn move_to_peer(name: &str) -> io::Result<()> {
    let there = peer_namespace(name);
    Netlink::route().ask(&[Message::new(SET_LINK, ACK, &link(index(name), 0, 0)).u32(46, there)])
}

/// Makes a link in the network namespace of a process.
pub(crate) fn dummy_at_process(name: &str, pid: u32) -> io::Result<()> {
    Netlink::route().ask(&[new_bridge(name).u32(19, pid)])
}

/// Makes a link in the namespace where the other end of `by` is.
pub(crate) fn dummy_at_peer(name: &str, by: &str) -> io::Result<()> {
    Netlink::route().ask(&[new_bridge(name).u32(46, peer_namespace(by))])
}

fn new_bridge(name: &str) -> Message {
    Message::new(NEW_LINK, MAKE, &link(0, 0, 0)).text(3, name).attr(18, &attribute(1, b"bridge"))
}

fn peer_namespace(name: &str) -> u32 {
    let replies =
        Netlink::route().dump(&Message::new(GET_LINK, ACK, &link(index(name), 0, 0))).expect("a link");
    let attributes = attributes(&replies[0][16..]);
    u32_at(find(&attributes, 37).expect("the other end's namespace"), 0)
}

fn index(name: &str) -> u32 {
    if_nametoindex(name).unwrap_or_else(|errno| panic!("no link {name} in this namespace: {errno}"))
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// `ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn wire(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (2, four.octets().to_vec()),
        IpAddr::V6(six) => (10, six.octets().to_vec()),
    }
}

fn must(what: &str, result: io::Result<()>) {
    result.unwrap_or_else(|error| panic!("the lab cannot make {what}: {error}"));
}
