//! Networks that other machines reach without translation: routes to them, and whose addresses they see.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::network::NewNetwork;
use crate::error::{Error, Result};

/// A route that the host gets for a network's boxes: `--route CIDR=VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct OutsideRoute {
    /// Where to.
    pub destination: Ipv4Net,
    /// The next hop.
    pub via: Ipv4Addr,
}

/// A route as a file has it.
#[derive(Deserialize)]
struct Written {
    destination: Ipv4Net,
    via: Ipv4Addr,
}

impl TryFrom<Written> for OutsideRoute {
    type Error = &'static str;

    fn try_from(Written { destination, via }: Written) -> Result<Self, Self::Error> {
        let route = Self { destination, via };
        match is_outside(destination) && route.unfit_next_hop().is_none() {
            true => Ok(route),
            false => Err("no such route was ever made"),
        }
    }
}

impl OutsideRoute {
    /// Why nothing can be sent by way of its next hop.
    fn unfit_next_hop(&self) -> Option<&'static str> {
        if !can_be_routed(self.via) || self.via.is_broadcast() {
            return Some("it is no address of another machine");
        }
        self.destination.contains(&self.via).then_some("it is behind the route itself")
    }
}

impl fmt::Display for OutsideRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.destination, self.via)
    }
}

impl FromStr for OutsideRoute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |cause: &str| {
            Error::usage(format!("invalid route {text:?}"))
                .because(cause)
                .hint("one is given as --route 10.1.20.0/24=192.0.2.2")
        };
        let (destination, via) = text.split_once('=').ok_or_else(|| invalid("it has no \"=\""))?;
        let via = via.parse().map_err(|_| invalid("the next hop is not an IPv4 address"))?;
        let route = Self { destination: parse_outside("--route", destination)?, via };
        match route.unfit_next_hop() {
            None => Ok(route),
            Some(cause) => Err(Error::usage(format!("invalid next hop {via} for --route")).because(cause)),
        }
    }
}

/// Reads whom the boxes of a network send to, and hear from, with their own addresses: `--no-masquerade`.
///
/// # Errors
/// When it is no IPv4 network that packets can be routed to, or all of them.
pub fn parse_no_masquerade(text: &str) -> Result<Ipv4Net> {
    parse_outside("--no-masquerade", text)
}

fn parse_outside(option: &str, text: &str) -> Result<Ipv4Net> {
    let invalid =
        |cause: String| Error::usage(format!("invalid network {text:?} for {option}")).because(cause);
    let net: Ipv4Net = text.parse().map_err(|_| {
        invalid("it is not an IPv4 network".to_owned()).hint(format!("one is given as {option} 10.1.0.0/16"))
    })?;
    if net.trunc() != net {
        return Err(invalid(format!("the network of that size around it begins at {}", net.network()))
            .hint(format!("{option} {}", net.trunc())));
    }
    match is_outside(net) {
        true => Ok(net),
        false if net.prefix_len() == 0 => {
            Err(invalid("it is everywhere, where the host's default route leads".to_owned())
                .hint("name the ranges of the other machines' networks"))
        }
        false => Err(invalid("addresses of that range are never routed, or mean something else".to_owned())),
    }
}

/// Whether it can be the range of other machines' addresses.
#[must_use]
pub fn is_outside(net: Ipv4Net) -> bool {
    let ends = [net.network(), net.broadcast()];
    net.prefix_len() > 0 && net.trunc() == net && ends.into_iter().all(can_be_routed)
}

/// Of 0/8 and of 240/4 no packet is routed (RFC 1122 §3.2.1.3, RFC 1112 §4).
const fn can_be_routed(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    !address.is_loopback() && !address.is_link_local() && first != 0 && first < 224
}

