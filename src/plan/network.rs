//! Named networks: what is kept of one, which addresses it gets, and a box's place in it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::pool;
use super::record::Bridge;
use super::routed;
use super::topology::{MOST_LINKS, MOST_PORTS, Mac, eth};
use crate::error::{Error, Result};
use crate::spec::name::BoxId;
use crate::spec::network::{NetworkName, NewNetwork, PREFIXES};
use crate::spec::routed::{OutsideRoute, is_outside};

/// A network as it is kept, reboots included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Network {
    /// Short, random, never used twice: what its bridge is called.
    pub id: BoxId,
    /// Its name.
    pub name: NetworkName,
    /// The range of its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address in it.
    pub gateway: Ipv4Addr,
    /// Where boxes get their addresses from; `None` for all of the range.
    pub ip_range: Option<Ipv4Net>,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether its boxes do not reach each other.
    pub isolate: bool,
    /// The MTU of its links in bytes; `None` for the uplink's.
    pub mtu: Option<u32>,
    /// What its user calls it besides.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub created: String,
    /// The routes that the host has for its boxes.
    pub routes: Vec<OutsideRoute>,
    /// Whom its boxes send to, and hear from, with their own addresses.
    pub no_masquerade: Vec<Ipv4Net>,
}

/// A network as its file has it: addresses are computed only from one that can be.
#[derive(Deserialize)]
struct Written {
    id: BoxId,
    name: NetworkName,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    ip_range: Option<Ipv4Net>,
    internal: bool,
    isolate: bool,
    mtu: Option<u32>,
    labels: BTreeMap<String, String>,
    created: String,
    // Earlier files do not have these.
    #[serde(default)]
    routes: Vec<OutsideRoute>,
    #[serde(default)]
    no_masquerade: Vec<Ipv4Net>,
}

impl TryFrom<Written> for Network {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { id, name, subnet, gateway, ip_range, internal, isolate, mtu, labels, created, .. } =
            written;
        let (routes, no_masquerade) = (written.routes, written.no_masquerade);
        let whole = subnet.trunc() == subnet && PREFIXES.contains(&subnet.prefix_len());
        let range = ip_range.is_none_or(|range| subnet.contains(&range));
        let mtu_fits = mtu.is_none_or(|mtu| crate::spec::mtu::MTU.contains(&mtu));
        let outside = no_masquerade.iter().all(|net| is_outside(*net) && !subnet.contains(net));
        if !whole || !range || !mtu_fits || !outside || !is_host(subnet, gateway) {
            return Err("no such network was ever made");
        }
        Ok(Self {
            id,
            name,
            subnet,
            gateway,
            ip_range,
            internal,
            isolate,
            mtu,
            labels,
            created,
            routes,
            no_masquerade,
        })
    }
}

/// Whether it is an address that a host can have in that range.
fn is_host(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast()
}

/// What else is there that a network's addresses must keep clear of.
#[derive(Debug, Default)]
pub struct Others<'a> {
    /// The other networks.
    pub networks: &'a [Network],
    /// The pool of the boxes, if there is a gateway.
    pub pool: Option<Ipv4Net>,
}

/// Plans a network.
///
/// # Errors
/// A name that is taken, a range that overlaps another's: naming that one. No free range.
pub fn plan(
    new: &NewNetwork,
    id: BoxId,
    created: String,
    facts: &Facts,
    others: &Others<'_>,
) -> Result<Network> {
    if others.networks.iter().any(|other| other.name == new.name) {
        return Err(Error::new(format!("cannot create network {}", new.name))
            .because("there is a network of that name")
            .hint(format!("netbox network rm {}, or choose another name", new.name)));
    }
    let subnet = match new.subnet {
        Some(subnet) => match overlap(subnet, &new.no_masquerade, facts, others) {
            None => subnet,
            Some(cause) => {
                return Err(Error::new(format!("cannot create network {} with {subnet}", new.name))
                    .because(cause)
                    .hint("choose another --subnet; without one, netbox chooses"));
            }
        },
        None => choose(facts, others).ok_or_else(|| {
            Error::new(format!("cannot create network {}", new.name))
                .because("every private range that could serve is taken")
                .hint("give one: --subnet CIDR")
        })?,
    };
    routed::check_new(new, facts, others)?;
    Ok(Network {
        id,
        name: new.name.clone(),
        subnet,
        gateway: new.gateway.unwrap_or_else(|| nth(subnet, 1)),
        ip_range: new.ip_range,
        internal: new.internal,
        isolate: new.isolate,
        mtu: new.mtu,
        labels: new.labels.clone(),
        created,
        routes: new.routes.clone(),
        no_masquerade: new.no_masquerade.clone(),
    })
}

