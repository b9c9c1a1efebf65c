//! The ranges of addresses of a network that is to be made: `--subnet`, `--gateway` and `--ip-range`, once for each family.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::mtu::LEAST_MTU6;
use super::network::NewNetwork;
use crate::error::{Error, Result};

/// The lengths of prefix that a network can have, in bits.
pub const PREFIXES: RangeInclusive<u8> = 8..=29;

/// The same for IPv6.
pub const PREFIXES6: RangeInclusive<u8> = 8..=125;

/// The IPv6 of a network that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct New6 {
    /// The range of its addresses; `None` for a random one.
    pub subnet: Option<Ipv6Net>,
    /// The gateway's address in it; `None` for the first.
    pub gateway: Option<Ipv6Addr>,
    /// Where boxes get their addresses from; `None` for all of the range.
    pub ip_range: Option<Ipv6Net>,
}

impl New6 {
    /// What was given of IPv6, where it was asked for.
    ///
    /// # Errors
    /// When something was given though it was not.
    pub fn of(self, asked_for: bool) -> Result<Option<Self>> {
        if asked_for {
            return Ok(Some(self));
        }
        let given = [
            self.subnet.map(|subnet| format!("--subnet {subnet}")),
            self.gateway.map(|gateway| format!("--gateway {gateway}")),
            self.ip_range.map(|range| format!("--ip-range {range}")),
        ];
        match given.into_iter().flatten().next() {
            None => Ok(None),
            Some(option) => Err(Error::usage(format!("{option} needs --ipv6"))
                .because("a network has IPv6 only where that is asked for")),
        }
    }
}

/// Reads a range of a network's addresses: `--subnet`.
///
/// # Errors
/// When it is no network of a size that one can have, or means something else.
pub fn parse_subnet(text: &str) -> Result<IpNet> {
    let subnet = parse_range("--subnet", text)?;
    let invalid =
        |cause: String| Error::usage(format!("invalid network {text:?} for --subnet")).because(cause);
    let (prefixes, is_ordinary, serves) = match subnet {
        IpNet::V4(four) => {
            let first = four.network();
            // Of 0/8 and of 240/4 no packet is routed (RFC 1122 §3.2.1.3, RFC 1112 §4).
            let special = first.is_loopback()
                || first.is_link_local()
                || first.octets()[0] == 0
                || first.octets()[0] >= 224;
            (PREFIXES, !special, "of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 that nobody here uses")
        }
        IpNet::V6(six) => {
            // Global unicast addresses are those that are assigned so far (RFC 4291, 2.4; IANA).
            let global = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
            let ordinary = six.network().is_unique_local() || global.contains(&six.network());
            (PREFIXES6, ordinary, "of fd00::/8 with 40 random bits (RFC 4193), as netbox chooses one")
        }
    };
    if !prefixes.contains(&subnet.prefix_len()) {
        let (largest, smallest) = prefixes.into_inner();
        return Err(invalid(format!("it is a /{}", subnet.prefix_len()))
            .hint(format!("a network is a /{largest} to a /{smallest}")));
    }
    if !is_ordinary {
        return Err(invalid("addresses of that range are never routed, or mean something else".to_owned())
            .hint(format!("a range {serves} serves")));
    }
    Ok(subnet)
}

/// Reads where in a range a network's boxes get their addresses: `--ip-range`.
///
/// # Errors
/// When it is no network.
pub fn parse_ip_range(text: &str) -> Result<IpNet> {
    parse_range("--ip-range", text)
}

fn parse_range(option: &str, text: &str) -> Result<IpNet> {
    let invalid =
        |cause: String| Error::usage(format!("invalid network {text:?} for {option}")).because(cause);
    let range: IpNet = text.parse().map_err(|_| {
        invalid("it is neither an IPv4 network nor an IPv6 one".to_owned())
            .hint(format!("one is given as {option} 10.10.7.0/24 or {option} fd3c:9d1e:55a0::/64"))
    })?;
    if range.trunc() != range {
        return Err(invalid(format!("the network of that size around it begins at {}", range.network()))
            .hint(format!("{option} {}", range.trunc())));
    }
    Ok(range)
}

