//! Networks that other machines reach without translation: what the host needs for one, and what speaks against it.
//!
//! The way to such a network is in the main table, where a routing daemon of the host's finds it and tells other machines.
//! Who may go it is the rules' matter, on the host and, where those are gone, in the gateway.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::network::{Network, Others};
use super::pool;
use super::routing::{Kind, Route, Rule};
use super::ruleset::{self, Element};
use super::topology::Topology;
use super::wiring::Wire;
use crate::error::{Error, Result};
use crate::spec::name::BoxId;
use crate::spec::network::NewNetwork;
use crate::spec::routed::OutsideRoute;

/// The kernel's main routing table (RT_TABLE_MAIN).
const MAIN: u32 = 254;

/// What the host has because of one network, as the gateway's record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The network's id.
    pub network: BoxId,
    /// The range of its addresses.
    pub subnet: Ipv4Net,
    /// Whom its boxes send to, and hear from, with these: ranges that do not overlap. None, and its boxes have the host's
    /// address everywhere.
    pub outside: Vec<Ipv4Net>,
    /// The host's routes to other machines.
    pub routes: Vec<OutsideRoute>,
}

impl Routed {
    /// `None`: the host has nothing because of that network.
    #[must_use]
    pub fn of(network: &Network) -> Option<Self> {
        if network.routes.is_empty() && network.no_masquerade.is_empty() {
            return None;
        }
        Some(Self {
            network: network.id,
            subnet: network.subnet,
            // The kernel refuses elements that overlap.
            outside: Ipv4Net::aggregate(&network.no_masquerade),
            routes: network.routes.clone(),
        })
    }

    /// The elements of the sets of both tables, on the host and in the gateway.
    #[must_use]
    pub fn elements(&self) -> Vec<Element> {
        let own = (!self.outside.is_empty()).then(|| ruleset::routed_subnet(self.subnet));
        let others = self.outside.iter().map(|other| ruleset::reached_by(self.subnet, *other));
        own.into_iter().chain(others).collect()
    }

    /// The routing rules that the host needs: without them nobody would be sent there by an interface that netbox switched
    /// (promise I4).
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let to_subnet = || Rule {
            priority: 91,
            destination: IpNet::V4(self.subnet),
            iif: None,
            marked: false,
            table: MAIN,
        };
        (!self.outside.is_empty()).then(to_subnet).into_iter().collect()
    }

    /// The host's routes to the network. The second stands where the first has gone with its link, so that nothing follows
    /// the default route.
    #[must_use]
    pub fn routes_inward(&self, topology: &Topology) -> Vec<Route> {
        if self.outside.is_empty() {
            return Vec::new();
        }
        let unreachable = Route {
            kind: Kind::Unreachable,
            destination: IpNet::V4(self.subnet),
            via: None,
            dev: None,
            table: None,
            metric: Some(u32::MAX),
        };
        let way_in = Route {
            kind: Kind::Unicast,
            via: Some(topology.gateway_address().into()),
            dev: Some(topology.host_link()),
            metric: None,
            ..unreachable.clone()
        };
        vec![unreachable, way_in]
    }

    /// The host's routes to other machines.
    #[must_use]
    pub fn routes_outward(&self) -> Vec<Route> {
        let route = |OutsideRoute { destination, via }: OutsideRoute| Route {
            kind: Kind::Unicast,
            destination: destination.into(),
            via: Some(via.into()),
            dev: None,
            table: None,
            metric: None,
        };
        self.routes.iter().copied().map(route).collect()
    }

    /// All of that in the order in which it is made, but for routes that `others` have made.
    #[must_use]
    pub fn wires(&self, topology: &Topology, others: &[Self]) -> Vec<Wire> {
        let made: Vec<_> = others.iter().flat_map(Self::routes_outward).collect();
        let routes = self.routes_inward(topology).into_iter().chain(self.routes_outward());
        let routes = routes.filter(|route| !made.contains(route));
        let rules = self.rules().into_iter().map(Wire::Rule);
        rules.chain(routes.map(|route| Wire::Route { route, replace: false })).collect()
    }
}

