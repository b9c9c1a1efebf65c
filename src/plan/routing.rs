//! Routes and policy-routing rules, as values that print in the words of `ip`.
//!
//! The pool's route exists only in a table of its own, which only two kinds of packets look at: the host's own, and
//! those that carry netbox's mark. Everything else finds `unreachable` in the main table. So
//! nobody is routed to a box, rules flushed or not.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::topology::{CLOSED_TABLE, MARK, OUT, POOL_TABLE, RESOLVERS, Topology};

/// netbox's mark on its routes (`rtm_protocol`) and rules (`FRA_PROTOCOL`): "n" in ASCII, unassigned in
/// `linux/rtnetlink.h` and in iproute2's rt_protos. The kernel gives it no meaning.
pub const PROTOCOL: u8 = 0x6e;

/// The table that is looked at first, and alone says what is local (RT_TABLE_LOCAL).
const LOCAL_TABLE: u32 = 255;

const ANYWHERE4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ANYWHERE6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends packets on.
    Unicast,
    /// Answers with an ICMP error.
    Unreachable,
    /// Discards silently.
    Blackhole,
    /// Takes packets in: the destination is this machine's own, as if it were an address of an interface.
    Local,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it does.
    pub kind: Kind,
    /// Where to; a prefix of no length is everywhere in its family.
    pub destination: IpNet,
    /// The next hop: on the link, whatever the addresses say (`onlink`), where one is named; else the kernel knows where it is.
    pub via: Option<IpAddr>,
    /// The interface.
    pub dev: Option<String>,
    /// `None`: the main table.
    pub table: Option<u32>,
    /// `None`: 0, the best.
    pub metric: Option<u32>,
}

/// A rule of the routing policy database (ip-rule(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Lower is looked at earlier; the main table is looked at by rule 32766.
    pub priority: u32,
    /// Only packets to there; a prefix of no length is every packet of its family.
    pub destination: IpNet,
    /// Only packets that came in there; `lo` is what the host itself sends.
    pub iif: Option<String>,
    /// Only packets that carry [`MARK`].
    pub marked: bool,
    /// The table to look at.
    pub table: u32,
}

/// The routes that the host needs.
#[must_use]
pub fn host_routes(topology: &Topology) -> Vec<Route> {
    let of_family = |(pool, gateway): (IpNet, IpAddr)| {
        [
            Route {
                kind: Kind::Unicast,
                destination: pool,
                via: Some(gateway),
                dev: Some(topology.host_link()),
                table: Some(POOL_TABLE),
                metric: None,
            },
            Route {
                kind: Kind::Blackhole,
                destination: anywhere(pool),
                via: None,
                dev: None,
                table: Some(CLOSED_TABLE),
                metric: None,
            },
            // The worst metric: whoever has a route of their own to these addresses keeps it.
            Route {
                kind: Kind::Unreachable,
                destination: pool,
                via: None,
                dev: None,
                table: None,
                metric: Some(u32::MAX),
            },
        ]
    };
    topology.pools().flat_map(of_family).collect()
}

/// The rules that the host needs. `switched`, `switched6`: the interfaces on which netbox switched forwarding of IPv4
/// and of IPv6 on, which must not make the host a router for anybody but boxes (promise I4).
#[must_use]
pub fn host_rules(topology: &Topology, switched: &[String], switched6: &[String]) -> Vec<Rule> {
    let of_family = |(pool, _): (IpNet, IpAddr)| {
        let lo = Some("lo".to_owned());
        let mut rules = vec![
            Rule { priority: 90, destination: pool, iif: lo, marked: false, table: POOL_TABLE },
            Rule { priority: 91, destination: pool, iif: None, marked: true, table: POOL_TABLE },
        ];
        let interfaces = if pool.addr().is_ipv4() { switched } else { switched6 };
        rules.extend(interfaces.iter().map(|interface| Rule {
            priority: 92,
            destination: anywhere(pool),
            iif: Some(interface.clone()),
            marked: false,
            table: CLOSED_TABLE,
        }));
        rules
    };
    topology.pools().flat_map(of_family).collect()
}

