//! The rules of the gateway: who may talk to whom.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::statement::{daddr, iifname, oifname, oifname_not};
use super::{
    ChainType, Family, Field, HookPoint, Nfproto, Rule, Set, Statement, T4A, T4W, Table, Type, base, closed,
    priority, publish, regular,
};
use crate::plan::topology::{OUT, TABLE, Topology};
use Statement::{
    Accept, Drop, EchoRequest, Established, Jump, L4Protocol, Lookup, RejectProhibited, RejectWithReset,
    Return, Snat, TranslatedDestination,
};

/// Where no box may go, though the host could route it: link-local (cloud metadata among them),
/// loopback, multicast. The pool and the host's own addresses come on top.
const CLOSED: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
];

/// The gateway's table. It needs no link to exist.
#[must_use]
pub fn gateway(topology: &Topology) -> Vec<Table> {
    use Field::{DestinationAddress, DestinationPort, InputInterface, L4Protocol as Protocol, SourceAddress};

    // Neighbours are permanent on every link, so there is no ARP, ND or RA to let through; IPv6 is closed.
    let pre = vec![
        Rule::from([Statement::Nfproto(Nfproto::Ipv6), Drop]),
        Rule::from([iifname("lo"), Accept]),
        Rule::from([iifname(OUT), Accept]),
        Rule::from([Lookup(&[InputInterface, SourceAddress], "boxes4"), Accept]),
    ];
    // Boxes' way to published ports: translated here, or the fence around the host would reject it.
    let prenat = vec![
        Rule::from([iifname(OUT), Return]),
        Rule::from([Lookup(&[DestinationAddress], "hosts4"), Jump("publish")]),
    ];
    let mut forwarded = vec![
        // An address of the pool that no box has leads to lo, so that what is sent there comes by here and is
        // answered. What was let through all the same, of a box that has just ended, ends with its second visit.
        Rule::from([iifname("lo"), Drop]),
        Rule::from([Established, Accept]),
        Rule::from([oifname("lo"), Jump("deny")]),
        // The host's conntrack is out of sight here, so what comes from it is matched by where it goes.
        Rule::from([iifname(OUT), Lookup(&[DestinationAddress, Protocol, DestinationPort], "pub4"), Accept]),
        // The host itself, which nobody else can pass for: the kernel drops what comes in with its own address.
        Rule::from([iifname(OUT), Lookup(&[SourceAddress], "hosts4"), Accept]),
        Rule::from([iifname(OUT), Drop]),
        Rule::from([TranslatedDestination, Accept]),
        Rule::from([oifname_not(OUT), Jump("deny")]),
    ];
    forwarded.extend(CLOSED.map(|net| Rule::from([daddr(net), Jump("deny")])));
    forwarded.extend([
        Rule::from([daddr(topology.pool), Jump("deny")]),
        Rule::from([Lookup(&[DestinationAddress], "hosts4"), Jump("deny")]),
        Rule::from([Accept]),
    ]);
    let tohost = vec![
        Rule::from([iifname("lo"), Accept]),
        Rule::from([Established, Accept]),
        Rule::from([iifname(OUT), Drop]),
        Rule::from([EchoRequest, Accept]),
        Rule::from([Jump("deny")]),
    ];
    let deny = vec![Rule::from([L4Protocol(6), RejectWithReset]), Rule::from([RejectProhibited])];
    // A box that reaches itself must not see its own address as the other end.
    let postnat = vec![Rule::from([
        Lookup(&[SourceAddress, DestinationAddress], "self4"),
        Snat(topology.gateway_address()),
    ])];

    use ChainType::Nat;
    use HookPoint::{Forward, Input, Postrouting, Prerouting};
    vec![Table {
        family: Family::Inet,
        name: TABLE,
        comment: TABLE,
        sets: vec![
            Set { name: "boxes4", key: &[Type::Ifname, Type::Ipv4] },
            Set { name: "hosts4", key: &[Type::Ipv4] },
            Set { name: "self4", key: &[Type::Ipv4, Type::Ipv4] },
            Set { name: "pub4", key: &[Type::Ipv4, Type::Proto, Type::Port] },
        ],
        maps: vec![T4A, T4W],
        chains: vec![
            closed("pre", Prerouting, priority::RAW, pre),
            base("prenat", Nat, Prerouting, priority::DSTNAT, prenat),
            closed("forwarded", Forward, priority::FILTER, forwarded),
            closed("tohost", Input, priority::FILTER, tohost),
            base("postnat", Nat, Postrouting, priority::SRCNAT, postnat),
            regular("deny", deny),
            publish(),
        ],
    }]
}
