//! The rules of the host: what may enter by its end of the gateway's veth, and what is translated.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::statement::{daddr, iifname, iifname_not, oifname, oifname_not, saddr, saddr_not};
use super::{
    CLOSED, Chain, ChainType, Direction, Family, Field, Hook, HookPoint, Nfproto, Policy, ROUTED4, Rule,
    SNAT4, SNAT6, SUBNETS4, Set, Statement, Table, Type, base, port_maps, priority, publish, regular,
    too_many,
};
use crate::plan::topology::{MARK, TABLE, Topology};
use Statement::{
    Accept, Drop, FrameOf, Jump, Known, L4Protocol, LocalDestination, Lookup, Loopback, Masquerade, New,
    RejectProhibited, RejectWithReset, Reply, Return, SetMark, SetPacketForHost, SetTimeout, SnatBySource,
    TranslatedDestination,
};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const LOOPBACK6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
const LINK_LOCAL6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
const MULTICAST6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// The host's tables. The link of the topology need not exist yet on Linux 6.18, which
/// attaches the guard when it comes; kernels without that refuse them (`ENOENT`, chain guard). `connections`: how many each box
/// may have at a time.
#[must_use]
pub fn host(topology: &Topology, connections: u32) -> Vec<Table> {
    vec![guard(topology), fence(topology, connections)]
}

/// Makes frames from the gateway, which are addressed to a wrong machine on purpose, frames for this one.
///
/// Without this table nothing from the gateway enters the host's IP stack, which no routing rule could
/// do: the table of local addresses is always looked up first. A table of its own, because a chain of family inet
/// refuses the statement.
fn guard(topology: &Topology) -> Table {
    let hook = Hook {
        kind: ChainType::Filter,
        point: HookPoint::Ingress,
        priority: -500,
        device: Some(topology.host_link()),
        policy: Policy::Accept,
    };
    let families = [Some(Nfproto::Ipv4), topology.pool6().map(|_| Nfproto::Ipv6)];
    let rules = families
        .into_iter()
        .flatten()
        .map(|family| Rule::from([FrameOf(family), SetPacketForHost, Accept]))
        .collect();
    Table {
        family: Family::Netdev,
        name: TABLE,
        comment: TABLE,
        timeouts: Vec::new(),
        sets: Vec::new(),
        maps: Vec::new(),
        chains: vec![Chain { name: "guard", hook: Some(hook), rules }],
    }
}