/// The routes that the gateway needs, but for one to each box.
#[must_use]
pub fn gateway_routes(topology: &Topology) -> Vec<Route> {
    let plain = |destination| Route {
        kind: Kind::Unicast,
        destination,
        via: None,
        dev: None,
        table: None,
        metric: None,
    };
    let way_out =
        |destination, via| Route { via: Some(via), dev: Some(OUT.to_owned()), ..plain(destination) };
    let mut routes = vec![
        // Addresses that no box has: to where the forward chain sees them, and answers at once. An `unreachable` route
        // would answer before that, and rarely: the kernel limits it to a few per second (net.ipv4.route.error_cost).
        Route { dev: Some("lo".to_owned()), ..plain(IpNet::V4(topology.pool)) },
        way_out(ANYWHERE4, topology.next_hop().into()),
        // The addresses of all resolvers at once, whether there is a box for them or not.
        Route {
            kind: Kind::Local,
            dev: Some("lo".to_owned()),
            table: Some(LOCAL_TABLE),
            ..plain(IpNet::V4(RESOLVERS))
        },
    ];
    // IPv6 has no routes by way of lo (net/ipv6/route.c, `fib6_is_reject`): there these addresses lead out, as all others do,
    // and past the forward chain too.
    routes.extend(topology.next_hop6().map(|next_hop| way_out(ANYWHERE6, next_hop.into())));
    routes
}

/// The gateway's route to one box.
#[must_use]
pub fn box_route(address: impl Into<IpAddr>, link: &str) -> Route {
    Route {
        kind: Kind::Unicast,
        destination: IpNet::from(address.into()),
        via: None,
        dev: Some(link.to_owned()),
        table: None,
        metric: None,
    }
}

/// A box's route by `dev` to everywhere in the family of the gateway's address.
#[must_use]
pub fn box_way_out(gateway: IpAddr, dev: &str) -> Route {
    by_gateway(anywhere(gateway.into()), gateway, dev)
}

/// A box's route by `dev` to a network, of the family of the gateway's address.
#[must_use]
pub fn by_gateway(destination: IpNet, gateway: IpAddr, dev: &str) -> Route {
    Route {
        kind: Kind::Unicast,
        destination,
        via: Some(gateway),
        dev: Some(dev.to_owned()),
        table: None,
        metric: None,
    }
}

/// The route of a box without a way out to its resolver.
#[must_use]
pub fn to_resolver(resolver: Ipv4Addr, gateway: Ipv4Addr, dev: &str) -> Route {
    Route { destination: IpNet::V4(resolver.into()), ..box_way_out(gateway.into(), dev) }
}

/// Everywhere in the family of `net`.
const fn anywhere(net: IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => ANYWHERE4,
        IpNet::V6(_) => ANYWHERE6,
    }
}

impl Route {
    /// Whether the next hop is taken to be on the link (RTNH_F_ONLINK).
    #[must_use]
    pub const fn is_onlink(&self) -> bool {
        self.via.is_some() && self.dev.is_some()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unicast => {}
            Kind::Unreachable => f.write_str("unreachable ")?,
            Kind::Blackhole => f.write_str("blackhole ")?,
            Kind::Local => f.write_str("local ")?,
        }
        match self.destination.prefix_len() {
            0 => f.write_str("default")?,
            _ => write!(f, "{}", self.destination)?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = &self.dev {
            write!(f, " dev {dev}")?;
        }
        if self.is_onlink() {
            f.write_str(" onlink")?;
        }
        if let Some(table) = self.table {
            write!(f, " table {table}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {} from all", self.priority)?;
        if self.destination.prefix_len() > 0 {
            write!(f, " to {}", self.destination)?;
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if self.marked {
            write!(f, " fwmark {MARK:#x}/{MARK:#x}")?;
        }
        write!(f, " lookup {}", self.table)
    }
}
