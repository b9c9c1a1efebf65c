//! The pool: which range of addresses a gateway gets.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::facts::{Facts, HostAddress};
use super::topology::POOL_PREFIX;
use crate::error::{Error, Result};

/// Where pools are looked for, in this order: a /16 each, of which three quarters serve.
///
/// Odd places between those that people and programs count up from. Left out, because others take them
/// without asking:
/// 10.0/16 – 10.28/16 VPNs, clouds and home networks (10.0.2/24 slirp4netns and QEMU, 10.8/24 OpenVPN,
/// 10.1/16 MicroK8s) · 10.42/16, 10.43/16 k3s · 10.88/16 Podman, 10.89/16 – 10.255/16 netavark's further
/// networks, with 10.96/12 and 10.244/16 Kubernetes, 10.99/16 httpjail, 10.128/9 Google Cloud, 10.200/16
/// vopono and others · 100.64/10 Tailscale and carriers' NAT · 172.17/16 – 172.31/16 Docker (and the
/// default networks of AWS, 172.31/16) · 192.168/16 home networks, libvirt (192.168.122/24), Docker's
/// second range · 198.18/15 tunnels and their fake DNS answers.
/// The last, outside 10/8, is for hosts where a VPN routes all of that.
const PLACES: [(u8, u8); 14] = [
    (10, 77),
    (10, 79),
    (10, 83),
    (10, 71),
    (10, 73),
    (10, 67),
    (10, 61),
    (10, 59),
    (10, 53),
    (10, 47),
    (10, 37),
    (10, 31),
    (10, 29),
    (172, 16),
];

/// The quarters of a place, by the third byte. Not the first, where people begin to number.
const QUARTERS: [u8; 3] = [128, 192, 64];

/// A route with a shorter prefix than this is a default route in pieces (0.0.0.0/1 and 128.0.0.0/1, as
/// OpenVPN sets them; the powers of two that WireGuard's AllowedIPs are often cut into), not a network.
const SHORTEST: u8 = 8;

/// Chooses a pool that no address and no route of the host overlaps.
///
/// # Errors
/// When all candidates are taken.
pub fn choose(facts: &Facts) -> Result<Ipv4Net> {
    candidates().find(|pool| is_free(*pool, facts)).ok_or_else(|| {
        Error::new("cannot find a range of addresses for boxes")
            .because("this host has addresses in, or routes to, every private range that could serve")
            .hint("remove a route that covers more than it needs (`ip route show table all`), or narrow it")
    })
}

/// Whether neither the subnet of an address nor a route of the host overlaps `pool`.
#[must_use]
pub fn is_free(pool: Ipv4Net, facts: &Facts) -> bool {
    overlap(pool.into(), facts).is_none()
}

/// What overlaps a range of either family: the subnet of an address, or a route.
#[must_use]
pub fn overlap(range: IpNet, facts: &Facts) -> Option<Overlap<'_>> {
    overlap_but(range, facts, |_| false)
}

/// The same, but for routes that may.
pub fn overlap_but(range: IpNet, facts: &Facts, may: impl Fn(&IpNet) -> bool) -> Option<Overlap<'_>> {
    let overlaps = |net: &IpNet| net.contains(&range.network()) || range.contains(&net.network());
    let mut routes = facts.routes.iter().filter(|route| route.prefix_len() >= SHORTEST && !may(route));
    let address = facts.addresses.iter().find(|address| overlaps(&address.address));
    address.map(Overlap::Address).or_else(|| routes.find(|route| overlaps(route)).map(Overlap::Route))
}

/// What of the host's is in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap<'a> {
    /// An address, with its subnet.
    Address(&'a HostAddress),
    /// The destination of a route.
    Route(&'a IpNet),
}

impl fmt::Display for Overlap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => {
                write!(f, "the host has the address {} on {}", address.address, address.link)
            }
            Self::Route(route) => write!(f, "the host has a route to {route}"),
        }
    }
}

