//! The IPv6 of a network: its range, and which addresses boxes get of it.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::network::Network;
use super::topology::{Ipv6, LEAST_MTU6, MOST_PORTS, Topology};
use crate::error::{Error, Result};
use crate::spec::network::NetworkName;
use crate::spec::subnet::{PREFIXES6, is_host};

/// The IPv6 of a network as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Network6 {
    /// The range of its addresses.
    pub subnet: Ipv6Net,
    /// The gateway's address in it.
    pub gateway: Ipv6Addr,
    /// Where boxes get their addresses from; `None` for all of the range.
    pub ip_range: Option<Ipv6Net>,
}

/// The same as a file has it: addresses are computed only from one that can be.
#[derive(Deserialize)]
struct Written {
    subnet: Ipv6Net,
    gateway: Ipv6Addr,
    ip_range: Option<Ipv6Net>,
}

impl TryFrom<Written> for Network6 {
    type Error = &'static str;

    fn try_from(Written { subnet, gateway, ip_range }: Written) -> Result<Self, Self::Error> {
        let whole = subnet.trunc() == subnet && PREFIXES6.contains(&subnet.prefix_len());
        let range = ip_range.is_none_or(|range| subnet.contains(&range));
        if !whole || !range || !is_host(subnet.into(), gateway.into()) {
            return Err("no network with such IPv6 addresses was ever made");
        }
        Ok(Self { subnet, gateway, ip_range })
    }
}

/// A box's place in that of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member6 {
    /// The range of its addresses.
    pub subnet: Ipv6Net,
    /// The gateway's address in it.
    pub gateway: Ipv6Addr,
    /// The box's.
    pub address: Ipv6Addr,
}

impl Member6 {
    /// That of the box with this address.
    #[must_use]
    pub const fn new(network: &Network6, address: Ipv6Addr) -> Self {
        Self { subnet: network.subnet, gateway: network.gateway, address }
    }

    /// As much of it as taking it down needs.
    #[must_use]
    pub fn alone(address: Ipv6Addr) -> Self {
        Self { subnet: address.into(), gateway: address, address }
    }
}

/// Whether a box gets an IPv6 address in a network. `asked`: the one that it is to have. `no_ipv6`: it is to have none.
///
/// # Errors
/// When it is to have one that it cannot have there.
pub fn is_had(
    network: &Network,
    topology: &Topology,
    asked: Option<Ipv6Addr>,
    no_ipv6: bool,
) -> Result<bool> {
    let mtu = network.mtu.unwrap_or(topology.mtu);
    let cannot = |address: Ipv6Addr| {
        Error::new(format!("cannot give the box the address {address} in network {}", network.name))
    };
    match (network.ipv6, asked) {
        (None, None) => Ok(false),
        (None, Some(address)) => Err(cannot(address)
            .because("the network has no IPv6")
            .hint("netbox network create --ipv6 makes one that has")),
        (Some(six), _) => {
            asked.map_or(Ok(()), |address| six.check_address(&network.name, address))?;
            match asked.filter(|_| !topology.link_has_ipv6(mtu)) {
                None => Ok(topology.link_has_ipv6(mtu) && !no_ipv6),
                Some(address) if topology.ipv6 == Ipv6::Absent => {
                    Err(cannot(address).because("the kernel has no IPv6"))
                }
                Some(address) => Err(cannot(address)
                    .because(format!("the MTU, {mtu}, is less than IPv6 needs, {LEAST_MTU6}"))
                    .hint("netbox network create --mtu")),
            }
        }
    }
}

impl Network6 {
    /// The addresses that a box could get, beginning at a place of the range: so many that one of them is free, if one is. The place
    /// is that of its IPv4 address, so that a box has the same number in both, as a rule.
    pub fn candidates(&self, start: u32) -> impl Iterator<Item = Ipv6Addr> + use<> {
        let (own, range) = (*self, self.ip_range.unwrap_or(self.subnet));
        // Networks are at most a /8.
        let count = 1u128 << (128 - range.prefix_len().max(1));
        let (first, start) = (u128::from(range.network()), u128::from(start));
        let steps = 0..count.min(TRIES);
        let all = steps.map(move |step| Ipv6Addr::from(first + (start + step) % count));
        all.filter(move |address| own.is_for_boxes(*address))
    }

    /// Refuses an address that no box can have here.
    ///
    /// # Errors
    /// Naming the range.
    pub fn check_address(&self, network: &NetworkName, address: Ipv6Addr) -> Result<()> {
        if self.is_for_boxes(address) {
            return Ok(());
        }
        let cause = match address {
            _ if address == self.gateway => "it is the gateway's".to_owned(),
            _ => format!("it is no address of a box in {}", self.subnet),
        };
        Err(Error::new(format!("cannot give the box the address {address} in network {network}"))
            .because(cause))
    }

    fn is_for_boxes(&self, address: Ipv6Addr) -> bool {
        is_host(IpNet::V6(self.subnet), address.into()) && address != self.gateway
    }
}

/// As many are looked at: the bridge's ports may all have one, and so have the gateway and nobody.
const TRIES: u128 = MOST_PORTS as u128 + 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnet: &str, gateway: &str, range: &str) -> Network6 {
        let (subnet, gateway) = (subnet.parse().unwrap(), gateway.parse().unwrap());
        Network6 { subnet, gateway, ip_range: range.parse().ok() }
    }

    #[test]
    fn boxes_get_every_address_but_those_of_the_gateway_and_of_nobody() {
        let small = network("fd09::8/125", "fd09::9", "");
        let mut all: Vec<_> = small.candidates(13).collect();
        assert_eq!(all.first().unwrap().to_string(), "fd09::d");
        all.sort_unstable();
        let written: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["fd09::a", "fd09::b", "fd09::c", "fd09::d", "fd09::e", "fd09::f"]);
        let name = NetworkName::parse("db").unwrap();
        for (bad, words) in
            [("fd09::8", "no address of a box"), ("fd09::9", "the gateway's"), ("fd09::10", "fd09::8/125")]
        {
            let error = small.check_address(&name, bad.parse().unwrap()).unwrap_err();
            assert!(error.exit_status() == 125 && error.to_string().contains(words), "{error}");
        }
        let large = network("fd00::/8", "fd00::1", "");
        assert!(large.candidates(u32::MAX).count() > MOST_PORTS);
        let part = network("fd09::/64", "fd09::1", "fd09::7:0/112");
        assert_eq!(part.candidates(0x1_0007).next().unwrap().to_string(), "fd09::7:7");
    }

    #[test]
    fn one_that_nobody_made_is_not_read() {
        let network = network("fd09::/64", "fd09::1", "fd09::7:0/112");
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network6>(&text).unwrap(), network);
        for (from, to) in [
            ("fd09::/64", "fd09::7/64"),
            ("fd09::/64", "::/0"),
            ("fd09::1", "fd09::"),
            ("fd09::1", "fd08::1"),
            ("fd09::7:0/112", "fd08::7:0/112"),
        ] {
            assert_ne!(text.replace(from, to), text);
            assert!(serde_json::from_str::<Network6>(&text.replace(from, to)).is_err(), "{to}");
        }
    }
}
