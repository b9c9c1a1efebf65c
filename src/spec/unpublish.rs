//! What `netbox port rm` is given: published ports as `-p` and the lists of ports have them.
//!
//! ```text
//! [IP:]HOSTPORT[-END][:BOXPORT[-END]][/tcp|udp|sctp]
//! IP:HOSTPORT[-END]->BOXPORT[-END]/tcp|udp|sctp
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::port::{PortRange, Protocol, write_address};
use crate::error::{Error, Result};

const HINT: &str = "a published port is named by [IP:]HOSTPORT[-END][:BOXPORT[-END]][/tcp|udp|sctp]";

/// Published ports: by their numbers on the host, and by as much else as was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpublishSpec {
    /// The address that they are published on; `None`: whichever.
    pub address: Option<IpAddr>,
    /// The host's ports, none of which is 0.
    pub host: PortRange,
    /// The box's, as many as the host's; `None`: whichever.
    pub inside: Option<PortRange>,
    /// The protocol: TCP where none was said, as with `-p`.
    pub protocol: Protocol,
}

impl FromStr for UnpublishSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|cause| {
            Error::usage(format!("invalid published port {text:?}")).because(cause).hint(HINT)
        })
    }
}

fn parse(text: &str) -> Result<UnpublishSpec, String> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, name)) => {
            let named = Protocol::from_name(name);
            (ports, named.ok_or_else(|| format!("{name:?} is not tcp, udp or sctp"))?)
        }
    };
    let (address, ports) = address(ports)?;
    // As lists have it, or as -p has it.
    let (host, inside) = match ports.split_once("->").or_else(|| ports.split_once(':')) {
        Some((host, inside)) => (PortRange::parse(host)?, Some(PortRange::parse(inside)?)),
        None => (PortRange::parse(ports)?, None),
    };
    if host.first() == 0 {
        return Err("no port of the host is 0".to_owned());
    }
    if let Some(inside) = inside.filter(|inside| !host.is_as_long_as(*inside)) {
        return Err(format!("{host} of the host and {inside} of the box are not the same number of ports"));
    }
    Ok(UnpublishSpec { address, host, inside, protocol })
}

/// The address before the first colon, if it is one, and the rest. One of IPv6 is in brackets: it has colons itself.
fn address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (six, rest) = rest.split_once("]:").ok_or("there is no port after the address")?;
        let six = six.parse::<Ipv6Addr>().map_err(|_| format!("{six:?} is not an IPv6 address"))?;
        return Ok((Some(six.into()), rest));
    }
    match text.split_once(':') {
        // The canonical form of -p has an empty address.
        Some(("", rest)) => Ok((None, rest)),
        Some((first, rest)) if first.contains('.') => {
            let four = first.parse::<Ipv4Addr>().map_err(|_| format!("{first:?} is not an IP address"))?;
            Ok((Some(four.into()), rest))
        }
        _ => Ok((None, text)),
    }
}

impl fmt::Display for UnpublishSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.is_some() {
            write_address(f, self.address)?;
            f.write_str(":")?;
        }
        write!(f, "{}", self.host)?;
        if let Some(inside) = self.inside {
            write!(f, ":{inside}")?;
        }
        write!(f, "/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_as_they_are_published_and_as_they_are_listed() {
        for (text, canonical) in [
            ("8080", "8080/tcp"),
            ("8080/udp", "8080/udp"),
            ("8080:80", "8080:80/tcp"),
            (":8080:80/tcp", "8080:80/tcp"),
            ("127.0.0.1:8080", "127.0.0.1:8080/tcp"),
            ("192.0.2.1:8080:80/UDP", "192.0.2.1:8080:80/udp"),
            ("[::]:8080", "[::]:8080/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("0.0.0.0:8080->80/tcp", "0.0.0.0:8080:80/tcp"),
            ("[2001:db8::1]:8000-8002->80-82/udp", "[2001:db8::1]:8000-8002:80-82/udp"),
            ("8000-8099", "8000-8099/tcp"),
        ] {
            let spec: UnpublishSpec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(spec));
        }
    }

    #[test]
    fn what_names_no_published_port_is_refused() {
        for (text, words) in [
            ("", "neither a port nor a range"),
            ("0", "no port of the host is 0"),
            ("web", "neither a port nor a range"),
            ("80/dccp", "is not tcp, udp or sctp"),
            ("::1:80", "neither a port nor a range"),
            ("[::1]", "no port after the address"),
            ("[1.2.3.4]:80", "not an IPv6 address"),
            ("1.2.3:80", "not an IP address"),
            ("8000-8002:80-81", "not the same number of ports"),
            ("8002-8000", "ends before it starts"),
            ("80:65536", "above 65535"),
        ] {
            let error = text.parse::<UnpublishSpec>().unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert_eq!(error.exit_status(), 2);
        }
    }
}