/// What a range overlaps, in words.
fn overlap(subnet: Ipv4Net, no_masquerade: &[Ipv4Net], facts: &Facts, others: &Others<'_>) -> Option<String> {
    let overlaps = |other: &Ipv4Net| subnet.contains(&other.network()) || other.contains(&subnet.network());
    if let Some(other) = others.networks.iter().find(|other| overlaps(&other.subnet)) {
        return Some(format!("network {} has {}", other.name, other.subnet));
    }
    if let Some(pool) = others.pool.filter(|pool| overlaps(pool)) {
        return Some(format!("boxes without a network have their addresses from {pool}"));
    }
    let routes =
        others.networks.iter().flat_map(|other| other.routes.iter().map(move |route| (other, route)));
    if let Some((other, route)) = routes.clone().find(|(_, route)| overlaps(&route.destination)) {
        return Some(format!("network {} has --route {route}", other.name));
    }
    let may_cover = |route: &IpNet| routed::may_cover(route, subnet, no_masquerade);
    pool::overlap_but(IpNet::V4(subnet), facts, may_cover).map(|cause| cause.to_string())
}

fn choose(facts: &Facts, others: &Others<'_>) -> Option<Ipv4Net> {
    pool::networks().find(|subnet| overlap(*subnet, &[], facts, others).is_none())
}

/// Whether a network can be used now: the host may have changed since it was made.
///
/// # Errors
/// Naming what of the host's, or of the pool, is in its range.
pub fn check_usable(network: &Network, facts: &Facts, pool: Ipv4Net) -> Result<()> {
    let others = Others { networks: &[], pool: Some(pool) };
    match overlap(network.subnet, &network.no_masquerade, facts, &others) {
        None => Ok(()),
        Some(cause) => {
            Err(Error::new(format!("cannot use network {} with {}", network.name, network.subnet))
                .because(cause)
                .hint(format!("netbox network rm {0}, and create it with another --subnet", network.name)))
        }
    }
}

impl Network {
    /// The addresses that a box could get, beginning somewhere in the range: so many that one of them is free, if one is.
    pub fn candidates(&self, start: u32) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (range, subnet, gateway) = (self.ip_range.unwrap_or(self.subnet), self.subnet, self.gateway);
        // Not more than 2^24, since networks are at most a /8.
        let count = 1u32 << (32 - range.prefix_len());
        let first = u32::from(range.network());
        let all = (0..count).map(move |step| Ipv4Addr::from(first + (start % count + step) % count));
        // The bridge's ports are all, the gateway and the ends of the range are none.
        all.filter(move |address| is_host(subnet, *address) && *address != gateway).take(MOST_PORTS + 1)
    }

    /// Refuses an address that no box can have here.
    ///
    /// # Errors
    /// Naming the range.
    pub fn check_address(&self, address: Ipv4Addr) -> Result<()> {
        if is_host(self.subnet, address) && address != self.gateway {
            return Ok(());
        }
        let cause = match address {
            _ if address == self.gateway => "it is the gateway's".to_owned(),
            _ => format!("it is no address of a box in {}", self.subnet),
        };
        Err(Error::new(format!("cannot give the box the address {address} in network {}", self.name))
            .because(cause))
    }
}

/// How the names of bridges begin.
pub const BRIDGE_PREFIX: &str = "br";

