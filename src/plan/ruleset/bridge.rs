//! The rules of the networks' bridges in the gateway: what a port may bring. One table for all of them, made with the first.

use std::net::Ipv4Addr;

use super::Map;
use super::{
    Chain, Datum, Element, Family, Field, HookPoint, Rule, Set, Statement, Table, Type, closed, regular,
};
use super::{ChainType, base};
use crate::plan::topology::{Mac, TABLE};
use Statement::{Accept, Arp, ArpRequest, Drop, Jump, Lookup, SetMarkOfInterface};

/// Before all other chains at this place, and before br_netfilter, which would show the packets to those of IP (NF_BR_PRI_BRNF).
const FIRST: i32 = -400;

/// Ports to their boxes' marks.
const MARKS: Map = Map::of("marks", &[Type::Ifname], &[Type::Mark]);

/// The bridges' table. It needs no bridge to exist.
///
/// A port brings what has its own hardware address and is either from its own IP address, or asks by ARP with both who has
/// another. The bridge answers that by itself, from what the gateway knows of its boxes, so no box ever hears another's ARP, nor
/// has to answer. No other protocol comes in at all, spanning trees among them.
#[must_use]
pub fn bridge() -> Vec<Table> {
    use Field::{ArpSender, ArpSenderEther, EtherSource, InputInterface, SourceAddress};
    let guard = vec![Rule::from([Lookup(&[InputInterface, EtherSource], "macs"), Jump("known")])];
    let known = vec![
        // Which box a packet is from, behind a bridge: chains of IP see the bridge as the interface.
        Rule::from([SetMarkOfInterface(MARKS.name)]),
        Rule::from([Lookup(&[InputInterface, SourceAddress], "ports4"), Accept]),
        Rule::from([ArpRequest, Lookup(&[InputInterface, ArpSenderEther, ArpSender], "arps"), Accept]),
        Rule::from([Drop]),
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
        maps: vec![MARKS],
        chains: vec![closed("guard", HookPoint::Prerouting, FIRST, guard), across, regular("known", known)],
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