/// Finds what another network, or the host, has against the routes of a network that is to be made.
///
/// # Errors
/// Naming the other.
pub fn check_new(new: &NewNetwork, facts: &Facts, others: &Others<'_>) -> Result<()> {
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    for route in &new.routes {
        let refuse = |cause: String| {
            Err(Error::new(format!("cannot create network {} with --route {route}", new.name)).because(cause))
        };
        let OutsideRoute { destination, via } = route;
        if let Some(own) = facts.addresses.iter().find(|own| own.address.addr() == *via) {
            return refuse(format!("the next hop is the host's own address on {}", own.link));
        }
        for other in others.networks {
            if overlap(&other.subnet, destination) {
                return refuse(format!("network {} has {}", other.name, other.subnet));
            }
            let same = other.routes.iter().find(|own| own.destination == *destination && own.via != *via);
            if let Some(same) = same {
                return refuse(format!("network {} has --route {same}", other.name));
            }
        }
        if let Some(pool) = others.pool.filter(|pool| overlap(pool, destination)) {
            return refuse(format!("boxes have their addresses from {pool}"));
        }
        // Another network's, which this one shares.
        if others.networks.iter().any(|other| other.routes.contains(route)) {
            continue;
        }
        if let Some(cause) = pool::overlap(IpNet::V4(*destination), facts) {
            return refuse(cause.to_string());
        }
    }
    Ok(())
}

