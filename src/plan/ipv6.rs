//! Whether boxes get IPv6, and under which prefix.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::facts::Facts;
use super::pool;
use super::topology::{LEAST_MTU6, POOL6_PREFIX, Topology};

/// The random part of a unique local prefix: 40 bits (RFC 4193 §3.2.2).
pub type GlobalId = [u8; 5];

/// What boxes get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Addresses of this prefix, translated on the host.
    Pool {
        /// A /64 of unique local addresses (RFC 4193).
        prefix: Ipv6Net,
        /// The interfaces on which `force_forwarding` has to be switched on: by which what answers a box, or asks
        /// one, comes in. The interface that a packet comes by decides (net/ipv6/ip6_output.c, `ip6_forward`).
        switched: Vec<String>,
    },
    /// Nothing, for this reason.
    Closed(String),
}

/// Decides for a gateway whose links have this MTU.
#[must_use]
pub fn decide(facts: &Facts, mtu: u32, random: GlobalId) -> Decision {
    let Some(ipv6) = &facts.ipv6 else { return Decision::Closed("the kernel has no IPv6".to_owned()) };
    if ipv6.uplink.is_none() {
        return Decision::Closed("the host has no IPv6 default route".to_owned());
    }
    if !facts.addresses.iter().any(|address| is_global(address.address.addr())) {
        return Decision::Closed("the host has no IPv6 address but link-local ones".to_owned());
    }
    if mtu < LEAST_MTU6 {
        return Decision::Closed(format!("the uplink's MTU, {mtu}, is less than IPv6 needs, {LEAST_MTU6}"));
    }
    let prefix = free_prefix(facts, random);
    if ipv6.forwards {
        return Decision::Pool { prefix, switched: Vec::new() };
    }
    let switchable = |name: &str| ipv6.force_forwarding.get(name);
    if facts.links.iter().all(|link| switchable(&link.name).is_none()) {
        return Decision::Closed(
            "the host does not forward IPv6 (net.ipv6.conf.all.forwarding is 0), and switching it on for single \
             interfaces takes Linux 6.17"
                .to_owned(),
        );
    }
    Decision::Pool { prefix, switched: to_switch(facts) }
}

/// The interfaces on which `force_forwarding` has to be switched on; none on a host that forwards.
#[must_use]
pub fn to_switch(facts: &Facts) -> Vec<String> {
    let Some(ipv6) = facts.ipv6.as_ref().filter(|ipv6| !ipv6.forwards) else { return Vec::new() };
    let has_address = |name: &str| {
        facts.addresses.iter().any(|address| address.link == name && is_global(address.address.addr()))
    };
    facts
        .links
        .iter()
        .filter(|link| !link.loopback && ipv6.force_forwarding.get(&link.name) == Some(&false))
        .filter(|link| has_address(&link.name) || ipv6.uplink.as_ref().is_some_and(|up| up.name == link.name))
        .map(|link| link.name.clone())
        .collect()
}

/// The IPv6 address of the box in `slot` whose link has this MTU.
#[must_use]
pub fn of_box(topology: &Topology, slot: u32, mtu: u32) -> Option<Ipv6Addr> {
    topology.box_address6(slot).filter(|_| topology.link_has_ipv6(mtu))
}

/// Whether an address is an IPv6 one that other machines answer to: unique local ones too.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local() && !six.is_multicast(),
    }
}

/// The prefix with this random part, or the next one that neither an address nor a route of the host overlaps.
fn free_prefix(facts: &Facts, random: GlobalId) -> Ipv6Net {
    let is_free = |prefix: &Ipv6Net| pool::overlap(IpNet::V6(*prefix), facts).is_none();
    // A host that routes all of fd00::/8 elsewhere leaves no better choice than the random one.
    prefixes(random).find(is_free).unwrap_or_else(|| prefix(number(random)))
}

/// Unique local prefixes to be tried, from the one with this random part on (RFC 4193).
pub fn prefixes(random: GlobalId) -> impl Iterator<Item = Ipv6Net> {
    (0..=TRIES).map(move |step| prefix(number(random).wrapping_add(step)))
}