/// Where networks are looked for, in this order: a /24 each, from the places that pools come to last.
pub fn networks() -> impl Iterator<Item = Ipv4Net> {
    let (last, tens) = (PLACES[PLACES.len() - 1], &PLACES[..PLACES.len() - 1]);
    tens.iter().rev().copied().chain([last]).flat_map(|(first, second)| {
        // Not the first quarter, where people begin to number.
        (64..=255).map(move |third| Ipv4Net::new_assert(Ipv4Addr::new(first, second, third, 0), 24))
    })
}

fn candidates() -> impl Iterator<Item = Ipv4Net> {
    QUARTERS.into_iter().flat_map(|quarter| {
        PLACES.into_iter().map(move |(first, second)| {
            Ipv4Net::new_assert(Ipv4Addr::new(first, second, quarter, 0), POOL_PREFIX)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::topology::{RESERVED, SLOTS};

    fn host(addresses: &[&str], routes: &[&str]) -> Facts {
        let parse = |text: &&str| text.parse::<IpNet>().unwrap();
        let address = |address| HostAddress { link: "eth0".to_owned(), index: 2, address };
        Facts {
            addresses: addresses.iter().map(parse).map(address).collect(),
            routes: routes.iter().map(parse).collect(),
            ..Facts::default()
        }
    }

    fn chosen(facts: &Facts) -> String {
        choose(facts).unwrap().to_string()
    }

    #[test]
    fn an_ordinary_host_gets_the_first_candidate() {
        let facts = host(&["127.0.0.1/8", "192.168.1.7/24"], &["0.0.0.0/0", "192.168.1.0/24"]);
        assert_eq!(chosen(&facts), "10.77.128.0/18");
    }

    #[test]
    fn a_subnet_or_a_route_of_any_size_is_kept_clear_of() {
        for taken in ["10.77.130.4/32", "10.77.0.0/16", "10.76.0.0/15", "10.77.191.255/32", "10.77.128.0/18"]
        {
            assert_eq!(chosen(&host(&[taken], &[])), "10.79.128.0/18", "address {taken}");
            assert_eq!(chosen(&host(&[], &[taken])), "10.79.128.0/18", "route {taken}");
        }
        assert_eq!(chosen(&host(&["10.77.3.4/17"], &["10.77.192.0/24"])), "10.77.128.0/18");
    }

    #[test]
    fn a_vpn_that_routes_all_of_10_leaves_172_16() {
        assert_eq!(chosen(&host(&["10.1.2.3/32"], &["10.0.0.0/8"])), "172.16.128.0/18");
    }

    #[test]
    fn a_default_route_in_pieces_is_no_network() {
        let facts = host(&[], &["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "8.0.0.0/7"]);
        assert_eq!(chosen(&facts), "10.77.128.0/18");
    }

    #[test]
    fn a_host_without_a_free_range_is_told_what_to_do() {
        let error = choose(&host(&[], &["10.0.0.0/8", "172.16.0.0/12"])).unwrap_err();
        assert_eq!(error.exit_status(), 125);
        assert!(error.remedy().is_some());
    }

    #[test]
    fn candidates_are_pools_that_do_not_overlap_and_are_nobodys() {
        let all: Vec<_> = candidates().collect();
        assert!(all.len() >= 12);
        for (n, pool) in all.iter().enumerate() {
            assert_eq!(pool.network(), pool.addr());
            assert_eq!(pool.hosts().count(), usize::try_from(RESERVED + SLOTS).unwrap() - 1);
            assert!(all[..n].iter().all(|other| !other.contains(pool)), "{pool} twice");
        }
        for other in [
            "10.0.2.0/24",
            "10.8.0.0/24",
            "10.42.0.0/15",
            "10.88.0.0/16",
            "10.96.0.0/12",
            "10.99.0.0/16",
            "10.128.0.0/9",
            "10.200.0.0/16",
            "10.244.0.0/16",
            "100.64.0.0/10",
            "172.17.0.0/16",
            "172.18.0.0/15",
            "172.20.0.0/14",
            "172.24.0.0/13",
            "192.168.0.0/16",
            "198.18.0.0/15",
        ] {
            let other: Ipv4Net = other.parse().unwrap();
            assert!(all.iter().all(|pool| !other.contains(pool) && !pool.contains(&other)), "{other}");
        }
    }
}
