//! The rules of the gateway: who may talk to whom.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::element::{OPENED, PUBLISHED_AT, PUBLISHED_AT6};
use super::statement::{daddr, iifname, iifname_not, oifname, oifname_not, saddr};
use super::{
    AWAY4, AWAY6, ChainType, Direction, Family, Field, HOME4, HOME6, HookPoint, Map, Nfproto, ROUTED4, Rule,
    SUBNETS4, Set, Statement, Table, Type, base, closed, port_maps, priority, publish, regular, too_many,
};
use crate::plan::network::BRIDGE_PREFIX;
use crate::plan::topology::{OUT, RESOLVERS, TABLE, Topology};
use Statement::{
    Accept, Drop, EchoRequest, Established, FromPort, Jump, L4Protocol, Lookup, Loopback, Notrack,
    RejectProhibited, RejectWithReset, Related, Return, Snat, ToPort, TranslatedDestination,
};

/// The port of name servers (RFC 1035, 4.2).
const DNS: u16 = 53;

/// Where no box may go, though the host could route it: link-local (cloud metadata among them),
/// loopback, multicast. The pool and the host's own addresses come on top.
const CLOSED: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
];

/// Link-local: router advertisements, redirects and neighbour discovery among it.
const LINK_LOCAL6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// The same for IPv6: link-local, multicast, and the addresses at which clouds tell a machine its secrets (Amazon EC2, Google
/// Compute Engine, Oracle Cloud, Scaleway), which are unique local ones.
const CLOSED6: [Ipv6Net; 6] = [
    LINK_LOCAL6,
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
];

