//! Ports: a range of them, and one that a box wants published.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

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
    /// Whether this is on every IPv4 address of the host.
    #[must_use]
    pub fn on_every_ipv4_address(&self) -> bool {
        self.address.is_none_or(|address| address.is_ipv4() && address.is_unspecified())
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

/// Whether netbox can carry out what the grammar already allows: TCP on IPv4 addresses.
///
/// # Errors
/// A refusal (exit 125) naming the port and what is missing.
pub fn supported_today(request: &PortRequest) -> Result<()> {
    let refuse = |missing: &str, hint: &str| {
        let cause = format!("{missing} are not supported yet");
        Err(Error::new(format!("cannot publish {request}")).because(cause).hint(hint))
    };
    match (request.protocol, request.address) {
        (Protocol::Udp, _) => refuse("UDP ports", "publish TCP ports only"),
        (Protocol::Sctp, _) => refuse("SCTP ports", "publish TCP ports only"),
        (Protocol::Tcp, Some(IpAddr::V6(_))) => {
            refuse("IPv6 addresses", "publish on an IPv4 address, or give none for all of them")
        }
        (Protocol::Tcp, Some(IpAddr::V4(address))) if address.is_multicast() || address.is_broadcast() => {
            let cause = format!("{address} is no address that one host has");
            Err(Error::new(format!("cannot publish {request}"))
                .because(cause)
                .hint("`ip -4 addr` lists the host's"))
        }
        (Protocol::Tcp, Some(IpAddr::V4(_)) | None) => Ok(()),
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
    fn what_is_carried_out_today() {
        let request = |address: Option<&str>, protocol| PortRequest {
            address: address.map(|a| a.parse().unwrap()),
            protocol,
            host: HostPort::Fixed(53),
            box_port: 53,
        };
        for address in [None, Some("0.0.0.0"), Some("127.0.0.1"), Some("192.0.2.1")] {
            assert_eq!(supported_today(&request(address, Protocol::Tcp)), Ok(()));
        }
        for (address, protocol, words) in [
            (None, Protocol::Udp, "cannot publish :53:53/udp: UDP ports are not supported yet"),
            (
                Some("192.0.2.1"),
                Protocol::Sctp,
                "cannot publish 192.0.2.1:53:53/sctp: SCTP ports are not supported yet",
            ),
            (
                Some("::"),
                Protocol::Tcp,
                "cannot publish [::]:53:53/tcp: IPv6 addresses are not supported yet",
            ),
            (
                Some("2001:db8::1"),
                Protocol::Tcp,
                "cannot publish [2001:db8::1]:53:53/tcp: IPv6 addresses are not supported yet",
            ),
        ] {
            let error = supported_today(&request(address, protocol)).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_status()), (words, 125));
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn every_ipv4_address() {
        let on = |address: Option<&str>| {
            PortRequest {
                address: address.map(|a| a.parse().unwrap()),
                protocol: Protocol::Tcp,
                host: HostPort::Ephemeral,
                box_port: 80,
            }
            .on_every_ipv4_address()
        };
        assert!(on(None) && on(Some("0.0.0.0")));
        assert!(!on(Some("::")) && !on(Some("127.0.0.1")));
    }
}
