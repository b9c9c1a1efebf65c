//! Addresses that a box, its gateway or its packets are to have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::error::{Error, Result};

/// The lengths of prefix that a pool can have, in bits: 16367 boxes to 15.
pub const POOL_PREFIXES: RangeInclusive<u8> = 18..=27;

/// Reads the IPv4 address of a box: `--ip`.
///
/// # Errors
/// When it is no IPv4 address.
pub fn parse_ip(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| {
        let error = Error::usage(format!("invalid address {text:?} for --ip"));
        match text.parse::<Ipv6Addr>() {
            Ok(_) => error.because("it is an IPv6 address").hint("that is what --ip6 is for"),
            Err(_) => error.because("it is not an IPv4 address"),
        }
    })
}

/// Reads the IPv6 address of a box: `--ip6`.
///
/// # Errors
/// When it is no IPv6 address.
pub fn parse_ip6(text: &str) -> Result<Ipv6Addr> {
    text.parse().map_err(|_| {
        Error::usage(format!("invalid address {text:?} for --ip6")).because("it is not an IPv6 address")
    })
}

/// Refuses an address that no box outside of networks has.
///
/// # Errors
/// When it is no unique local address (RFC 4193), which theirs are.
pub fn check_ip6_of_pool(address: Ipv6Addr) -> Result<()> {
    if address.is_unique_local() {
        return Ok(());
    }
    Err(Error::usage(format!("invalid address {address} for --ip6"))
        .because("it is not a unique local address, of fd00::/8, as those of boxes are")
        .hint("boxes reach the outside by an address of the host's; --snat chooses which"))
}

/// Reads the hardware address of a box: `--mac`.
///
/// # Errors
/// When it is not six bytes, or the address of a group (IEEE 802, §8.2.2) or of nobody.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = |cause: &str| {
        Error::usage(format!("invalid hardware address {text:?} for --mac"))
            .because(cause)
            .hint("one is given as 02:00:5e:10:00:01")
    };
    let separator = if text.contains('-') { '-' } else { ':' };
    let byte = |part: &str| match part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => u8::from_str_radix(part, 16).ok(),
        false => None,
    };
    let bytes: Option<Vec<u8>> = text.split(separator).map(byte).collect();
    let mac: [u8; 6] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| invalid("it is not six bytes of two hexadecimal digits each"))?;
    if mac[0] & 1 != 0 {
        return Err(invalid("it is the address of a group (the lowest bit of the first byte is 1)"));
    }
    if mac == [0; 6] {
        return Err(invalid("it is nobody's"));
    }
    Ok(mac)
}

/// Reads the range that boxes get their addresses from: `--pool`.
///
/// # Errors
/// When it is no IPv4 network of a size that a pool can have, or one that has a meaning of its own.
pub fn parse_pool(text: &str) -> Result<Ipv4Net> {
    let invalid = |cause: String| Error::usage(format!("invalid pool {text:?} for --pool")).because(cause);
    let pool: Ipv4Net = text
        .parse()
        .map_err(|_| invalid("it is not an IPv4 network".to_owned()).hint("one is given as 10.99.0.0/18"))?;
    if !POOL_PREFIXES.contains(&pool.prefix_len()) {
        let (largest, smallest) = POOL_PREFIXES.into_inner();
        return Err(invalid(format!("it is a /{}", pool.prefix_len()))
            .hint(format!("a pool is a /{largest} (16367 boxes) to a /{smallest} (15 boxes)")));
    }
    if pool.trunc() != pool {
        return Err(invalid(format!("the network of that size around it begins at {}", pool.network()))
            .hint(format!("--pool {}", pool.trunc())));
    }
    let first = pool.network();
    // Of 0/8 and of 240/4 no packet is routed (RFC 1122 §3.2.1.3, RFC 1112 §4).
    if first.is_loopback() || first.is_link_local() || first.octets()[0] == 0 || first.octets()[0] >= 224 {
        return Err(invalid("addresses of that range are never routed, or mean something else".to_owned())
            .hint("a range of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 that nobody here uses serves"));
    }
    Ok(pool)
}

/// Reads the address that a box's packets leave with: `--snat`.
///
/// # Errors
/// When it is no address that can be a packet's source on the way to another machine.
pub fn parse_snat(text: &str) -> Result<IpAddr> {
    let invalid = |cause: &str| Error::usage(format!("invalid address {text:?} for --snat")).because(cause);
    let address: IpAddr = text.parse().map_err(|_| invalid("it is not an IP address"))?;
    let is_link_local = match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local {
        return Err(invalid("no packet that leaves the host's networks can have it"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn addresses_of_boxes() {
        assert_eq!(parse_ip("10.77.128.16"), Ok(Ipv4Addr::new(10, 77, 128, 16)));
        refused(parse_ip("fd00::1"), "IPv6 address");
        refused(parse_ip("10.77.128.16/18"), "not an IPv4 address");
        assert_eq!(check_ip6_of_pool(parse_ip6("fd00::10").unwrap()), Ok(()));
        for text in ["2001:db8::1", "fe80::1", "::1", "::"] {
            refused(check_ip6_of_pool(parse_ip6(text).unwrap()), "unique local");
        }
        refused(parse_ip6("10.0.0.1"), "not an IPv6 address");
    }

    #[test]
    fn hardware_addresses() {
        assert_eq!(parse_mac("02:00:5e:10:00:01"), Ok([2, 0, 0x5e, 0x10, 0, 1]));
        assert_eq!(parse_mac("00-1B-21-aa-bb-cc"), Ok([0, 0x1b, 0x21, 0xaa, 0xbb, 0xcc]));
        refused(parse_mac("01:00:5e:00:00:01"), "group");
        refused(parse_mac("ff:ff:ff:ff:ff:ff"), "group");
        refused(parse_mac("00:00:00:00:00:00"), "nobody");
        for text in [
            "",
            "2:0:5e:10:0:1",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "+2:00:5e:10:00:01",
            "02:00-5e:10:00:01",
        ] {
            refused(parse_mac(text), "six bytes");
        }
    }

    #[test]
    fn pools() {
        for text in ["10.99.0.0/18", "192.168.77.0/24", "172.30.0.32/27"] {
            assert_eq!(parse_pool(text).unwrap().to_string(), text);
        }
        for text in ["10.0.0.0/8", "10.99.0.0/17", "10.99.0.0/28", "10.99.0.1/32"] {
            refused(parse_pool(text), "it is a /");
        }
        refused(parse_pool("10.99.0.1/24"), "10.99.0.0");
        for text in ["127.0.0.0/18", "169.254.64.0/18", "224.0.0.0/24", "0.0.0.0/24", "255.255.192.0/18"] {
            refused(parse_pool(text), "range");
        }
        for text in ["10.99.0.0", "fd00::/64", "x/24", ""] {
            refused(parse_pool(text), "not an IPv4 network");
        }
    }

    #[test]
    fn sources() {
        assert_eq!(parse_snat("192.0.2.1").unwrap().to_string(), "192.0.2.1");
        assert_eq!(parse_snat("2001:db8::1").unwrap().to_string(), "2001:db8::1");
        for text in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "fe80::1", "169.254.1.1"] {
            refused(parse_snat(text), "no packet");
        }
        refused(parse_snat("eth0"), "not an IP address");
    }
}