fn number(random: GlobalId) -> u64 {
    let [a, b, c, d, e] = random;
    u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
}

/// How many prefixes are tried: more than a host can have taken without taking all.
const TRIES: u64 = 256;

fn prefix(id: u64) -> Ipv6Net {
    let [_, _, _, a, b, c, d, e] = id.to_be_bytes();
    let bytes = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Ipv6Net::new_assert(Ipv6Addr::from(bytes), POOL6_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::{HostAddress, Ipv6Facts, Link, Uplink};

    const RANDOM: GlobalId = [1, 2, 3, 4, 5];

    fn host(addresses: &[&str], force: Option<bool>, forwards: bool) -> Facts {
        let link = |index, name: &str| Link {
            index,
            name: name.to_owned(),
            up: true,
            loopback: name == "lo",
            mtu: 1500,
        };
        let address =
            |text: &&str| HostAddress { link: "eth0".to_owned(), index: 2, address: text.parse().unwrap() };
        Facts {
            addresses: addresses.iter().map(address).collect(),
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "idle0")],
            ipv6: Some(Ipv6Facts {
                uplink: Some(Uplink { name: "eth0".to_owned(), index: 2, mtu: 1500, address: None }),
                forwards,
                force_forwarding: ["lo", "eth0", "idle0"]
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), force?)))
                    .collect(),
            }),
            ..Facts::default()
        }
    }

    fn closed(facts: &Facts, mtu: u32) -> String {
        match decide(facts, mtu, RANDOM) {
            Decision::Closed(reason) => reason,
            pool @ Decision::Pool { .. } => panic!("{pool:?}"),
        }
    }

    #[test]
    fn a_host_with_ipv6_gives_it_to_boxes_by_the_interfaces_that_have_it() {
        let facts = host(&["2001:db8::2/64", "fe80::1/64"], Some(false), false);
        let expected = Decision::Pool {
            prefix: "fd01:203:405::/64".parse().unwrap(),
            switched: vec!["eth0".to_owned()],
        };
        assert_eq!(decide(&facts, 1500, RANDOM), expected);
    }

    #[test]
    fn what_forwards_already_is_left_alone() {
        for facts in [
            host(&["2001:db8::2/64"], Some(false), true),
            host(&["2001:db8::2/64"], None, true),
            host(&["2001:db8::2/64"], Some(true), false),
        ] {
            let Decision::Pool { switched, .. } = decide(&facts, 1500, RANDOM) else { panic!("closed") };
            assert_eq!(switched, Vec::<String>::new());
        }
    }

    #[test]
    fn a_kernel_without_the_switch_gives_none_unless_the_host_forwards() {
        let reason = closed(&host(&["2001:db8::2/64"], None, false), 1500);
        assert!(reason.contains("Linux 6.17"), "{reason}");
    }

    #[test]
    fn a_host_without_ipv6_gives_none() {
        assert_eq!(closed(&Facts::default(), 1500), "the kernel has no IPv6");
        let mut facts = host(&["fe80::1/64", "192.0.2.1/24"], Some(false), false);
        assert!(closed(&facts, 1500).contains("link-local"));
        facts.ipv6.as_mut().unwrap().uplink = None;
        assert!(closed(&facts, 1500).contains("default route"));
        assert!(closed(&host(&["fd00::2/64"], Some(false), false), 1279).contains("1280"));
    }

    #[test]
    fn a_prefix_that_the_host_knows_is_not_taken() {
        for taken in ["fd01:203:405::/48", "fd01:203:405::7/128"] {
            let mut facts = host(&["2001:db8::2/64"], Some(false), false);
            facts.routes.push(taken.parse().unwrap());
            let Decision::Pool { prefix, .. } = decide(&facts, 1500, RANDOM) else { panic!("closed") };
            assert_eq!(prefix.to_string(), "fd01:203:406::/64", "{taken}");
        }
        let mut facts = host(&["2001:db8::2/64"], Some(false), false);
        facts.routes.push("fc00::/7".parse().unwrap());
        let Decision::Pool { prefix, .. } = decide(&facts, 1500, RANDOM) else { panic!("closed") };
        assert_eq!(prefix.to_string(), "fd01:203:405::/64");
    }
}
