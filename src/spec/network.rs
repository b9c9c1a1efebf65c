//! Named networks: what one is called, what it is to be like, and how a box joins it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::address::{parse_ip, parse_mac};
use super::name::BoxName;
use super::routed::{self, OutsideRoute};
use crate::error::{Error, Result};

/// What `--net` says that is no network's name, or will not be.
pub const RESERVED: [&str; 7] = ["nat", "none", "host", "default", "box", "container", "netns"];

/// The lengths of prefix that a network can have, in bits.
pub const PREFIXES: RangeInclusive<u8> = 8..=29;

/// The name of a network: as that of a box, but for those that `--net` has another meaning for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

impl NetworkName {
    /// Reads the name of a network that is or could be.
    ///
    /// # Errors
    /// When it breaks the rule, saying in which way.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |cause: String| Error::usage(format!("invalid network name {text:?}")).because(cause);
        if let Some(reserved) = RESERVED.iter().find(|reserved| reserved.eq_ignore_ascii_case(text)) {
            return Err(refuse(format!("{reserved} is a word of --net")).hint("choose another name"));
        }
        match BoxName::parse(text) {
            Ok(name) => Ok(Self(name.as_str().to_owned())),
            Err(error) => {
                let cause = error.to_string();
                Err(refuse(cause.split_once(": ").map_or(cause.as_str(), |(_, cause)| cause).to_owned()))
            }
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for NetworkName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.0
    }
}

/// How a box joins a network: `--net NETWORK[:ip=…,mac=…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The network.
    pub name: NetworkName,
    /// The address that the box is to have there.
    pub ip: Option<Ipv4Addr>,
    /// The hardware address that it is to have.
    pub mac: Option<[u8; 6]>,
}

impl FromStr for Join {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, options) = match text.split_once(':') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        let mut join = Self { name: NetworkName::parse(name)?, ip: None, mac: None };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            let invalid = |cause: String| {
                Error::usage(format!("invalid network {text:?}"))
                    .because(cause)
                    .hint("a network is given as NAME[:ip=ADDRESS,mac=ADDRESS]")
            };
            let twice = || invalid(format!("{option:?} is the second of its kind"));
            match option.split_once('=') {
                Some(("ip", value)) => {
                    if join.ip.replace(parse_ip(value)?).is_some() {
                        return Err(twice());
                    }
                }
                Some(("mac", value)) => {
                    if join.mac.replace(parse_mac(value)?).is_some() {
                        return Err(twice());
                    }
                }
                _ => return Err(invalid(format!("{option:?} is neither ip=… nor mac=…"))),
            }
        }
        Ok(join)
    }
}

/// A network that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: NetworkName,
    /// The range of its addresses; `None` for one that netbox chooses.
    pub subnet: Option<Ipv4Net>,
    /// The gateway's address in it; `None` for the first.
    pub gateway: Option<Ipv4Addr>,
    /// Where boxes get their addresses from; `None` for all of the range.
    pub ip_range: Option<Ipv4Net>,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether its boxes do not reach each other.
    pub isolate: bool,
    /// The MTU of its links in bytes; `None` for the uplink's.
    pub mtu: Option<u32>,
    /// What its user calls it besides.
    pub labels: BTreeMap<String, String>,
    /// The routes that the host gets for its boxes.
    pub routes: Vec<OutsideRoute>,
    /// Whom its boxes send to, and hear from, with their own addresses.
    pub no_masquerade: Vec<Ipv4Net>,
}

/// What `netbox network` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkRequest {
    /// Make one.
    Create(NewNetwork),
    /// List all.
    List {
        /// As JSON.
        json: bool,
        /// Their names alone.
        quiet: bool,
    },
    /// Say everything about these. `nat` may be among them.
    Inspect(Vec<String>),
    /// Remove these.
    Remove(Vec<NetworkName>),
    /// Remove all that no box uses.
    Prune,
}

/// Reads the range of a network's addresses: `--subnet`.
///
/// # Errors
/// When it is no IPv4 network of a size that one can have, or means something else.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net> {
    let subnet = parse_range("--subnet", text)?;
    let invalid =
        |cause: String| Error::usage(format!("invalid network {text:?} for --subnet")).because(cause);
    if !PREFIXES.contains(&subnet.prefix_len()) {
        let (largest, smallest) = PREFIXES.into_inner();
        return Err(invalid(format!("it is a /{}", subnet.prefix_len()))
            .hint(format!("a network is a /{largest} to a /{smallest}")));
    }
    let first = subnet.network();
    // Of 0/8 and of 240/4 no packet is routed (RFC 1122 §3.2.1.3, RFC 1112 §4).
    if first.is_loopback() || first.is_link_local() || first.octets()[0] == 0 || first.octets()[0] >= 224 {
        return Err(invalid("addresses of that range are never routed, or mean something else".to_owned())
            .hint("a range of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 that nobody here uses serves"));
    }
    Ok(subnet)
}

/// Reads where in its range a network's boxes get their addresses: `--ip-range`.
///
/// # Errors
/// When it is no IPv4 network.
pub fn parse_ip_range(text: &str) -> Result<Ipv4Net> {
    parse_range("--ip-range", text)
}