/// The gateway's table. It needs no link to exist. `connections`: how many each box may have at a time.
#[must_use]
pub fn gateway(topology: &Topology, connections: u32) -> Vec<Table> {
    use Field::{
        DestinationAddress, DestinationAddress6, DestinationBlock, DestinationPort, InputInterface,
        L4Protocol as Protocol, OutputInterface, SourceAddress, SourceAddress6,
    };

    let pool6 = topology.pool6();
    let service: &[Field] = &[DestinationAddress, Protocol, DestinationPort];
    let block: &[Field] = &[DestinationAddress, Protocol, DestinationBlock];
    let service6: &[Field] = &[DestinationAddress6, Protocol, DestinationPort];
    let block6: &[Field] = &[DestinationAddress6, Protocol, DestinationBlock];
    // Neighbours are permanent on every link, so there is no ARP, ND or RA to let through, in neither direction.
    let closed6 = match pool6 {
        Some(_) => saddr(LINK_LOCAL6),
        None => Statement::Nfproto(Nfproto::Ipv6),
    };
    let mut pre = vec![
        Rule::from([iifname(OUT), Jump("received")]),
        // Not tracked, forth and back: however many a box asks, no connection of another's is in want of a place.
        Rule::from([
            daddr(RESOLVERS),
            ToPort(DNS),
            Lookup(&[InputInterface, SourceAddress], "boxes4"),
            Notrack,
            Accept,
        ]),
        Rule::from([Lookup(&[InputInterface, SourceAddress], "boxes4"), Accept]),
    ];
    if pool6.is_some() {
        pre.push(Rule::from([Lookup(&[InputInterface, SourceAddress6], "boxes6"), Accept]));
    }
    pre.push(Rule::from([Loopback(Direction::In), Jump("received")]));
    let received = vec![Rule::from([closed6, Drop]), Rule::from([Accept])];
    let answers = vec![Rule::from([saddr(RESOLVERS), FromPort(DNS), Notrack])];
    // What the host sends to a box of a network, by the address of the pool that it knows of it. Boxes' way to published
    // ports: translated here, or the fence around the host would reject it.
    let home = |family, key, map: Map| Statement::Dnat { family, key, map: map.name, keeps_port: true };
    let mut prenat = vec![Rule::from([iifname(OUT), home(Nfproto::Ipv4, &[DestinationAddress], HOME4)])];
    if pool6.is_some() {
        prenat.push(Rule::from([iifname(OUT), home(Nfproto::Ipv6, &[DestinationAddress6], HOME6)]));
    }
    prenat.extend([
        Rule::from([iifname(OUT), Return]),
        Rule::from([Lookup(&[DestinationAddress], "hosts4"), Jump("publish")]),
    ]);
    if pool6.is_some() {
        prenat.push(Rule::from([Lookup(&[DestinationAddress6], "hosts6"), Jump("publish")]));
    }
    let mut forwarded = vec![
        // An address of the pool that no box has leads to lo, so that what is sent there comes by here and is
        // answered. What was let through all the same, of a box that has just ended, ends with its second visit.
        Rule::from([Loopback(Direction::In), Drop]),
        Rule::from([Established, Accept]),
        Rule::from([Related, Jump("errors")]),
        Rule::from([Loopback(Direction::Out), Jump("deny")]),
    ];
    // The same of IPv6, where such addresses lead out. By ICMP alone a connection attempt would not end at once: the error comes
    // back while the socket is still busy with the attempt (net/ipv6/tcp_ipv6.c, `tcp_v6_err`).
    forwarded.extend(pool6.map(|pool| Rule::from([oifname(OUT), daddr(pool), Jump("deny")])));
    forwarded.extend([
        Rule::from([Lookup(&[InputInterface], "internal"), Jump("deny")]),
        limited(connections),
        // The host's conntrack is out of sight here, so what comes from it is matched by where it goes.
        Rule::from([iifname(OUT), Lookup(service, "pub4"), Accept]),
        Rule::from([iifname(OUT), Lookup(block, "pub4b"), Accept]),
        // The host itself, which nobody else can pass for: the kernel drops what comes in with its own address.
        Rule::from([iifname(OUT), Lookup(&[SourceAddress], "hosts4"), Accept]),
    ]);
    if pool6.is_some() {
        forwarded.extend([
            Rule::from([iifname(OUT), Lookup(service6, "pub6"), Accept]),
            Rule::from([iifname(OUT), Lookup(block6, "pub6b"), Accept]),
            Rule::from([iifname(OUT), Lookup(&[SourceAddress6], "hosts6"), Accept]),
        ]);
    }
    forwarded.extend([
        // Other machines that reach a network without translation: by the host's rules, and if those are gone by these.
        Rule::from([iifname(OUT), Lookup(&[SourceAddress], SUBNETS4.name), Drop]),
        Rule::from([iifname(OUT), Lookup(&[DestinationAddress, SourceAddress], ROUTED4.name), Accept]),
        Rule::from([iifname(OUT), Drop]),
        Rule::from([TranslatedDestination, Accept]),
        Rule::from([oifname_not(OUT), Jump("deny")]),
    ]);
    forwarded.extend(CLOSED.map(|net| Rule::from([daddr(net), Jump("deny")])));
    forwarded.extend([
        Rule::from([daddr(topology.pool), Jump("deny")]),
        Rule::from([Lookup(&[DestinationAddress], "hosts4"), Jump("deny")]),
    ]);
    if pool6.is_some() {
        forwarded.extend(CLOSED6.map(|net| Rule::from([daddr(net), Jump("deny")])));
        forwarded.push(Rule::from([Lookup(&[DestinationAddress6], "hosts6"), Jump("deny")]));
    }
    forwarded.push(Rule::from([Accept]));
    let mut tohost = vec![
        Rule::from([Loopback(Direction::In), Accept]),
        Rule::from([Established, Accept]),
        Rule::from([Related, Jump("errors")]),
        Rule::from([iifname(OUT), Drop]),
        limited(connections),
        Rule::from([EchoRequest(Nfproto::Ipv4), Accept]),
        // Each box's own: its sockets take only what comes by the box's link or, in a network, its bridge.
        Rule::from([ToPort(DNS), Lookup(&[SourceAddress, DestinationAddress], "asks4"), Accept]),
        // The host's ports that were opened to this box (`--host-port`), at the same address.
        Rule::from([
            Lookup(&[SourceAddress, DestinationAddress, Protocol, DestinationPort], "opened4"),
            Accept,
        ]),
    ];
    if pool6.is_some() {
        tohost.push(Rule::from([EchoRequest(Nfproto::Ipv6), Accept]));
    }
    tohost.push(Rule::from([Jump("deny")]));
    let deny = vec![Rule::from([L4Protocol(6), RejectWithReset]), Rule::from([RejectProhibited])];
    // A box that reaches itself must not see its own address as the other end, nor one of its network, which it would answer
    // past the gateway.
    let mut postnat = vec![Rule::from([
        Lookup(&[OutputInterface, SourceAddress], "boxes4"),
        Snat(topology.gateway_address().into()),
    ])];
    postnat.extend(topology.gateway_address6().map(|gateway| {
        let itself = Lookup(&[OutputInterface, SourceAddress6], "boxes6");
        Rule::from([itself, Snat(gateway.into())])
    }));
    // What another box sends to a published port of one in several networks: that one may know a shorter way back, past the
    // gateway, where nobody would know the answer.
    postnat.push(Rule::from([
        iifname_not(OUT),
        Lookup(&[DestinationAddress], "several4"),
        Snat(topology.gateway_address().into()),
    ]));
    postnat.extend(topology.gateway_address6().map(|gateway| {
        Rule::from([iifname_not(OUT), Lookup(&[DestinationAddress6], "several6"), Snat(gateway.into())])
    }));
    postnat.push(Rule::from([
        oifname(OUT),
        Lookup(&[SourceAddress, DestinationAddress], ROUTED4.name),
        Accept,
    ]));
    let away = |family, map: Map| Statement::SnatBySource { family, map: map.name };
    postnat.push(Rule::from([oifname(OUT), away(Nfproto::Ipv4, AWAY4)]));
    postnat.extend(pool6.map(|_| Rule::from([oifname(OUT), away(Nfproto::Ipv6, AWAY6)])));

    let mut sets = vec![
        Set::of("boxes4", &[Type::Ifname, Type::Ipv4]),
        Set::of("hosts4", &[Type::Ipv4]),
        Set::of("asks4", &[Type::Ipv4, Type::Ipv4]),
        Set::of("opened4", OPENED),
        Set::of("selves4", &[Type::Ipv4, Type::Ipv4]),
        Set::of("internal", &[Type::Ifname]),
        Set::of("several4", &[Type::Ipv4]),
        Set::of("pub4", PUBLISHED_AT),
        Set::of("pub4b", PUBLISHED_AT),
        ROUTED4,
        SUBNETS4,
    ];
    if pool6.is_some() {
        sets.extend([
            Set::of("boxes6", &[Type::Ifname, Type::Ipv6]),
            Set::of("hosts6", &[Type::Ipv6]),
            Set::of("several6", &[Type::Ipv6]),
            Set::of("selves6", &[Type::Ipv6, Type::Ipv6]),
            Set::of("pub6", PUBLISHED_AT6),
            Set::of("pub6b", PUBLISHED_AT6),
        ]);
    }
    sets.push(Set { dynamic: true, ..Set::of("conns", &[Type::Ifname, Type::Mark]) });
    let mut maps = port_maps(topology);
    maps.extend([AWAY4, HOME4]);
    maps.extend(pool6.into_iter().flat_map(|_| [AWAY6, HOME6]));

    use ChainType::{Filter, Nat};
    use HookPoint::{Forward, Input, Output, Postrouting, Prerouting};
    vec![Table {
        family: Family::Inet,
        name: TABLE,
        comment: TABLE,
        timeouts: Vec::new(),
        sets,
        maps,
        chains: vec![
            closed("pre", Prerouting, priority::RAW, pre),
            base("answers", Filter, Output, priority::RAW, answers),
            base("prenat", Nat, Prerouting, priority::DSTNAT, prenat),
            closed("forwarded", Forward, priority::FILTER, forwarded),
            closed("tohost", Input, priority::FILTER, tohost),
            base("postnat", Nat, Postrouting, priority::SRCNAT, postnat),
            regular("received", received),
            regular("errors", errors(topology)),
            regular("deny", deny),
            publish(topology),
        ],
    }]
}

