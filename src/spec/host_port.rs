//! What `--host-port` is given: a port of the host's loopback that a box may reach.
//!
//! ```text
//! PORT[:BOXPORT][/tcp|udp]
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::port::Protocol;
use crate::error::{Error, Result};

/// The name by which a box reaches the host's ports that were opened to it.
pub const HOST_NAME: &str = "host.netbox.internal";

/// What the box's resolver has at the same address (RFC 1035, 4.2).
const DNS: u16 = 53;

const HINT: &str =
    "--host-port takes PORT[:BOXPORT][/tcp|udp]; with BOXPORT the box reaches it by that number";

/// The host's 127.0.0.1:PORT, and by which port the box reaches it. In the form of `ps --json` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPortSpec {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port, not 0.
    pub host_port: u16,
    /// The port of [`HOST_NAME`], not 0.
    pub box_port: u16,
}

impl FromStr for HostPortSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text)
            .map_err(|cause| Error::usage(format!("invalid --host-port {text:?}")).because(cause).hint(HINT))
    }
}

fn parse(text: &str) -> Result<HostPortSpec, String> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, name)) => match Protocol::from_name(name) {
            Some(protocol @ (Protocol::Tcp | Protocol::Udp)) => (ports, protocol),
            Some(Protocol::Sctp) => return Err("SCTP is not relayed".to_owned()),
            None => return Err(format!("{name:?} is not tcp or udp")),
        },
    };
    let (host_port, box_port) = match ports.split_once(':') {
        Some((host, inside)) => (number(host)?, number(inside)?),
        None => (number(ports)?, number(ports)?),
    };
    if box_port == DNS {
        return Err(format!(
            "port {DNS} of {HOST_NAME} is that of the box's resolver: give BOXPORT, as in {host_port}:{}",
            DNS + 5300
        ));
    }
    Ok(HostPortSpec { protocol, host_port, box_port })
}

fn number(digits: &str) -> Result<u16, String> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{digits:?} is not a port"));
    }
    match digits.parse() {
        Ok(0) => Err("no port is 0".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("port {digits} is above 65535")),
    }
}

impl fmt::Display for HostPortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host_port, self.box_port, self.protocol)
    }
}

/// All of them, each once.
///
/// # Errors
/// When two different ports of the host's are to be one of the box's (exit 2).
pub fn merge_host_ports(specs: &[HostPortSpec]) -> Result<Vec<HostPortSpec>> {
    let mut all: Vec<HostPortSpec> = Vec::with_capacity(specs.len());
    for spec in specs {
        let taken =
            |other: &&HostPortSpec| (other.protocol, other.box_port) == (spec.protocol, spec.box_port);
        match all.iter().find(taken) {
            Some(other) if other == spec => {}
            Some(other) => {
                return Err(Error::usage(format!(
                    "--host-port {other} and --host-port {spec} contradict each other"
                ))
                .because(format!("{HOST_NAME}:{}/{} is one port", spec.box_port, spec.protocol))
                .hint("give one of them another BOXPORT"));
            }
            None => all.push(*spec),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> HostPortSpec {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_is_the_same_on_both_sides_unless_another_is_said() {
        for (text, canonical) in [
            ("5432", "5432:5432/tcp"),
            ("5432:15432", "5432:15432/tcp"),
            ("1", "1:1/tcp"),
            ("65535:1/udp", "65535:1/udp"),
            ("123/UDP", "123:123/udp"),
            ("80/tcp", "80:80/tcp"),
            ("53:5353/udp", "53:5353/udp"),
        ] {
            assert_eq!(spec(text).to_string(), canonical, "{text}");
            assert_eq!(spec(canonical), spec(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "\"\" is not a port"),
            ("0", "no port is 0"),
            ("80:0", "no port is 0"),
            ("65536", "above 65535"),
            ("+80", "\"+80\" is not a port"),
            ("80-82", "\"80-82\" is not a port"),
            ("80:", "\"\" is not a port"),
            ("127.0.0.1:80", "\"127.0.0.1\" is not a port"),
            ("80:81:82", "\"81:82\" is not a port"),
            ("80/sctp", "SCTP is not relayed"),
            ("80/icmp", "\"icmp\" is not tcp or udp"),
            ("80/", "\"\" is not tcp or udp"),
            ("53", "as in 53:5353"),
            ("5353:53/udp", "that of the box's resolver"),
        ] {
            let error = text.parse::<HostPortSpec>().unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_same_twice_is_once_and_two_in_one_place_are_named() {
        let merged = merge_host_ports(&["80", "81:8081", "80:80/tcp", "80/udp"].map(spec)).unwrap();
        assert_eq!(merged, ["80", "81:8081", "80/udp"].map(spec));
        let error = merge_host_ports(&["80", "81:80"].map(spec)).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        for named in ["80:80/tcp", "81:80/tcp", "host.netbox.internal:80/tcp"] {
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
