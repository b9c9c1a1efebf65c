//! Decides the shape of a new gateway from what the host is like.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Result};

use super::facts::Facts;
use super::ipv6::{self, Decision, GlobalId};
use super::place::{self, Wanted};
use super::pool;
use super::topology::{Ipv6, Topology};

/// A gateway to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPlan {
    /// Its names and addresses.
    pub topology: Topology,
    /// The interfaces on which IPv4 forwarding has to be switched on: all that have an address and do not forward.
    /// The one through which an answer or a published port's client comes in decides (net/ipv4/route.c,
    /// `ip_mkroute_input`), so the uplink alone is not enough.
    pub switched: Vec<String>,
    /// The interfaces on which IPv6 forwarding has to be switched on.
    pub switched6: Vec<String>,
    /// The addresses at which boxes find published ports, and nothing else of the host.
    pub host_addresses: Vec<IpAddr>,
    /// Why boxes get no IPv6, where they get none.
    pub without_ipv6: Option<String>,
    /// How many connections a box may have at a time.
    pub connections: u32,
}

/// What an Ethernet without news carries, in bytes: the MTU where the host has no way out.
const ETHERNET_MTU: u32 = 1500;

/// Plans gateway number `number`. `random` becomes part of its IPv6 addresses.
///
/// # Errors
/// When the host uses all of the ranges that a pool could be, or the one that was asked for, or has no address at all.
pub fn gateway(facts: &Facts, number: u32, random: GlobalId, wanted: &Wanted) -> Result<GatewayPlan> {
    // Before its first address a namespace has no table of local addresses, and without that takes no next hop for a neighbour
    // (net/ipv4/fib_frontend.c, `__inet_dev_addr_type`).
    if !facts.addresses.iter().any(|address| address.address.addr().is_ipv4()) {
        return Err(Error::new("cannot make the gateway")
            .because("this network namespace has no IPv4 address, not even that of the loopback interface")
            .hint("ip link set lo up"));
    }
    let pool = match wanted.pool {
        Some(pool) => place::check_free(IpNet::V4(pool), facts).map(|()| pool)?,
        None => pool::choose(facts)?,
    };
    let uplink6 = || facts.ipv6.as_ref().and_then(|ipv6| ipv6.uplink.as_ref());
    let mtu = facts.uplink.as_ref().or_else(uplink6).map_or(ETHERNET_MTU, |uplink| uplink.mtu);
    let (ipv6, switched6, without_ipv6) = match ipv6::decide(facts, mtu, random) {
        Decision::Pool { prefix, switched } => {
            if let Some(pool6) = wanted.pool6 {
                place::check_free(IpNet::V6(pool6), facts)?;
            }
            (Ipv6::Pool(wanted.pool6.unwrap_or(prefix)), switched, None)
        }
        Decision::Closed(reason) => {
            if let Some(pool6) = wanted.pool6 {
                return Err(Error::new(format!("cannot give boxes addresses of {pool6}"))
                    .because(format!("boxes have no IPv6: {reason}")));
            }
            let ipv6 = if facts.ipv6.is_some() { Ipv6::Closed } else { Ipv6::Absent };
            (ipv6, Vec::new(), Some(reason))
        }
    };
    Ok(GatewayPlan {
        topology: Topology { pool, ipv6, number, mtu },
        switched: to_switch(facts),
        switched6,
        host_addresses: host_addresses(facts, without_ipv6.is_none()),
        without_ipv6,
        connections: connections(facts.tracked_connections),
    })
}

/// The share of one box in what the kernel can track: an eighth. Past some thousands the kernel's counting would take time
/// itself, and half of the ports that masquerade has towards one destination would be gone.
#[must_use]
pub fn connections(tracked: Option<u32>) -> u32 {
    const FEWEST: u32 = 512;
    const MOST: u32 = 8192;
    // 0: as many as there is memory for.
    tracked.filter(|max| *max != 0).map_or(MOST, |max| (max / 8).clamp(FEWEST, MOST))
}

/// The interfaces on which IPv4 forwarding has to be switched on. None on a host that forwards: which interface does not is
/// the administrator's will there.
#[must_use]
pub fn to_switch(facts: &Facts) -> Vec<String> {
    if facts.forwarding.global {
        return Vec::new();
    }
    let has_address = |name: &str| {
        facts.addresses.iter().any(|address| address.link == name && address.address.addr().is_ipv4())
    };
    facts
        .links
        .iter()
        .filter(|link| !link.loopback && has_address(&link.name))
        .filter(|link| facts.forwarding.links.get(&link.name) == Some(&false))
        .map(|link| link.name.clone())
        .collect()
}

/// The addresses at which boxes find published ports, and nothing else of the host. `ipv6`: whether boxes have IPv6.
#[must_use]
pub fn host_addresses(facts: &Facts, ipv6: bool) -> Vec<IpAddr> {
    let concerns = |address: &IpAddr| match address {
        IpAddr::V4(four) => !four.is_loopback(),
        // Link-local ones are closed as a whole, and so is all of IPv6 where boxes have none.
        IpAddr::V6(_) => ipv6 && ipv6::is_global(*address),
    };
    facts.addresses.iter().map(|address| address.address.addr()).filter(concerns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::HostAddress;

    #[test]
    fn a_namespace_without_an_address_is_refused() {
        let mut facts = Facts::default();
        let error = gateway(&facts, 0, GlobalId::default(), &Wanted::default()).unwrap_err().to_string();
        assert!(error.contains("no IPv4 address"), "{error}");
        let address = "127.0.0.1/8".parse().unwrap();
        facts.addresses.push(HostAddress { link: "lo".to_owned(), index: 1, address });
        assert!(gateway(&facts, 0, GlobalId::default(), &Wanted::default()).is_ok());
    }

    #[test]
    fn pools_that_were_asked_for_are_had_or_refused() {
        let wanted = |pool: &str, pool6: &str| Wanted { pool: pool.parse().ok(), pool6: pool6.parse().ok() };
        let address = "127.0.0.1/8".parse().unwrap();
        let mut facts = Facts::default();
        facts.addresses.push(HostAddress { link: "lo".to_owned(), index: 1, address });
        let plan = gateway(&facts, 0, GlobalId::default(), &wanted("10.99.0.0/24", "")).unwrap();
        assert_eq!(plan.topology.pool.to_string(), "10.99.0.0/24");
        let told = |facts: &Facts, wanted: &Wanted| {
            gateway(facts, 0, GlobalId::default(), wanted).unwrap_err().to_string()
        };
        assert!(
            told(&facts, &wanted("", "fd12::/64")).contains("boxes have no IPv6: the kernel has no IPv6")
        );
        facts.routes.push("10.99.0.128/25".parse().unwrap());
        assert!(told(&facts, &wanted("10.99.0.0/24", "")).contains("10.99.0.128/25"));
    }
}