/// Finds what of a network cannot be reached from other machines as it is asked for.
///
/// # Errors
/// The first pair of options that contradict each other (exit 2).
pub(super) fn contradictions(new: &NewNetwork) -> Result<()> {
    let NewNetwork { subnet, internal, no_masquerade, routes, .. } = new;
    let given = [(!routes.is_empty(), "--route"), (!no_masquerade.is_empty(), "--no-masquerade")];
    let Some((_, option)) = given.into_iter().find(|(given, _)| *given) else { return Ok(()) };
    if *internal {
        return Err(Error::usage(format!("--internal and {option} contradict each other"))
            .because("nothing leads out of an internal network"));
    }
    let Some(subnet) = subnet else {
        return Err(Error::usage(format!("{option} needs --subnet"))
            .because("other machines must know which addresses to send here"));
    };
    let contradict = |option: String, cause: &str| {
        Err(Error::usage(format!("{option} and --subnet {subnet} contradict each other")).because(cause))
    };
    for (place, route) in routes.iter().enumerate() {
        let option = format!("--route {route}");
        if subnet.contains(&route.via) {
            return contradict(option, "the next hop is in the network itself");
        }
        if subnet.contains(&route.destination) || route.destination.contains(subnet) {
            return contradict(option, "the one is within the other");
        }
        let twice = routes[..place].iter().find(|other| other.destination == route.destination);
        if let Some(other) = twice.filter(|other| other.via != route.via) {
            return Err(Error::usage(format!("--route {other} and --route {route} contradict each other"))
                .because("a destination has one next hop"));
        }
    }
    match no_masquerade.iter().find(|net| subnet.contains(*net)) {
        Some(net) => contradict(
            format!("--no-masquerade {net}"),
            "boxes of one network reach each other without the gateway",
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::network::NetworkName;

    #[test]
    fn routes_to_other_machines() {
        let route: OutsideRoute = "10.1.20.0/24=192.0.2.2".parse().unwrap();
        assert_eq!((route.to_string().as_str(), route.via.octets()[3]), ("10.1.20.0/24=192.0.2.2", 2));
        for (text, words) in [
            ("10.1.20.0/24", "has no \"=\""),
            ("10.1.20.0/24=", "next hop is not an IPv4 address"),
            ("10.1.20.0/24=fd00::1", "next hop is not an IPv4 address"),
            ("10.1.20.7/24=192.0.2.2", "begins at 10.1.20.0"),
            ("0.0.0.0/0=192.0.2.2", "it is everywhere"),
            ("fd00::/64=192.0.2.2", "not an IPv4 network"),
            ("127.0.0.0/8=192.0.2.2", "never routed"),
            ("169.254.0.0/16=192.0.2.2", "never routed"),
            ("128.0.0.0/1=192.0.2.2", "never routed"),
            ("10.1.20.0/24=127.0.0.1", "no address of another machine"),
            ("10.1.20.0/24=0.0.0.0", "no address of another machine"),
            ("10.1.20.0/24=255.255.255.255", "no address of another machine"),
            ("10.1.20.0/24=10.1.20.1", "behind the route itself"),
        ] {
            let error = text.parse::<OutsideRoute>().unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(parse_no_masquerade("10.1.0.0/16").unwrap().to_string(), "10.1.0.0/16");
        for bad in ["10.1.0.1/16", "0.0.0.0/0", "224.0.0.0/4", "x"] {
            assert_eq!(parse_no_masquerade(bad).unwrap_err().exit_status(), 2, "{bad}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_naming_both() {
        let new = |subnet: &str, internal, routes: &[&str], no_masquerade: &[&str]| NewNetwork {
            subnet: subnet.parse().ok(),
            internal,
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            no_masquerade: no_masquerade.iter().map(|text| text.parse().unwrap()).collect(),
            ..NewNetwork::called(NetworkName::parse("front").unwrap())
        };
        let (own, route, outside) = ("10.1.10.0/24", "10.1.20.0/24=192.0.2.2", "10.1.0.0/16");
        for (new, words) in [
            (new(own, true, &[route], &[]), ["--internal", "--route"]),
            (new(own, true, &[], &[outside]), ["--internal", "--no-masquerade"]),
            (new("", false, &[route], &[]), ["--route", "--subnet"]),
            (new("", false, &[], &[outside]), ["--no-masquerade", "--subnet"]),
            (new(own, false, &["10.1.20.0/24=10.1.10.9"], &[]), ["10.1.20.0/24=10.1.10.9", "in the network"]),
            (new(own, false, &["10.1.0.0/16=192.0.2.2"], &[]), ["10.1.0.0/16=192.0.2.2", "within"]),
            (new(own, false, &["10.1.10.128/25=192.0.2.2"], &[]), ["10.1.10.128/25", "within"]),
            (new(own, false, &[route, "10.1.20.0/24=192.0.2.3"], &[]), [route, "10.1.20.0/24=192.0.2.3"]),
            (new(own, false, &[], &[own]), ["--no-masquerade 10.1.10.0/24", "--subnet"]),
        ] {
            let error = contradictions(&new).unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
        assert_eq!(contradictions(&new(own, false, &[route, route], &[outside])), Ok(()));
    }
}
