//! The rules of the networks' bridges in the gateway: what a port may bring. One table for all of them, made with the first.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::Map;
use super::statement::daddr;
use super::{
    Chain, Datum, Element, Family, Field, HookPoint, Rule, Set, Statement, Table, Type, closed, regular,
};
use super::{ChainType, base};
use crate::plan::topology::{Mac, TABLE};
use Statement::{Accept, Arp, ArpRequest, Drop, Jump, LinkIcmpv6, Lookup, SetEtherDestinationBy, SetMarkBy};

/// Before all other chains at this place, and before br_netfilter, which would show the packets to those of IP (NF_BR_PRI_BRNF).
const FIRST: i32 = -400;

/// Ports to their boxes' marks.
const MARKS: Map = Map::of("marks", &[Type::Ifname], &[Type::Mark]);

/// Ports and their boxes' IPv6 addresses to their bridges' marks.
const PORTS6: Map = Map::of("ports6", &[Type::Ifname, Type::Ipv6], &[Type::Mark]);

/// Bridges' marks and IPv6 addresses to the hardware addresses of the boxes that have them.
const TO6: Map = Map::of("to6", &[Type::Mark, Type::Ipv6], &[Type::Ether]);

/// Link-local addresses (RFC 4291, 2.5.6), which no box has.
const LINK_LOCAL6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// The bridges' table. It needs no bridge to exist.
///
/// A port brings what has its own hardware address and is either from its own IP address, or asks by ARP with both who has
/// another. The bridge answers that by itself, from what the gateway knows of its boxes, so no box ever hears another's ARP, nor
/// has to answer. No other protocol comes in at all, spanning trees among them.
///
/// Of IPv6 it brings what is from its own address, but nothing that hosts and routers of one link tell each other: no neighbour
/// discovery, router advertisements, redirects, nor multicast listener reports. Boxes need none: to each all of the network is
/// behind the gateway's hardware address, and what is for another box of the bridge is sent to that one's here. So there is no
/// neighbour to ask for, to wait for, or to lie about.
#[must_use]
pub fn bridge() -> Vec<Table> {
    use Field::{
        ArpSender, ArpSenderEther, DestinationAddress6, EtherSource, InputInterface, Mark, SourceAddress,
        SourceAddress6,
    };
    let guard = vec![Rule::from([Lookup(&[InputInterface, EtherSource], "macs"), Jump("known")])];
    let known = vec![
        // Which box a packet is from, behind a bridge: chains of IP see the bridge as the interface.
        Rule::from([SetMarkBy(&[InputInterface], MARKS.name)]),
        Rule::from([Lookup(&[InputInterface, SourceAddress], "ports4"), Accept]),
        Rule::from([ArpRequest, Lookup(&[InputInterface, ArpSenderEther, ArpSender], "arps"), Accept]),
        // The mark of the bridge, until it is known that the packet is not for another of its boxes.
        Rule::from([SetMarkBy(&[InputInterface, SourceAddress6], PORTS6.name), Jump("six")]),
        Rule::from([Drop]),
    ];
    let six = vec![
        Rule::from([LinkIcmpv6, Drop]),
        Rule::from([daddr(LINK_LOCAL6), Drop]),
        Rule::from([SetEtherDestinationBy(&[Mark, DestinationAddress6], TO6.name), Accept]),
        Rule::from([SetMarkBy(&[InputInterface], MARKS.name), Accept]),
    ];
    // What the bridge did not answer: a question for an address that nobody has.
    let across: Chain =
        base("across", ChainType::Filter, HookPoint::Forward, -100, vec![Rule::from([Arp, Drop])]);
    vec![Table {
        family: Family::Bridge,
        name: TABLE,
        comment: TABLE,
        timeouts: Vec::new(),
        sets: vec![
            Set::of("macs", &[Type::Ifname, Type::Ether]),
            Set::of("ports4", &[Type::Ifname, Type::Ipv4]),
            Set::of("arps", &[Type::Ifname, Type::Ether, Type::Ipv4]),
        ],
        maps: vec![MARKS, PORTS6, TO6],
        chains: vec![
            closed("guard", HookPoint::Prerouting, FIRST, guard),
            across,
            regular("known", known),
            regular("six", six),
        ],
    }]
}

/// What the port of a box has in that table.
#[must_use]
pub fn port(link: &str, mac: Mac, address: Ipv4Addr, mark: u32) -> Vec<Element> {
    let link = || Datum::Ifname(link.to_owned());
    let (ether, four) = (Datum::Ether(mac), Datum::Ipv4(address));
    vec![
        Element::of_set("macs", [link(), ether.clone()]),
        Element::of_set("ports4", [link(), four.clone()]),
        Element::of_set("arps", [link(), ether, four]),
        Element { set: MARKS.name, key: vec![link()], value: vec![Datum::Mark(mark)] },
    ]
}

/// What it has besides, where its box has an IPv6 address. `bridge`: the mark of its bridge. `reached`: the hardware address, where
/// others of the bridge reach the box.
#[must_use]
pub fn port6(link: &str, bridge: u32, address: Ipv6Addr, reached: Option<Mac>) -> Vec<Element> {
    let six = || Datum::Ipv6(address);
    let own = Element {
        set: PORTS6.name,
        key: vec![Datum::Ifname(link.to_owned()), six()],
        value: vec![Datum::Mark(bridge)],
    };
    let from_others = reached.map(|mac| Element {
        set: TO6.name,
        key: vec![Datum::Mark(bridge), six()],
        value: vec![Datum::Ether(mac)],
    });
    [own].into_iter().chain(from_others).collect()
}