/// Reads what the gateway is in a network: `--gateway`.
///
/// # Errors
/// When it is no address.
pub fn parse_gateway(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| {
        Error::usage(format!("invalid address {text:?} for --gateway")).because("it is not an IP address")
    })
}

/// Networks by their families.
///
/// # Errors
/// When there are two of one.
pub fn networks(option: &str, given: &[IpNet]) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let (mut four, mut six) = (None, None);
    for one in given {
        let before = match one {
            IpNet::V4(one) => four.replace(*one).map(IpNet::V4),
            IpNet::V6(one) => six.replace(*one).map(IpNet::V6),
        };
        before.map_or(Ok(()), |before| Err(twice(option, before, one)))?;
    }
    Ok((four, six))
}

/// Addresses by their families.
///
/// # Errors
/// When there are two of one.
pub fn addresses(option: &str, given: &[IpAddr]) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let (mut four, mut six) = (None, None);
    for one in given {
        let before = match one {
            IpAddr::V4(one) => four.replace(*one).map(IpAddr::V4),
            IpAddr::V6(one) => six.replace(*one).map(IpAddr::V6),
        };
        before.map_or(Ok(()), |before| Err(twice(option, before, one)))?;
    }
    Ok((four, six))
}

fn twice(option: &str, one: impl Display, other: impl Display) -> Error {
    Error::usage(format!("{option} {one} and {option} {other} contradict each other"))
        .because("a network has one range of addresses in each family")
}

/// Finds what of a network's addresses cannot both be meant.
///
/// # Errors
/// The first such pair (exit 2).
pub(super) fn contradictions(new: &NewNetwork) -> Result<()> {
    in_one_family(
        new.subnet.map(IpNet::V4),
        new.gateway.map(IpAddr::V4),
        new.ip_range.map(IpNet::V4),
        "--subnet",
    )?;
    let Some(six) = new.ipv6 else { return Ok(()) };
    if let Some(mtu) = new.mtu.filter(|mtu| *mtu < LEAST_MTU6) {
        return Err(Error::usage(format!("--ipv6 and --mtu {mtu} contradict each other"))
            .because(format!("IPv6 needs links of {LEAST_MTU6} bytes or more")));
    }
    in_one_family(
        six.subnet.map(IpNet::V6),
        six.gateway.map(IpAddr::V6),
        six.ip_range.map(IpNet::V6),
        "--subnet of IPv6",
    )
}

fn in_one_family(
    subnet: Option<IpNet>,
    gateway: Option<IpAddr>,
    ip_range: Option<IpNet>,
    needed: &str,
) -> Result<()> {
    let Some(subnet) = subnet else {
        let first = [(gateway.is_some(), "--gateway"), (ip_range.is_some(), "--ip-range")];
        return match first.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(Error::usage(format!("{option} needs {needed}"))
                .because("netbox would choose another range of addresses")),
            None => Ok(()),
        };
    };
    if let Some(gateway) = gateway
        && !is_host(subnet, gateway)
    {
        return Err(Error::usage(format!("--gateway {gateway} and --subnet {subnet} contradict each other"))
            .because("it is no address that can be used in that network"));
    }
    if let Some(range) = ip_range
        && !(subnet.contains(&range.network()) && range.prefix_len() >= subnet.prefix_len())
    {
        return Err(Error::usage(format!("--ip-range {range} and --subnet {subnet} contradict each other"))
            .because("the one is not within the other"));
    }
    Ok(())
}

