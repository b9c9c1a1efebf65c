//! The rules of the host: what may enter by its end of the gateway's veth, and what is translated.

use ipnet::Ipv4Net;

use super::statement::{daddr, iifname, iifname_not, oifname, oifname_not, saddr, saddr_not};
use super::{
    Chain, ChainType, Family, Field, Hook, HookPoint, Nfproto, Policy, Rule, Set, Statement, T4A, T4W, Table,
    Type, base, priority, publish,
};
use crate::plan::topology::{MARK, TABLE, Topology};
use Statement::{
    Accept, Drop, Established, FrameOfIpv4, Jump, L4Protocol, LocalDestination, Lookup, Masquerade,
    RejectProhibited, RejectWithReset, Return, SetMark, SetPacketForHost, TranslatedDestination,
    Untranslatable,
};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);

/// The host's tables. The link of the topology need not exist yet on Linux 6.18, which
/// attaches the guard when it comes; kernels without that refuse them (`ENOENT`, chain guard).
#[must_use]
pub fn host(topology: &Topology) -> Vec<Table> {
    vec![guard(topology), fence(topology)]
}

/// Makes frames from the gateway, which are addressed to a wrong machine on purpose, frames for this one.
///
/// Without this table nothing from the gateway enters the host's IP stack, which no routing rule could
/// do: the table of local addresses is always looked up first. IPv6 stays out even with it. A table of
/// its own, because a chain of family inet refuses the statement.
fn guard(topology: &Topology) -> Table {
    let hook = Hook {
        kind: ChainType::Filter,
        point: HookPoint::Ingress,
        priority: -500,
        device: Some(topology.host_link()),
        policy: Policy::Accept,
    };
    let rules = vec![Rule::from([FrameOfIpv4, SetPacketForHost])];
    Table {
        family: Family::Netdev,
        name: TABLE,
        comment: TABLE,
        sets: Vec::new(),
        maps: Vec::new(),
        chains: vec![Chain { name: "guard", hook: Some(hook), rules }],
    }
}

fn fence(topology: &Topology) -> Table {
    let link = topology.host_link();
    let pool = topology.pool;
    let ipv4 = || Statement::Nfproto(Nfproto::Ipv4);
    let ipv6 = || Statement::Nfproto(Nfproto::Ipv6);

    // Nothing may address the pool before the host's own translation, whatever it came by, and nothing
    // but the link has the pool as its source. The mark is for the reverse look-up of strict rp_filter.
    let pre = vec![
        Rule::from([iifname(&link), ipv6(), Drop]),
        Rule::from([iifname_not("lo"), saddr(LOOPBACK), Drop]),
        Rule::from([iifname_not("lo"), daddr(LOOPBACK), Drop]),
        Rule::from([daddr(pool), Drop]),
        Rule::from([iifname_not(&link), saddr(pool), Drop]),
        Rule::from([iifname_not(&link), Return]),
        Rule::from([saddr_not(pool), Drop]),
        Rule::from([SetMark(MARK)]),
    ];
    // What boxes send to published ports was translated in the gateway already.
    let prenat = vec![Rule::from([iifname(&link), Return]), Rule::from([LocalDestination, Jump("publish")])];
    // What the host sends to its loopback addresses is for the relay.
    let outnat = vec![Rule::from([daddr(LOOPBACK), Return]), Rule::from([LocalDestination, Jump("publish")])];
    // After the translation, forth and back: the way to the pool is open to marked packets only.
    let setmark = vec![Rule::from([daddr(pool), SetMark(MARK)])];
    let forwarded = vec![
        Rule::from([oifname(&link), Established, Accept]),
        Rule::from([oifname(&link), TranslatedDestination, Accept]),
        Rule::from([oifname(&link), Drop]),
        // NAT passes over what belongs to no known connection: it would leave with the pool as its source. A late answer to a
        // box that has just ended is one (the ICMP error of a closed port).
        Rule::from([iifname(&link), Untranslatable, Drop]),
        Rule::from([iifname(&link), Accept]),
        Rule::from([ipv4(), Lookup(&[Field::InputInterface], "switched"), Drop]),
    ];
    let tohost = vec![
        Rule::from([iifname_not(&link), Accept]),
        Rule::from([Established, Accept]),
        Rule::from([L4Protocol(6), RejectWithReset]),
        Rule::from([RejectProhibited]),
    ];
    let fromhost = vec![Rule::from([oifname(&link), ipv6(), Drop])];
    let postnat = vec![Rule::from([saddr(pool), oifname_not(&link), Masquerade])];

    use ChainType::{Filter, Nat};
    use HookPoint::{Forward, Input, Output, Postrouting, Prerouting};
    Table {
        family: Family::Inet,
        name: TABLE,
        comment: TABLE,
        sets: vec![Set { name: "switched", key: &[Type::Ifname] }],
        maps: vec![T4A, T4W],
        chains: vec![
            base("pre", Filter, Prerouting, priority::RAW, pre),
            base("prenat", Nat, Prerouting, priority::DSTNAT, prenat),
            base("setmark", Filter, Prerouting, priority::DSTNAT + 10, setmark),
            base("forwarded", Filter, Forward, priority::FILTER, forwarded),
            base("tohost", Filter, Input, priority::FILTER, tohost),
            base("fromhost", Filter, Output, priority::FILTER, fromhost),
            base("outnat", Nat, Output, priority::DSTNAT, outnat),
            base("postnat", Nat, Postrouting, priority::SRCNAT, postnat),
            publish(),
        ],
    }
}
