//! Routes and policy-routing rules, as values that print in the words of `ip`.
//!
//! The pool's route exists only in a table of its own, which only two kinds of packets look at: the host's own, and
//! those that carry netbox's mark. Everything else finds `unreachable` in the main table. So
//! nobody is routed to a box, rules flushed or not.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::topology::{CLOSED_TABLE, MARK, OUT, POOL_TABLE, Topology};

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends packets on.
    Unicast,
    /// Answers with an ICMP error.
    Unreachable,
    /// Discards silently.
    Blackhole,
}

/// An IPv4 route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it does.
    pub kind: Kind,
    /// `None`: the default route.
    pub destination: Option<Ipv4Net>,
    /// The next hop, taken to be on the link whatever the addresses say (`onlink`).
    pub via: Option<Ipv4Addr>,
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
    /// Only packets to there.
    pub destination: Option<Ipv4Net>,
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
    let pool = Some(topology.pool);
    vec![
        Route {
            kind: Kind::Unicast,
            destination: pool,
            via: Some(topology.gateway_address()),
            dev: Some(topology.host_link()),
            table: Some(POOL_TABLE),
            metric: None,
        },
        Route {
            kind: Kind::Blackhole,
            destination: None,
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
}

/// The rules that the host needs. `switched`: the interfaces on which netbox switched forwarding on, which must
/// not make the host a router for anybody but boxes (promise I4).
#[must_use]
pub fn host_rules<'a>(topology: &Topology, switched: impl IntoIterator<Item = &'a String>) -> Vec<Rule> {
    let pool = Some(topology.pool);
    let lo = Some("lo".to_owned());
    let mut rules = vec![
        Rule { priority: 90, destination: pool, iif: lo, marked: false, table: POOL_TABLE },
        Rule { priority: 91, destination: pool, iif: None, marked: true, table: POOL_TABLE },
    ];
    rules.extend(switched.into_iter().map(|interface| Rule {
        priority: 92,
        destination: None,
        iif: Some(interface.clone()),
        marked: false,
        table: CLOSED_TABLE,
    }));
    rules
}

/// The routes that the gateway needs, but for one to each box.
#[must_use]
pub fn gateway_routes(topology: &Topology) -> Vec<Route> {
    vec![
        // Addresses that no box has: to where the forward chain sees them, and answers at once. An `unreachable` route
        // would answer before that, and rarely: the kernel limits it to a few per second (net.ipv4.route.error_cost).
        Route {
            kind: Kind::Unicast,
            destination: Some(topology.pool),
            via: None,
            dev: Some("lo".to_owned()),
            table: None,
            metric: None,
        },
        Route {
            kind: Kind::Unicast,
            destination: None,
            via: Some(topology.next_hop()),
            dev: Some(OUT.to_owned()),
            table: None,
            metric: None,
        },
    ]
}

/// The gateway's route to one box.
#[must_use]
pub fn box_route(address: Ipv4Addr, link: &str) -> Route {
    Route {
        kind: Kind::Unicast,
        destination: Some(Ipv4Net::from(address)),
        via: None,
        dev: Some(link.to_owned()),
        table: None,
        metric: None,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unicast => {}
            Kind::Unreachable => f.write_str("unreachable ")?,
            Kind::Blackhole => f.write_str("blackhole ")?,
        }
        match self.destination {
            Some(destination) => write!(f, "{destination}")?,
            None => f.write_str("default")?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = &self.dev {
            write!(f, " dev {dev}")?;
        }
        if self.via.is_some() {
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
        if let Some(destination) = self.destination {
            write!(f, " to {destination}")?;
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
