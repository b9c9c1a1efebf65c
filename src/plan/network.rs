//! Named networks: what is kept of one, which addresses it gets, and a box's place in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::ipv6::{self, GlobalId};
use super::network6::{Member6, Network6};
use super::pool;
use super::record::Bridge;
use super::routed;
use super::topology::{MOST_LINKS, MOST_PORTS, Mac, Topology, eth};
use crate::error::{Error, Result};
use crate::spec::mtu::{LEAST_MTU6, MTU};
use crate::spec::name::{BoxId, BoxName};
use crate::spec::network::{Join, NetworkName, NewNetwork};
use crate::spec::routed::{OutsideRoute, is_outside};
use crate::spec::subnet::{New6, PREFIXES, is_host};

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
    /// Its IPv6; `None` for a network without, as earlier ones of netbox made them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Network6>,
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
    #[serde(default)]
    ipv6: Option<Network6>,
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
        let Written {
            id,
            name,
            subnet,
            gateway,
            ip_range,
            ipv6,
            internal,
            isolate,
            mtu,
            labels,
            created,
            ..
        } = written;
        let (routes, no_masquerade) = (written.routes, written.no_masquerade);
        let whole = subnet.trunc() == subnet && PREFIXES.contains(&subnet.prefix_len());
        let range = ip_range.is_none_or(|range| subnet.contains(&range));
        let least = if ipv6.is_some() { LEAST_MTU6 } else { *MTU.start() };
        let mtu_fits = mtu.is_none_or(|mtu| MTU.contains(&mtu) && mtu >= least);
        let outside = no_masquerade.iter().all(|net| is_outside(*net) && !subnet.contains(net));
        if !whole || !range || !mtu_fits || !outside || !is_host(subnet.into(), gateway.into()) {
            return Err("no such network was ever made");
        }
        Ok(Self {
            id,
            name,
            subnet,
            gateway,
            ip_range,
            ipv6,
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

/// What else is there that a network's addresses must keep clear of.
#[derive(Debug, Default)]
pub struct Others<'a> {
    /// The other networks.
    pub networks: &'a [Network],
    /// The pool of the boxes, if there is a gateway.
    pub pool: Option<Ipv4Net>,
    /// Their IPv6 pool, likewise.
    pub pool6: Option<Ipv6Net>,
}

/// What a network has that nobody gave it.
#[derive(Debug, Clone)]
pub struct Birth {
    /// Its id.
    pub id: BoxId,
    /// What becomes part of its IPv6 addresses.
    pub random: GlobalId,
    /// When; RFC 3339.
    pub created: String,
}

/// Plans a network.
///
/// # Errors
/// A name that is taken, a range that overlaps another's: naming that one. No free range.
pub fn plan(new: &NewNetwork, birth: Birth, facts: &Facts, others: &Others<'_>) -> Result<Network> {
    if others.networks.iter().any(|other| other.name == new.name) {
        return Err(Error::new(format!("cannot create network {}", new.name))
            .because("there is a network of that name")
            .hint(format!("netbox network rm {}, or choose another name", new.name)));
    }
    let none_is_free = |kind: &str| {
        Error::new(format!("cannot create network {}", new.name))
            .because(format!("every {kind} range that could serve is taken"))
            .hint("give one: --subnet CIDR")
    };
    let subnet = match new.subnet {
        Some(subnet) => check_free(new, subnet.into(), facts, others).map(|()| subnet)?,
        None => choose(facts, others).ok_or_else(|| none_is_free("private"))?,
    };
    let ipv6 = |six: New6| -> Result<Network6> {
        let subnet = match six.subnet {
            Some(subnet) => check_free(new, subnet.into(), facts, others).map(|()| subnet)?,
            None => choose6(birth.random, facts, others).ok_or_else(|| none_is_free("unique local"))?,
        };
        let first = || Ipv6Addr::from(u128::from(subnet.network()) + 1);
        Ok(Network6 { subnet, gateway: six.gateway.unwrap_or_else(first), ip_range: six.ip_range })
    };
    routed::check_new(new, facts, others)?;
    Ok(Network {
        id: birth.id,
        name: new.name.clone(),
        ipv6: new.ipv6.map(ipv6).transpose()?,
        subnet,
        gateway: new.gateway.unwrap_or_else(|| nth(subnet, 1)),
        ip_range: new.ip_range,
        internal: new.internal,
        isolate: new.isolate,
        mtu: new.mtu,
        labels: new.labels.clone(),
        created: birth.created,
        routes: new.routes.clone(),
        no_masquerade: new.no_masquerade.clone(),
    })
}

fn check_free(new: &NewNetwork, subnet: IpNet, facts: &Facts, others: &Others<'_>) -> Result<()> {
    overlap(subnet, &new.no_masquerade, facts, others).map_or(Ok(()), |cause| {
        Err(Error::new(format!("cannot create network {} with {subnet}", new.name))
            .because(cause)
            .hint("choose another --subnet; without one, netbox chooses"))
    })
}

/// What a range overlaps, in words.
fn overlap(subnet: IpNet, no_masquerade: &[Ipv4Net], facts: &Facts, others: &Others<'_>) -> Option<String> {
    let overlaps = |other: &IpNet| subnet.contains(&other.network()) || other.contains(&subnet.network());
    let its_range = |other: &Network| {
        let taken = other.subnets().find(overlaps)?;
        Some(format!("network {} has {taken}", other.name))
    };
    let pools = [others.pool.map(IpNet::V4), others.pool6.map(IpNet::V6)];
    let of_pools = || {
        let pool = pools.into_iter().flatten().find(overlaps)?;
        Some(format!("boxes without a network have their addresses from {pool}"))
    };
    let its_route = |other: &Network| {
        let route = other.routes.iter().find(|route| overlaps(&route.destination.into()))?;
        Some(format!("network {} has --route {route}", other.name))
    };
    let may_cover = |route: &IpNet| match subnet {
        IpNet::V4(four) => routed::may_cover(route, four, no_masquerade),
        IpNet::V6(_) => false,
    };
    let of_host = || pool::overlap_but(subnet, facts, may_cover).map(|cause| cause.to_string());
    let of_networks = others.networks.iter().find_map(its_range);
    of_networks.or_else(of_pools).or_else(|| others.networks.iter().find_map(its_route)).or_else(of_host)
}

fn choose(facts: &Facts, others: &Others<'_>) -> Option<Ipv4Net> {
    pool::networks().find(|subnet| overlap(IpNet::V4(*subnet), &[], facts, others).is_none())
}

fn choose6(random: GlobalId, facts: &Facts, others: &Others<'_>) -> Option<Ipv6Net> {
    ipv6::prefixes(random).find(|subnet| overlap(IpNet::V6(*subnet), &[], facts, others).is_none())
}

/// Whether a network can be used now: the host may have changed since it was made.
///
/// # Errors
/// Naming what of the host's, or of the pool, is in its range.
pub fn check_usable(network: &Network, facts: &Facts, topology: &Topology) -> Result<()> {
    let others = Others { networks: &[], pool: Some(topology.pool), pool6: topology.pool6() };
    let taken = |subnet: IpNet| Some((subnet, overlap(subnet, &network.no_masquerade, facts, &others)?));
    match network.subnets().find_map(taken) {
        None => Ok(()),
        Some((subnet, cause)) => {
            Err(Error::new(format!("cannot use network {} with {subnet}", network.name))
                .because(cause)
                .hint(format!("netbox network rm {0}, and create it with another --subnet", network.name)))
        }
    }
}

impl Network {
    /// Its ranges, one in each family that it has.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let six = self.ipv6.map(|six| IpNet::V6(six.subnet));
        [IpNet::V4(self.subnet)].into_iter().chain(six)
    }

    /// The addresses that a box could get, beginning somewhere in the range: so many that one of them is free, if one is.
    pub fn candidates(&self, start: u32) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (range, subnet, gateway) = (self.ip_range.unwrap_or(self.subnet), self.subnet, self.gateway);
        // Not more than 2^24, since networks are at most a /8.
        let count = 1u32 << (32 - range.prefix_len());
        let first = u32::from(range.network());
        let all = (0..count).map(move |step| Ipv4Addr::from(first + (start % count + step) % count));
        // The bridge's ports are all, the gateway and the ends of the range are none.
        let is_for_boxes =
            move |address: &Ipv4Addr| is_host(subnet.into(), (*address).into()) && *address != gateway;
        all.filter(is_for_boxes).take(MOST_PORTS + 1)
    }

    /// Refuses an address that no box can have here.
    ///
    /// # Errors
    /// Naming the range.
    pub fn check_address(&self, address: Ipv4Addr) -> Result<()> {
        if is_host(self.subnet.into(), address.into()) && address != self.gateway {
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
    /// What the network's other boxes find the box by, besides its name and its id.
    pub aliases: Vec<BoxName>,
    /// The index of its bridge in the gateway.
    pub bridge: u32,
    /// The range of its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's address in it.
    pub gateway: Ipv4Addr,
    /// The box's.
    pub address: Ipv4Addr,
    /// What it has of IPv6; `None` where the network has none, or the box.
    #[serde(default)]
    pub ipv6: Option<Member6>,
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
    /// The IPv6 address, where it has one.
    pub address6: Option<Ipv6Addr>,
    /// The hardware address.
    pub mac: Mac,
}

impl Member {
    /// A box's place in `network`, as it joined it, whose bridge has this index in a gateway with this MTU.
    #[must_use]
    pub fn new(network: &Network, seat: &Seat, join: &Join, bridge: u32, mtu: u32) -> Self {
        Self {
            network: network.id,
            name: network.name.clone(),
            link: seat.link,
            interface: join.interface_at(seat.link),
            aliases: join.aliases.clone(),
            bridge,
            subnet: network.subnet,
            gateway: network.gateway,
            address: seat.address,
            ipv6: network.ipv6.zip(seat.address6).map(|(six, address)| Member6::new(&six, address)),
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
        let Seat { network, link, address, address6, mac } = *seat;
        let (subnet, gateway) = (address.into(), address);
        Some(Self {
            network,
            // Ids are names that a network could have.
            name: NetworkName::parse(network.as_str()).ok()?,
            link,
            interface: eth(link),
            aliases: Vec::new(),
            bridge,
            subnet,
            gateway,
            address,
            ipv6: address6.map(Member6::alone),
            mac,
            mtu: 0,
            internal: false,
            isolated: false,
        })
    }

    /// What it holds.
    #[must_use]
    pub fn seat(&self) -> Seat {
        let Self { network, link, address, mac, .. } = *self;
        Seat { network, link, address, address6: self.address6(), mac }
    }

    /// The box's IPv6 address there.
    #[must_use]
    pub fn address6(&self) -> Option<Ipv6Addr> {
        self.ipv6.map(|six| six.address)
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
        let (id, created) = (BoxId::from_random([1; 5]), "now".to_owned());
        plan(new, Birth { id, random: [1, 2, 3, 4, 5], created }, facts, others)
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
        let (pool, pool6) = ("10.77.128.0/18".parse().ok(), "fd12::/64".parse().ok());
        let others = Others { networks: &networks, pool, pool6 };
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
    fn an_ipv6_range_that_is_taken_is_refused_with_the_name_of_who_has_it() {
        let mut facts = host();
        facts.routes.push("fd20::/48".parse().unwrap());
        let six = |name: &str, subnet: &str| {
            let ipv6 = Some(New6 { subnet: subnet.parse().ok(), ..New6::default() });
            NewNetwork { ipv6, ..new(name, "") }
        };
        let db = planned(&six("db", "fd09::/64"), &facts, &Others::default()).unwrap();
        assert_eq!(db.ipv6.unwrap().gateway.to_string(), "fd09::1");
        let networks = [db.clone()];
        let others = Others { networks: &networks, pool: None, pool6: "fd12::/64".parse().ok() };
        for (subnet, words) in [
            ("fd09::/80", "network db has fd09::/64"),
            ("fd12::/48", "from fd12::/64"),
            ("fd20:0:0:7::/64", "a route to fd20::/48"),
        ] {
            let error = planned(&six("web", subnet), &facts, &others).unwrap_err();
            assert!(error.to_string().contains(words) && error.exit_status() == 125, "{error}");
        }
        let topology = Topology {
            pool: "10.77.128.0/18".parse().unwrap(),
            ipv6: crate::plan::topology::Ipv6::Closed,
            number: 0,
            mtu: 1500,
        };
        assert_eq!(check_usable(&db, &facts, &topology), Ok(()));
        facts.routes.push("fd09::7/128".parse().unwrap());
        let error = check_usable(&db, &facts, &topology).unwrap_err().to_string();
        assert!(error.contains("with fd09::/64") && error.contains("fd09::7/128"), "{error}");
    }

    #[test]
    fn ranges_that_netbox_chooses_overlap_nothing_and_no_pool() {
        let facts = host();
        let mut networks = Vec::new();
        for number in 0..50 {
            let (pool, pool6) = (pool::choose(&facts).ok(), "fd01:203:405::/64".parse().ok());
            let others = Others { networks: &networks, pool, pool6 };
            let dual = NewNetwork { ipv6: Some(New6::default()), ..new(&format!("n{number}"), "") };
            let one = planned(&dual, &facts, &others).unwrap();
            assert_eq!(one.subnet.prefix_len(), 24);
            let six = one.ipv6.unwrap();
            assert_eq!((six.subnet.prefix_len(), six.subnet.contains(&six.gateway)), (64, true));
            assert!(six.subnet.addr().is_unique_local() && Some(six.subnet) != pool6);
            assert!(networks.iter().all(|other: &Network| other.ipv6.unwrap().subnet != six.subnet));
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
        assert!(!text.contains("ipv6"), "as an earlier netbox wrote it: {text}");
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