/// The name of a network's bridge in the gateway, from its id (8 characters).
#[must_use]
pub fn bridge_name(network: &BoxId) -> String {
    format!("{BRIDGE_PREFIX}{}", network.as_str())
}

/// A box's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The network's id.
    pub network: BoxId,
    /// Its name.
    pub name: NetworkName,
    /// Which of the box's links leads there, counted from 0, which is its way out.
    #[serde(deserialize_with = "link_number")]
    pub link: u32,
    /// The name of the box's end of that link.
    pub interface: String,
    /// The index of its bridge in the gateway.
    pub bridge: u32,
    /// The range of its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address in it.
    pub gateway: Ipv4Addr,
    /// The box's.
    pub address: Ipv4Addr,
    /// The hardware address of the box's end.
    pub mac: Mac,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// Whether the network has no way out.
    pub internal: bool,
    /// Whether its boxes do not reach each other.
    pub isolated: bool,
}

/// Names and indexes are computed only from one that can be.
fn link_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let link = u32::deserialize(deserializer)?;
    if link < MOST_LINKS { Ok(link) } else { Err(D::Error::custom("no box ever had such a link")) }
}

/// What a box holds in a network: what nobody else may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The network's id.
    pub network: BoxId,
    /// Which of the box's links leads there.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The hardware address.
    pub mac: Mac,
}

impl Member {
    /// A box's place in `network`, whose bridge has this index in a gateway with this MTU.
    #[must_use]
    pub fn new(network: &Network, seat: &Seat, bridge: u32, mtu: u32) -> Self {
        Self {
            network: network.id,
            name: network.name.clone(),
            link: seat.link,
            interface: eth(seat.link),
            bridge,
            subnet: network.subnet,
            gateway: network.gateway,
            address: seat.address,
            mac: seat.mac,
            mtu: network.mtu.unwrap_or(mtu),
            internal: network.internal,
            isolated: network.isolate,
        }
    }

    /// As much of it as taking it down needs. `None`: its network has no bridge here.
    #[must_use]
    pub fn of(seat: &Seat, bridges: &[Bridge]) -> Option<Self> {
        let bridge = bridges.iter().find(|bridge| bridge.network == seat.network)?.index;
        let Seat { network, link, address, mac } = *seat;
        let (subnet, gateway) = (address.into(), address);
        Some(Self {
            network,
            // Ids are names that a network could have.
            name: NetworkName::parse(network.as_str()).ok()?,
            link,
            interface: eth(link),
            bridge,
            subnet,
            gateway,
            address,
            mac,
            mtu: 0,
            internal: false,
            isolated: false,
        })
    }

    /// What it holds.
    #[must_use]
    pub const fn seat(&self) -> Seat {
        Seat { network: self.network, link: self.link, address: self.address, mac: self.mac }
    }

    /// The name of the network's bridge in the gateway.
    #[must_use]
    pub fn bridge_name(&self) -> String {
        bridge_name(&self.network)
    }
}

/// The first bytes of the hardware addresses that boxes have in networks; no other may begin so.
pub const MAC_PREFIX: [u8; 2] = [0x0a, 0x6e];

/// The hardware address of a box in a network: that of its address, so that nobody who remembers the one from a box before is wrong
/// about the other.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    let [first, second] = MAC_PREFIX;
    [first, second, a, b, c, d]
}