/// Whether it is an address that a host can have in that range. The first is nobody's (RFC 4291, 2.6.1: that of any router), nor
/// is the last of IPv4.
#[must_use]
pub fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    let is_broadcast = subnet.addr().is_ipv4() && address == subnet.broadcast();
    subnet.contains(&address) && address != subnet.network() && !is_broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::network::NetworkName;

    fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn ranges_of_networks() {
        for text in [
            "10.10.0.0/16",
            "192.168.9.0/24",
            "172.30.0.8/29",
            "fd3c:9d1e:55a0::/64",
            "2001:db8:7::/48",
            "fd00::ff00/120",
        ] {
            assert_eq!(parse_subnet(text).unwrap().to_string(), text);
        }
        for (text, words) in [
            ("10.10.0.1/16", "begins at 10.10.0.0"),
            ("10.10.0.0/30", "it is a /30"),
            ("8.0.0.0/7", "it is a /7"),
            ("127.0.0.0/24", "mean something else"),
            ("224.0.0.0/24", "mean something else"),
            ("fd00::1/64", "begins at fd00::"),
            ("fd00::/126", "it is a /126"),
            ("fe80::/64", "mean something else"),
            ("ff02::/64", "mean something else"),
            ("::/64", "mean something else"),
            ("fd00::", "neither an IPv4 network nor"),
        ] {
            refused(parse_subnet(text), words);
        }
    }

    #[test]
    fn each_family_has_one() {
        let nets = |given: &[&str]| {
            let given: Vec<IpNet> = given.iter().map(|text| text.parse().unwrap()).collect();
            networks("--subnet", &given)
        };
        let both = ("10.9.0.0/24".parse().ok(), "fd09::/64".parse().ok());
        assert_eq!(nets(&["fd09::/64", "10.9.0.0/24"]), Ok(both));
        refused(nets(&["10.9.0.0/24", "10.8.0.0/24"]), "--subnet 10.9.0.0/24 and --subnet 10.8.0.0/24");
        refused(nets(&["fd09::/64", "fd08::/64"]), "fd08::/64");
        let six: IpAddr = "fd09::1".parse().unwrap();
        refused(addresses("--gateway", &[six, six]), "--gateway fd09::1");
    }

    fn of(subnet: &str, gateway: &str, range: &str) -> New6 {
        New6 { subnet: subnet.parse().ok(), gateway: gateway.parse().ok(), ip_range: range.parse().ok() }
    }

    #[test]
    fn ipv6_is_there_only_where_it_is_asked_for() {
        assert_eq!(New6::default().of(false), Ok(None));
        assert_eq!(New6::default().of(true), Ok(Some(New6::default())));
        for (given, option) in [
            (of("fd09::/64", "", ""), "--subnet fd09::/64"),
            (of("", "fd09::1", ""), "--gateway fd09::1"),
            (of("", "", "fd09::/80"), "--ip-range fd09::/80"),
        ] {
            refused(given.of(false), &format!("{option} needs --ipv6"));
        }
    }

    #[test]
    fn addresses_that_do_not_belong_together_contradict_each_other() {
        let new =
            |subnet: &str, gateway: &str, range: &str, ipv6: Option<New6>, mtu: Option<u32>| NewNetwork {
                subnet: subnet.parse().ok(),
                gateway: gateway.parse().ok(),
                ip_range: range.parse().ok(),
                ipv6,
                mtu,
                ..NewNetwork::called(NetworkName::parse("db").unwrap())
            };
        for (subnet, gateway, range) in [
            ("", "10.9.0.1", ""),
            ("", "", "10.9.0.0/25"),
            ("10.9.0.0/24", "10.9.1.1", ""),
            ("10.9.0.0/24", "10.9.0.0", ""),
            ("10.9.0.0/24", "10.9.0.255", ""),
            ("10.9.0.0/24", "", "10.9.0.0/16"),
            ("10.9.0.0/24", "", "10.10.0.0/25"),
        ] {
            let error = new(subnet, gateway, range, None, None).contradictions().unwrap_err();
            assert_eq!(error.exit_status(), 2);
        }
        assert_eq!(new("10.9.0.0/24", "10.9.0.254", "10.9.0.128/25", None, None).contradictions(), Ok(()));
        assert_eq!(new("", "", "", None, None).contradictions(), Ok(()));
        for (subnet, gateway, range) in [
            ("", "fd09::1", ""),
            ("fd09::/64", "fd08::1", ""),
            ("fd09::/64", "fd09::", ""),
            ("fd09::/64", "", "fd09::/48"),
            ("fd09::/64", "", "fd08::/80"),
        ] {
            let six = Some(of(subnet, gateway, range));
            assert_eq!(new("", "", "", six, None).contradictions().unwrap_err().exit_status(), 2);
        }
        let whole = Some(of("fd09::/64", "fd09::ffff", "fd09::7:0/112"));
        assert_eq!(new("", "", "", whole, Some(1280)).contradictions(), Ok(()));
        refused(new("", "", "", whole, Some(1279)).contradictions(), "--ipv6 and --mtu 1279");
    }
}
