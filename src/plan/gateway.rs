//! Decides the shape of a new gateway from what the host is like.

use std::net::Ipv4Addr;

use crate::error::Result;

use super::facts::Facts;
use super::pool;
use super::topology::Topology;

/// A gateway to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPlan {
    /// Its names and addresses.
    pub topology: Topology,
    /// The interfaces on which IPv4 forwarding has to be switched on: all that have an address and do not forward.
    /// The one through which an answer or a published port's client comes in decides (net/ipv4/route.c,
    /// `ip_mkroute_input`), so the uplink alone is not enough.
    pub switched: Vec<String>,
    /// The addresses at which boxes find published ports, and nothing else of the host.
    pub host_addresses: Vec<Ipv4Addr>,
}

/// What an Ethernet without news carries, in bytes: the MTU where the host has no way out.
const ETHERNET_MTU: u32 = 1500;

/// Plans gateway number `number`.
///
/// # Errors
/// When the host uses all of the ranges that a pool could be.
pub fn gateway(facts: &Facts, number: u32) -> Result<GatewayPlan> {
    let pool = pool::choose(facts)?;
    let mtu = facts.uplink.as_ref().map_or(ETHERNET_MTU, |uplink| uplink.mtu);
    let has_address = |name: &str| facts.addresses.iter().any(|address| address.link == name);
    let switched = facts
        .links
        .iter()
        .filter(|link| !link.loopback && has_address(&link.name))
        .filter(|link| facts.forwarding.links.get(&link.name) == Some(&false))
        .map(|link| link.name.clone())
        .collect();
    let host_addresses = facts
        .addresses
        .iter()
        .map(|address| address.address.addr())
        .filter(|address| !address.is_loopback())
        .collect();
    Ok(GatewayPlan { topology: Topology { pool, number, mtu }, switched, host_addresses })
}