/// ICMP errors about known connections. The kernel compares where they go with the connection, not where they come from
/// (net/netfilter/nf_conntrack_proto_icmp.c, `nf_conntrack_inet_error`): of boxes only those that take part in it are heard.
/// Outside, any router may be the one that has something to tell.
fn errors(topology: &Topology) -> Vec<Rule> {
    use Field::{Answerer, Answerer6, InputInterface, Opener, Opener6, SourceAddress, SourceAddress6};
    let mut rules = vec![
        Rule::from([iifname(OUT), Accept]),
        // All of a network come by one interface, so its boxes go by their addresses, which the bridge has seen to be theirs.
        Rule::from([Lookup(&[SourceAddress, Opener], "selves4"), Accept]),
        Rule::from([Lookup(&[SourceAddress, Answerer], "selves4"), Accept]),
    ];
    if topology.pool6().is_some() {
        rules.push(Rule::from([Lookup(&[SourceAddress6, Opener6], "selves6"), Accept]));
        rules.push(Rule::from([Lookup(&[SourceAddress6, Answerer6], "selves6"), Accept]));
    }
    rules.extend([
        Rule::from([iifname(&format!("{BRIDGE_PREFIX}*")), Drop]),
        Rule::from([Lookup(&[InputInterface, Opener], "boxes4"), Accept]),
        Rule::from([Lookup(&[InputInterface, Answerer], "boxes4"), Accept]),
    ]);
    if topology.pool6().is_some() {
        rules.push(Rule::from([Lookup(&[InputInterface, Opener6], "boxes6"), Accept]));
        rules.push(Rule::from([Lookup(&[InputInterface, Answerer6], "boxes6"), Accept]));
    }
    rules.push(Rule::from([Drop]));
    rules
}

/// Past so many connections of one box new ones are denied, so that neither this namespace's connection tracking nor the
/// host's, nor the host's ports, are used up for the others. One rule for all boxes; the kernel counts for each link, and where
/// several share a bridge for each mark, which tells its ports apart.
fn limited(connections: u32) -> Rule {
    let who = &[Field::InputInterface, Field::Mark];
    too_many([iifname_not(OUT), Statement::New], who, "conns", connections)
}
