//! The grammar of `-p`, Docker's (docker/go-connections `nat.ParsePortSpec`, docker/cli `opts.go`):
//!
//! ```text
//! [[IP:][HOSTPORT[-END]]:]BOXPORT[-END][/tcp|udp|sctp]
//! published=…,target=…[,protocol=…]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::port::{HostPort, PortRange, PortRequest, Protocol, write_address};
use crate::error::{Error, Result};

const HINT: &str = "a port is published with [[IP:][HOSTPORT[-END]]:]BOXPORT[-END][/tcp|udp|sctp]";

/// One `-p`, which may stand for many ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishSpec {
    /// The host's address; `None` for every address of both families.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// Which port of the host leads to which of the box.
    pub mapping: Mapping,
}

/// Which ports of the host lead to which ports of the box. No port is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Each port of the host to its counterpart in the box: two ranges of the same length.
    Pairs {
        /// The host's ports.
        host: PortRange,
        /// The box's ports.
        inside: PortRange,
    },
    /// One free port out of the host's range to one port of the box.
    Pool {
        /// The host's ports to choose from.
        host: PortRange,
        /// The box's port.
        inside: u16,
    },
    /// A free port for each port of the box.
    Ephemeral {
        /// The box's ports.
        inside: PortRange,
    },
}

impl FromStr for PublishSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = if text.contains('=') { long(text) } else { short(text) };
        parsed.map_err(|cause| {
            Error::usage(format!("invalid port to publish {text:?}")).because(cause).hint(HINT)
        })
    }
}

/// Reads the long form, which Docker's command line rewrites into the short one. Unlike there, a key
/// that means nothing or comes twice is an error.
fn long(text: &str) -> Result<PublishSpec, String> {
    let (mut published, mut target, mut protocol) = (None, None, None);
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("expected name=value, not {part:?}"))?;
        let place = match key {
            "published" => &mut published,
            "target" => &mut target,
            "protocol" => &mut protocol,
            _ => return Err(format!("unknown key {key:?}; the keys are published, target and protocol")),
        };
        if place.replace(value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let target = target.ok_or("target, the port in the box, is missing")?;
    if target.contains([':', '/']) {
        return Err(format!("{target:?} is neither a port nor a range of ports"));
    }
    let (published, protocol) = (published.unwrap_or_default(), protocol.unwrap_or_default());
    short(&format!("{published}:{target}/{protocol}"))
}

fn short(text: &str) -> Result<PublishSpec, String> {
    // From the right: what is left of the last two parts is the address, which may be a bare IPv6 one.
    let mut parts = text.rsplitn(3, ':');
    let inside = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();

    let (inside, protocol) = inside.split_once('/').unwrap_or((inside, ""));
    if inside.is_empty() {
        return Err("it names no port of the box".to_owned());
    }
    let protocol = match protocol {
        "" => Protocol::Tcp,
        name => Protocol::from_name(name).ok_or_else(|| format!("{name:?} is not tcp, udp or sctp"))?,
    };
    let address = if address.is_empty() { None } else { Some(ip(address)?) };
    let inside = PortRange::parse(inside)?;
    if inside.first() == 0 {
        return Err("a box has no port 0".to_owned());
    }
    let host = if host.is_empty() { None } else { Some(PortRange::parse(host)?) };
    Ok(PublishSpec { address, protocol, mapping: mapping(host, inside)? })
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        // ::ffff:192.0.2.1 is how a dual-stack socket sees 192.0.2.1, not an address to publish on.
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(format!("{text:?} is not an IP address")),
    }
}

fn mapping(host: Option<PortRange>, inside: PortRange) -> Result<Mapping, String> {
    let Some(host) = host else {
        return Ok(Mapping::Ephemeral { inside });
    };
    match (host.is_as_long_as(inside), inside.is_single()) {
        (true, true) if host.first() == 0 => Ok(Mapping::Ephemeral { inside }),
        (true, _) | (false, true) if host.first() == 0 => {
            Err(format!("port 0 of the host, which means any, cannot be part of the range {host}"))
        }
        (true, _) => Ok(Mapping::Pairs { host, inside }),
        (false, true) => Ok(Mapping::Pool { host, inside: inside.first() }),
        (false, false) => {
            Err(format!("{host} of the host and {inside} of the box are not the same number of ports"))
        }
    }
}

impl PublishSpec {
    /// The single ports that this stands for, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<PortRequest> {
        let request =
            |host, box_port| PortRequest { address: self.address, protocol: self.protocol, host, box_port };
        match self.mapping {
            Mapping::Pairs { host, inside } => {
                host.ports().zip(inside.ports()).map(|(h, b)| request(HostPort::Fixed(h), b)).collect()
            }
            Mapping::Pool { host, inside } => {
                vec![request(HostPort::Pool(host.first(), host.last()), inside)]
            }
            Mapping::Ephemeral { inside } => {
                inside.ports().map(|port| request(HostPort::Ephemeral, port)).collect()
            }
        }
    }
}

impl fmt::Display for PublishSpec {
    /// The canonical form, with both colons and the protocol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, self.address)?;
        match self.mapping {
            Mapping::Pairs { host, inside } => write!(f, ":{host}:{inside}")?,
            Mapping::Pool { host, inside } => write!(f, ":{host}:{inside}")?,
            Mapping::Ephemeral { inside } => write!(f, "::{inside}")?,
        }
        write!(f, "/{}", self.protocol)
    }
}

/// Everything that one run publishes: what is asked twice is there once, and ports that are named come
/// before those to be chosen, so that the choice cannot take them (Docker's order).
///
/// A port on every address includes the same port on one of them.
///
/// # Errors
/// When one port of the host is to lead to two ports of the box (exit 2, naming both).
pub fn merge(specs: &[PublishSpec]) -> Result<Vec<PortRequest>> {
    let mut fixed: BTreeMap<(Protocol, u16), Vec<(usize, PortRequest)>> = BTreeMap::new();
    let (mut pools, mut ephemeral) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (order, request) in specs.iter().flat_map(PublishSpec::requests).enumerate() {
        if !seen.insert(request) {
            continue;
        }
        match request.host {
            HostPort::Fixed(port) => {
                let others = fixed.entry((request.protocol, port)).or_default();
                if let Some((_, other)) = others.iter().find(|(_, other)| contradict(other, &request)) {
                    return Err(Error::usage(format!("cannot publish both {other} and {request}"))
                        .because(format_args!("host port {port} can lead to one port of the box only")));
                }
                if !others.iter().any(|(_, other)| includes(other.address, request.address)) {
                    others.retain(|(_, other)| !includes(request.address, other.address));
                    others.push((order, request));
                }
            }
            HostPort::Pool(..) => pools.push(request),
            HostPort::Ephemeral => ephemeral.push(request),
        }
    }
    let mut fixed: Vec<_> = fixed.into_values().flatten().collect();
    fixed.sort_unstable_by_key(|(order, _)| *order);
    Ok(fixed.into_iter().map(|(_, request)| request).chain(pools).chain(ephemeral).collect())
}

/// Whether two requests for the same port of the host want it for different ports of the box.
fn contradict(a: &PortRequest, b: &PortRequest) -> bool {
    a.box_port != b.box_port && (includes(a.address, b.address) || includes(b.address, a.address))
}

/// Whether a socket on the first address would also be one on the second.
fn includes(wide: Option<IpAddr>, narrow: Option<IpAddr>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            wide == narrow || (wide.is_unspecified() && wide.is_ipv4() == narrow.is_ipv4())
        }
    }
}

#[cfg(test)]
mod tests;