fn fence(topology: &Topology, connections: u32) -> Table {
    let link = topology.host_link();
    let pool6 = topology.pool6();
    let pools = || topology.pools().map(|(pool, _)| pool);
    let family = Statement::Nfproto;

    // Every packet comes by here, so what most of them meet is first, and little is asked twice. Nothing may address the pool
    // before the host's own translation, whatever it came by, and nothing but the link has the pool as its source.
    let mut pre = vec![Rule::from([iifname(&link), Jump("sent")])];
    pre.extend(pools().map(|pool| Rule::from([daddr(pool), Drop])));
    pre.extend(pools().map(|pool| Rule::from([saddr(pool), Drop])));
    pre.extend([
        Rule::from([Loopback(Direction::In), Accept]),
        // Those of IPv6 the kernel itself drops (net/ipv6/ip6_input.c, `ip6_rcv_core`).
        Rule::from([saddr(LOOPBACK), Drop]),
        Rule::from([daddr(LOOPBACK), Drop]),
    ]);
    // By the link. The mark is for the reverse look-up of strict rp_filter.
    let mut sent = Vec::new();
    if pool6.is_none() {
        sent.push(Rule::from([family(Nfproto::Ipv6), Drop]));
    }
    sent.extend(pools().map(|pool| Rule::from([daddr(pool), Drop])));
    sent.push(Rule::from([daddr(LOOPBACK), Drop]));
    sent.extend(pools().map(|pool| match pool {
        IpNet::V4(_) => Rule::from([saddr_not(pool), Jump("routed")]),
        IpNet::V6(_) => Rule::from([saddr_not(pool), Drop]),
    }));
    sent.extend([Rule::from([SetMark(MARK)]), Rule::from([Accept])]);
    // Networks that other machines reach without translation; and what their boxes answer the host, which *tohost* judges.
    let to_outside: &[Field] = &[Field::SourceAddress, Field::DestinationAddress];
    let from_outside: &[Field] = &[Field::DestinationAddress, Field::SourceAddress];
    let of_subnet = || Lookup(&[Field::SourceAddress], SUBNETS4.name);
    let routed = vec![
        Rule::from([Lookup(to_outside, ROUTED4.name), Accept]),
        Rule::from([of_subnet(), LocalDestination, Accept]),
        Rule::from([Drop]),
    ];
    // What boxes send to published ports was translated in the gateway already.
    let mut prenat = vec![Rule::from([iifname(&link), Return])];
    // What the host sends to its loopback addresses is for the relay, and so is what anybody sends to its link-local ones: it
    // would not be forwarded (RFC 4291, 2.5.6).
    let mut outnat = vec![Rule::from([daddr(LOOPBACK), Return])];
    if pool6.is_some() {
        prenat.push(Rule::from([daddr(LINK_LOCAL6), Return]));
        outnat.extend([LOOPBACK6, LINK_LOCAL6].map(|net| Rule::from([daddr(net), Return])));
    }
    for chain in [&mut prenat, &mut outnat] {
        chain.push(Rule::from([LocalDestination, Jump("publish")]));
    }
    // After the translation, forth and back: the way to the pool is open to marked packets only.
    let setmark = pools().map(|pool| Rule::from([daddr(pool), SetMark(MARK)])).collect();
    let inward = vec![
        Rule::from([Known, Accept]),
        // Not by the link, and so not theirs.
        Rule::from([of_subnet(), Drop]),
        Rule::from([TranslatedDestination, SetTimeout(CLOSED.name), Accept]),
        Rule::from([Lookup(from_outside, ROUTED4.name), SetTimeout(CLOSED.name), Accept]),
        Rule::from([Drop]),
    ];
    let mut forwarded = vec![
        Rule::from([oifname(&link), Jump("inward")]),
        // NAT passes over what belongs to no known connection: it would leave with the pool as its source. A late answer to a
        // box that has just ended is one (the ICMP error of a closed port).
        Rule::from([iifname(&link), Known, Accept]),
        Rule::from([iifname(&link), New, Jump("outward")]),
        Rule::from([iifname(&link), Drop]),
        Rule::from([family(Nfproto::Ipv4), Lookup(&[Field::InputInterface], "switched"), Drop]),
    ];
    // Counted in the gateway already. But what that takes for the end of a connection need not come as far as here: a reset with
    // a TTL of 1 does not, and the connection would stay here for five days.
    let mut outward = vec![too_many([], &[Field::SourceAddress], "conns4", connections)];
    let dynamic = |name, key| Set { dynamic: true, ..Set::of(name, key) };
    let mut sets = vec![Set::of("switched", &[Type::Ifname])];
    if pool6.is_some() {
        forwarded.push(Rule::from([
            family(Nfproto::Ipv6),
            Lookup(&[Field::InputInterface], "switched6"),
            Drop,
        ]));
        outward.push(too_many([], &[Field::SourceAddress6], "conns6", connections));
        sets.push(Set::of("switched6", &[Type::Ifname]));
    }
    sets.extend([ROUTED4, SUBNETS4, dynamic("conns4", &[Type::Ipv4])]);
    sets.extend(pool6.map(|_| dynamic("conns6", &[Type::Ipv6])));
    outward.push(Rule::from([SetTimeout(CLOSED.name), Accept]));
    let deny = vec![Rule::from([L4Protocol(6), RejectWithReset]), Rule::from([RejectProhibited])];
    // Answers to the host. What a box began stays denied: it may be a connection with somebody outside, whose address is the host's
    // by now.
    let tohost = vec![
        Rule::from([iifname_not(&link), Accept]),
        Rule::from([Reply, Known, Accept]),
        Rule::from([L4Protocol(6), RejectWithReset]),
        Rule::from([RejectProhibited]),
    ];
    // What the host's IPv6 says of itself on every link: router advertisements, multicast reports.
    let closed6 = match pool6 {
        Some(_) => daddr(MULTICAST6),
        None => family(Nfproto::Ipv6),
    };
    let fromhost = vec![Rule::from([oifname(&link), closed6, Drop])];
    // Boxes whose source was chosen come first; the rest has the address of the interface it leaves by.
    let (mut postnat, mut maps) = (Vec::new(), port_maps(topology));
    for pool in pools() {
        let (family, map) = match pool {
            IpNet::V4(_) => (Nfproto::Ipv4, SNAT4),
            IpNet::V6(_) => (Nfproto::Ipv6, SNAT6),
        };
        for translation in [SnatBySource { family, map: map.name }, Masquerade] {
            postnat.push(Rule::from([saddr(pool), oifname_not(&link), translation]));
        }
        maps.push(map);
    }

    use ChainType::{Filter, Nat};
    use HookPoint::{Forward, Input, Output, Postrouting, Prerouting};
    Table {
        family: Family::Inet,
        name: TABLE,
        comment: TABLE,
        timeouts: vec![CLOSED],
        sets,
        maps,
        chains: vec![
            base("pre", Filter, Prerouting, priority::RAW, pre),
            base("prenat", Nat, Prerouting, priority::DSTNAT, prenat),
            base("setmark", Filter, Prerouting, priority::DSTNAT + 10, setmark),
            base("forwarded", Filter, Forward, priority::FILTER, forwarded),
            base("tohost", Filter, Input, priority::FILTER, tohost),
            base("fromhost", Filter, Output, priority::FILTER, fromhost),
            base("outnat", Nat, Output, priority::DSTNAT, outnat),
            base("postnat", Nat, Postrouting, priority::SRCNAT, postnat),
            regular("sent", sent),
            regular("routed", routed),
            regular("inward", inward),
            regular("outward", outward),
            regular("deny", deny),
            publish(topology),
        ],
    }
}