fn parse_range(option: &str, text: &str) -> Result<Ipv4Net> {
    let invalid =
        |cause: String| Error::usage(format!("invalid network {text:?} for {option}")).because(cause);
    let range: Ipv4Net = text.parse().map_err(|_| {
        invalid("it is not an IPv4 network".to_owned()).hint(format!("one is given as {option} 10.10.7.0/24"))
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
/// When it is no IPv4 address.
pub fn parse_gateway(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| {
        Error::usage(format!("invalid address {text:?} for --gateway")).because("it is not an IPv4 address")
    })
}

/// Reads a label: `--label KEY[=VALUE]`.
///
/// # Errors
/// When it has no key, or control characters.
pub fn parse_label(text: &str) -> Result<(String, String)> {
    let invalid = |cause: &str| Err(Error::usage(format!("invalid label {text:?}")).because(cause));
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return invalid("it has no key");
    }
    if text.chars().any(char::is_control) {
        return invalid("it has a control character");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Refuses other kinds of networks than bridges: `-d/--driver`.
///
/// # Errors
/// Always, but for `bridge`.
pub fn check_driver(text: &str) -> Result<()> {
    if text == "bridge" {
        return Ok(());
    }
    let error = Error::usage(format!("invalid driver {text:?}")).because("the only one is bridge");
    Err(match text {
        "host" | "none" | "null" => error.hint(format!(
            "a run has it without a network: netbox run --net {}",
            text.replace("null", "none")
        )),
        _ => error
            .hint("boxes reach the networks of the host through its addresses: netbox run, without --net"),
    })
}

impl NewNetwork {
    /// One of that name, and nothing else asked for.
    #[must_use]
    pub const fn called(name: NetworkName) -> Self {
        Self {
            name,
            subnet: None,
            gateway: None,
            ip_range: None,
            internal: false,
            isolate: false,
            mtu: None,
            labels: BTreeMap::new(),
            routes: Vec::new(),
            no_masquerade: Vec::new(),
        }
    }

    /// Finds options that cannot both be meant.
    ///
    /// # Errors
    /// The first such pair (exit 2).
    pub fn contradictions(&self) -> Result<()> {
        routed::contradictions(self)?;
        let Some(subnet) = self.subnet else {
            let first = [(self.gateway.is_some(), "--gateway"), (self.ip_range.is_some(), "--ip-range")];
            return match first.into_iter().find(|(given, _)| *given) {
                Some((_, option)) => Err(Error::usage(format!("{option} needs --subnet"))
                    .because("netbox would choose another range of addresses")),
                None => Ok(()),
            };
        };
        if let Some(gateway) = self.gateway
            && (!subnet.contains(&gateway) || gateway == subnet.network() || gateway == subnet.broadcast())
        {
            return Err(Error::usage(format!(
                "--gateway {gateway} and --subnet {subnet} contradict each other"
            ))
            .because("it is no address that can be used in that network"));
        }
        if let Some(range) = self.ip_range
            && !(subnet.contains(&range.network()) && range.prefix_len() >= subnet.prefix_len())
        {
            return Err(Error::usage(format!(
                "--ip-range {range} and --subnet {subnet} contradict each other"
            ))
            .because("the one is not within the other"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_but_not_words_of_net() {
        for text in ["db", "a-b_c.d", "7"] {
            assert_eq!(NetworkName::parse(text).unwrap().as_str(), text);
        }
        for (text, words) in [
            ("nat", "word of --net"),
            ("NONE", "word of --net"),
            ("default", "word of --net"),
            ("a:b", "only a-z"),
            ("../x", "only a-z"),
            ("", "empty"),
        ] {
            let error = NetworkName::parse(text).unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_box_joins_by_name_and_may_choose_its_addresses() {
        let join: Join = "db:ip=10.9.0.7,mac=02:00:00:00:00:07".parse().unwrap();
        assert_eq!(
            (join.name.as_str(), join.ip, join.mac),
            ("db", "10.9.0.7".parse().ok(), Some([2, 0, 0, 0, 0, 7]))
        );
        assert_eq!("db".parse::<Join>().unwrap().ip, None);
        for bad in ["db:", "db:ip", "db:ip=x", "db:ip=10.9.0.7,ip=10.9.0.8", "db:port=7", ":ip=10.9.0.7"] {
            assert_eq!(bad.parse::<Join>().unwrap_err().exit_status(), 2, "{bad}");
        }
    }

    #[test]
    fn ranges_of_networks() {
        for text in ["10.10.0.0/16", "192.168.9.0/24", "172.30.0.8/29"] {
            assert_eq!(parse_subnet(text).unwrap().to_string(), text);
        }
        for (text, words) in [
            ("10.10.0.1/16", "begins at 10.10.0.0"),
            ("10.10.0.0/30", "it is a /30"),
            ("8.0.0.0/7", "it is a /7"),
            ("127.0.0.0/24", "mean something else"),
            ("224.0.0.0/24", "mean something else"),
            ("fd00::/64", "not an IPv4 network"),
        ] {
            let error = parse_subnet(text).unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn labels_and_drivers() {
        assert_eq!(parse_label("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(parse_label("a").unwrap(), ("a".to_owned(), String::new()));
        assert!(parse_label("=x").is_err() && parse_label("a=\n").is_err());
        assert_eq!(check_driver("bridge"), Ok(()));
        for driver in ["overlay", "macvlan", "host", ""] {
            let error = check_driver(driver).unwrap_err();
            assert!(error.exit_status() == 2 && error.remedy().is_some(), "{driver}");
        }
    }

    #[test]
    fn addresses_that_do_not_belong_together_contradict_each_other() {
        let new = |subnet: &str, gateway: &str, range: &str| NewNetwork {
            subnet: subnet.parse().ok(),
            gateway: gateway.parse().ok(),
            ip_range: range.parse().ok(),
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
            let error = new(subnet, gateway, range).contradictions().unwrap_err();
            assert_eq!(error.exit_status(), 2);
        }
        assert_eq!(new("10.9.0.0/24", "10.9.0.254", "10.9.0.128/25").contradictions(), Ok(()));
        assert_eq!(new("", "", "").contradictions(), Ok(()));
    }
}