/// The routes of the host that a network's range may be in: other machines are sent to this one, or told of several networks at
/// once, by routes to more than the network has. Within what it is not translated for, they are no other network's.
#[must_use]
pub fn may_cover(route: &IpNet, subnet: Ipv4Net, no_masquerade: &[Ipv4Net]) -> bool {
    match route {
        IpNet::V4(route) => {
            route.contains(&subnet) && *route != subnet && no_masquerade.iter().any(|net| net.contains(route))
        }
        IpNet::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::HostAddress;
    use crate::plan::network::{Birth, plan};
    use crate::plan::topology::Ipv6;
    use crate::spec::network::NetworkName;

    fn new(name: &str, subnet: &str, routes: &[&str], no_masquerade: &[&str]) -> NewNetwork {
        NewNetwork {
            subnet: subnet.parse().ok(),
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            no_masquerade: no_masquerade.iter().map(|text| text.parse().unwrap()).collect(),
            ..NewNetwork::called(NetworkName::parse(name).unwrap())
        }
    }

    fn planned(new: &NewNetwork, facts: &Facts, others: &Others<'_>) -> Result<Network> {
        let (id, created) = (BoxId::from_random([1; 5]), "now".to_owned());
        plan(new, Birth { id, random: [1; 5], created }, facts, others)
    }

    fn host() -> Facts {
        let address = "192.0.2.1/24".parse().unwrap();
        Facts {
            addresses: vec![HostAddress { link: "eth0".to_owned(), index: 2, address }],
            routes: ["172.20.0.0/16", "10.1.0.0/16"].map(|route| route.parse().unwrap()).to_vec(),
            ..Facts::default()
        }
    }

    #[test]
    fn what_others_have_against_a_route_is_named() {
        let none = Facts::default();
        let front = new("front", "10.2.10.0/24", &["10.2.20.0/24=192.0.2.2"], &["10.2.0.0/16"]);
        let networks = [planned(&front, &none, &Others::default()).unwrap()];
        let others = Others { networks: &networks, pool: "10.77.128.0/18".parse().ok(), pool6: None };
        for (subnet, routes, words) in [
            ("10.3.0.0/24", &["10.2.10.0/25=192.0.2.2"][..], "network front has 10.2.10.0/24"),
            ("10.3.0.0/24", &["10.2.20.0/24=192.0.2.3"], "front has --route 10.2.20.0/24=192.0.2.2"),
            ("10.2.20.0/25", &[], "network front has --route 10.2.20.0/24=192.0.2.2"),
            ("10.3.0.0/24", &["10.77.0.0/16=192.0.2.2"], "from 10.77.128.0/18"),
            ("10.3.0.0/24", &["192.0.2.0/25=198.51.100.1"], "the host has the address 192.0.2.1/24 on eth0"),
            ("10.3.0.0/24", &["172.20.7.0/24=192.0.2.2"], "the host has a route to 172.20.0.0/16"),
            ("10.3.0.0/24", &["10.4.0.0/24=192.0.2.1"], "the host's own address on eth0"),
        ] {
            let error = planned(&new("back", subnet, routes, &[]), &host(), &others).unwrap_err();
            assert_eq!(error.exit_status(), 125);
            assert!(error.to_string().contains(words), "{error}");
        }
        // The same route serves two networks, and is there already while the first is used.
        let mut used = host();
        used.routes.push("10.2.20.0/24".parse().unwrap());
        let shared = new("back", "10.3.0.0/24", &["10.2.20.0/24=192.0.2.2"], &[]);
        assert!(planned(&shared, &used, &others).is_ok());
    }

    #[test]
    fn a_route_to_several_machines_networks_may_cover_ones_own() {
        let within = new("front", "10.1.10.0/24", &[], &["10.1.0.0/16"]);
        assert!(planned(&within, &host(), &Others::default()).is_ok());
        for outside in [&["10.1.128.0/17"][..], &[]] {
            let error = planned(&new("front", "10.1.10.0/24", &[], outside), &host(), &Others::default());
            assert!(error.unwrap_err().to_string().contains("a route to 10.1.0.0/16"));
        }
        let outside = ["10.0.0.0/8".parse().unwrap()];
        let subnet = "10.1.10.0/24".parse().unwrap();
        for (route, may) in [
            ("10.1.0.0/16", true),
            ("10.0.0.0/8", true),
            ("10.1.10.0/24", false),
            ("10.1.10.0/25", false),
            ("8.0.0.0/7", false),
        ] {
            assert_eq!(may_cover(&route.parse().unwrap(), subnet, &outside), may, "{route}");
        }
    }

    #[test]
    fn what_the_host_has_because_of_a_network() {
        let topology =
            Topology { pool: "10.77.128.0/18".parse().unwrap(), ipv6: Ipv6::Closed, number: 7, mtu: 1500 };
        let nets = ["10.1.0.0/16", "10.1.20.0/24", "10.9.0.0/24"];
        let front = new("front", "10.1.10.0/24", &["10.1.20.0/24=192.0.2.2"], &nets);
        let front = Routed::of(&planned(&front, &Facts::default(), &Others::default()).unwrap()).unwrap();
        let words = |wires: Vec<Wire>| -> Vec<String> { wires.iter().map(ToString::to_string).collect() };
        let all = [
            "rule add priority 91 from all to 10.1.10.0/24 lookup 254 protocol 110",
            "route add unreachable 10.1.10.0/24 metric 4294967295 proto 110",
            "route add 10.1.10.0/24 via 10.77.128.1 dev nb7 onlink proto 110",
            "route add 10.1.20.0/24 via 192.0.2.2 proto 110",
        ];
        assert_eq!(words(front.wires(&topology, &[])), all);
        assert_eq!(words(front.wires(&topology, std::slice::from_ref(&front))), all[..3]);
        let elements: Vec<_> = front.elements().iter().map(ToString::to_string).collect();
        // Those that overlap are one.
        assert_eq!(elements, ["10.1.10.0/24", "10.1.10.0/24 . 10.1.0.0/16", "10.1.10.0/24 . 10.9.0.0/24"]);
        let routes_only = new("front", "10.1.10.0/24", &["10.1.20.0/24=192.0.2.2"], &[]);
        let planned = |new| planned(new, &Facts::default(), &Others::default()).unwrap();
        let routes_only = Routed::of(&planned(&routes_only)).unwrap();
        assert_eq!(words(routes_only.wires(&topology, &[])), all[3..]);
        assert!(routes_only.elements().is_empty());
        assert_eq!(Routed::of(&planned(&new("front", "10.1.10.0/24", &[], &[]))), None);
    }
}