fn nth(subnet: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::HostAddress;

    fn new(name: &str, subnet: &str) -> NewNetwork {
        NewNetwork { subnet: subnet.parse().ok(), ..NewNetwork::called(NetworkName::parse(name).unwrap()) }
    }

    fn planned(new: &NewNetwork, facts: &Facts, others: &Others<'_>) -> Result<Network> {
        plan(new, BoxId::from_random([1; 5]), "now".to_owned(), facts, others)
    }

    fn host() -> Facts {
        let address = "192.168.7.9/24".parse().unwrap();
        Facts {
            addresses: vec![HostAddress { link: "eth0".to_owned(), index: 2, address }],
            routes: vec!["172.20.0.0/16".parse().unwrap()],
            ..Facts::default()
        }
    }

    #[test]
    fn a_range_that_is_taken_is_refused_with_the_name_of_who_has_it() {
        let facts = host();
        let db = planned(&new("db", "10.9.0.0/24"), &facts, &Others::default()).unwrap();
        assert_eq!(db.gateway.to_string(), "10.9.0.1");
        let networks = [db];
        let others = Others { networks: &networks, pool: "10.77.128.0/18".parse().ok() };
        for (name, subnet, words) in [
            ("db", "10.10.0.0/24", "a network of that name"),
            ("web", "10.9.0.128/25", "network db has 10.9.0.0/24"),
            ("web", "10.8.0.0/15", "network db has 10.9.0.0/24"),
            ("web", "10.77.129.0/24", "from 10.77.128.0/18"),
            ("web", "192.168.0.0/16", "the host has the address 192.168.7.9/24 on eth0"),
            ("web", "172.20.5.0/24", "the host has a route to 172.20.0.0/16"),
        ] {
            let error = planned(&new(name, subnet), &facts, &others).unwrap_err();
            assert_eq!(error.exit_status(), 125);
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn ranges_that_netbox_chooses_overlap_nothing_and_no_pool() {
        let facts = host();
        let mut networks = Vec::new();
        for number in 0..50 {
            let others = Others { networks: &networks, pool: Some(pool::choose(&facts).unwrap()) };
            let one = planned(&new(&format!("n{number}"), ""), &facts, &others).unwrap();
            assert_eq!(one.subnet.prefix_len(), 24);
            networks.push(one);
        }
    }

    #[test]
    fn boxes_get_every_address_but_those_of_the_gateway_and_of_nobody() {
        let network = planned(&new("db", "10.9.0.8/29"), &Facts::default(), &Others::default()).unwrap();
        let mut all: Vec<_> = network.candidates(3).collect();
        assert_eq!(all.first().unwrap().to_string(), "10.9.0.11");
        all.sort_unstable();
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.9.0.10", "10.9.0.11", "10.9.0.12", "10.9.0.13", "10.9.0.14"]
        );
        for bad in ["10.9.0.8", "10.9.0.9", "10.9.0.15", "10.9.0.16"] {
            assert!(network.check_address(bad.parse().unwrap()).is_err(), "{bad}");
        }
        let large = planned(&new("db", "10.0.0.0/8"), &Facts::default(), &Others::default()).unwrap();
        assert_eq!(large.candidates(u32::MAX).count(), MOST_PORTS + 1);
    }

    #[test]
    fn a_network_that_nobody_made_is_not_read() {
        let network = planned(&new("db", "10.9.0.0/24"), &Facts::default(), &Others::default()).unwrap();
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
        let earlier = text.replace(",\"routes\":[],\"no_masquerade\":[]", "");
        assert_ne!(earlier, text);
        assert_eq!(serde_json::from_str::<Network>(&earlier).unwrap(), network);
        for (from, to) in [
            ("10.9.0.0/24", "10.9.0.7/24"),
            ("10.9.0.0/24", "0.0.0.0/0"),
            ("10.9.0.1", "10.9.0.0"),
            ("\"db\"", "\"nat\""),
            ("\"mtu\":null", "\"mtu\":7"),
            ("\"no_masquerade\":[]", "\"no_masquerade\":[\"0.0.0.0/0\"]"),
            ("\"no_masquerade\":[]", "\"no_masquerade\":[\"10.9.0.0/25\"]"),
            ("\"routes\":[]", "\"routes\":[{\"destination\":\"0.0.0.0/0\",\"via\":\"192.0.2.2\"}]"),
        ] {
            assert_ne!(text.replace(from, to), text);
            assert!(serde_json::from_str::<Network>(&text.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn the_hardware_address_follows_from_the_address() {
        assert_eq!(mac_of(Ipv4Addr::new(10, 9, 0, 7)), [0x0a, 0x6e, 10, 9, 0, 7]);
    }
}
