//! Ports: a range of them, and one that a box wants published.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of this name in upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.as_str().eq_ignore_ascii_case(name))
    }

    /// The name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The IP protocol number (IANA, "Protocol Numbers").
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One port, or several in a row. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`, both included; `None` where that would be none.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// Reads `N` or `N-M`. On failure, the reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first, text)?, number(last, text)?),
            None => (number(text, text)?, number(text, text)?),
        };
        Self::new(first, last).ok_or_else(|| format!("the range {text} ends before it starts"))
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether this is a single port.
    #[must_use]
    pub const fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether the other range has as many ports.
    #[must_use]
    pub const fn is_as_long_as(self, other: Self) -> bool {
        self.last - self.first == other.last - other.first
    }

    /// The ports, in order.
    #[must_use]
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Reads a port number, which is a part of `whole`. Digits alone: [`u16::from_str`](std::str::FromStr)
/// would take a sign too.
fn number(digits: &str, whole: &str) -> Result<u16, String> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{whole:?} is neither a port nor a range of ports"));
    }
    digits.parse().map_err(|_| format!("port {digits} is above 65535"))
}

/// A port of a box, as docker-port(1) takes it: `PORT[/tcp|udp|sctp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsidePort {
    /// Its number, not 0.
    pub port: u16,
    /// TCP where none was said.
    pub protocol: Protocol,
}

impl FromStr for InsidePort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: String| Error::usage(format!("invalid port {text:?}")).because(cause);
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::from_name(protocol)
            .ok_or_else(|| wrong(format!("{protocol:?} is not tcp, udp or sctp")))?;
        match PortRange::parse(port).map_err(wrong)? {
            range if !range.is_single() => Err(wrong("it is a range of ports".to_owned())),
            range if range.first() == 0 => Err(wrong("no port is 0".to_owned())),
            range => Ok(Self { port: range.first(), protocol }),
        }
    }
}

impl fmt::Display for InsidePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// Which port of the host is to lead to the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPort {
    /// This one.
    Fixed(u16),
    /// The lowest free one from the first to the second, both included.
    Pool(u16, u16),
    /// Any free one.
    Ephemeral,
}

/// One port of the box that is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRequest {
    /// The host's address to publish on; `None` for every address of both families, `0.0.0.0` or `::`
    /// for every one of its family.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the host.
    pub host: HostPort,
    /// The port in the box, never 0.
    pub box_port: u16,
}

impl PortRequest {
    /// The addresses to publish on: where none is given, the wildcards of both families.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.address {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }
}

impl fmt::Display for PortRequest {
    /// The canonical form of `-p`: `IP:HOST:BOX/PROTOCOL`, where IP and HOST may be empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, self.address)?;
        match self.host {
            HostPort::Fixed(port) => write!(f, ":{port}")?,
            HostPort::Pool(first, last) => write!(f, ":{first}-{last}")?,
            HostPort::Ephemeral => write!(f, ":")?,
        }
        write!(f, ":{}/{}", self.box_port, self.protocol)
    }
}

pub(super) fn write_address(f: &mut fmt::Formatter<'_>, address: Option<IpAddr>) -> fmt::Result {
    match address {
        None => Ok(()),
        Some(IpAddr::V4(address)) => write!(f, "{address}"),
        Some(IpAddr::V6(address)) => write!(f, "[{address}]"),
    }
}

/// Refuses what no kernel can carry out: an address that is never one host's, or that no packet is routed for.
///
/// # Errors
/// A refusal (exit 125) naming the port.
pub fn publishable(request: &PortRequest) -> Result<()> {
    let refuse = |cause: String, hint: &str| {
        Err(Error::new(format!("cannot publish {request}")).because(cause).hint(hint))
    };
    let Some(address) = request.address else { return Ok(()) };
    let list =
        if address.is_ipv4() { "`ip -4 addr` lists the host's" } else { "`ip -6 addr` lists the host's" };
    match address {
        _ if address.is_multicast() => refuse(format!("{address} is no address that one host has"), list),
        IpAddr::V4(v4) if v4.is_broadcast() => {
            refuse(format!("{address} is no address that one host has"), list)
        }
        // RFC 4291, 2.5.6: not forwarded, and the same on every link.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => refuse(
            format!("{address} is a link-local address, which leads nowhere beyond its link"),
            "publish on another address of the host, or give none for all of them",
        ),
        _ if address.is_loopback() && request.protocol == Protocol::Sctp => refuse(
            "the host's loopback is relayed to boxes, which is not done for SCTP".to_owned(),
            "publish on another address of the host, or give none for all of them",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, first, last) in
            [("0", 0, 0), ("80", 80, 80), ("0123", 123, 123), ("65535", 65535, 65535), ("1-65535", 1, 65535)]
        {
            assert_eq!(PortRange::parse(text), Ok(PortRange { first, last }));
        }
        assert_eq!(PortRange::parse("1234-1234").unwrap().to_string(), "1234");
        assert_eq!(PortRange::parse("1234-1242").unwrap().to_string(), "1234-1242");
    }

    #[test]
    fn one_port_of_a_box() {
        for (text, canonical) in [("80", "80/tcp"), ("53/UDP", "53/udp"), ("65535/sctp", "65535/sctp")] {
            assert_eq!(text.parse::<InsidePort>().unwrap().to_string(), canonical);
        }
        for (text, cause) in [
            ("", "neither"),
            ("0", "no port is 0"),
            ("80-81", "a range of ports"),
            ("65536", "above 65535"),
            ("80/", "\"\" is not tcp, udp or sctp"),
            ("80/icmp", "\"icmp\" is not tcp, udp or sctp"),
            ("8080:80", "neither"),
        ] {
            let error = text.parse::<InsidePort>().unwrap_err();
            assert!(error.exit_status() == 2 && error.to_string().contains(cause), "{error}");
        }
    }

    #[test]
    fn what_can_be_published() {
        let request = |address: &str, protocol| PortRequest {
            address: (!address.is_empty()).then(|| address.parse().unwrap()),
            protocol,
            host: HostPort::Fixed(53),
            box_port: 53,
        };
        for address in ["", "0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1", "2001:db8::1", "fd00::1"] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(publishable(&request(address, protocol)), Ok(()), "{address} {protocol}");
            }
        }
        for address in ["", "0.0.0.0", "192.0.2.1", "::", "2001:db8::1"] {
            assert_eq!(publishable(&request(address, Protocol::Sctp)), Ok(()), "{address}");
        }
        for (address, protocol, words) in [
            ("224.0.0.251", Protocol::Udp, "cannot publish 224.0.0.251:53:53/udp: 224.0.0.251 is no address"),
            ("255.255.255.255", Protocol::Udp, "255.255.255.255 is no address that one host has"),
            ("ff02::fb", Protocol::Udp, "cannot publish [ff02::fb]:53:53/udp: ff02::fb is no address"),
            ("fe80::1", Protocol::Tcp, "cannot publish [fe80::1]:53:53/tcp: fe80::1 is a link-local address"),
            ("127.0.0.1", Protocol::Sctp, "cannot publish 127.0.0.1:53:53/sctp: the host's loopback"),
            ("::1", Protocol::Sctp, "cannot publish [::1]:53:53/sctp: the host's loopback"),
        ] {
            let error = publishable(&request(address, protocol)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.exit_status(), 125);
            assert!(error.remedy().is_some());
        }
    }
}
