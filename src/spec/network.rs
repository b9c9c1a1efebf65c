//! Named networks: what one is called, what it is to be like, and how a box joins it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::address::{parse_ip, parse_ip6, parse_mac};
use super::name::BoxName;
use super::reference::BoxRef;
use super::routed::{self, OutsideRoute};
use super::subnet::{self, New6};
use crate::error::{Error, Result};

/// What `--net` says that is no network's name, or will not be.
pub const RESERVED: [&str; 7] = ["nat", "none", "host", "default", "box", "container", "netns"];

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

/// How a box joins a network: `--net NETWORK[:ip=…,ip6=…,mac=…,alias=…,ifname=…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The network.
    pub name: NetworkName,
    /// The address that the box is to have there.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address that it is to have.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address that it is to have.
    pub mac: Option<[u8; 6]>,
    /// What the network's other boxes find it by besides.
    pub aliases: Vec<BoxName>,
    /// What its interface there is to be called.
    pub interface: Option<String>,
}

impl Join {
    /// Into this network, with nothing chosen.
    #[must_use]
    pub const fn new(name: NetworkName) -> Self {
        Self { name, ip: None, ip6: None, mac: None, aliases: Vec::new(), interface: None }
    }
}

impl FromStr for Join {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, options) = match text.split_once(':') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        let mut join = Self::new(NetworkName::parse(name)?);
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            let invalid = |cause: String| {
                Error::usage(format!("invalid network {text:?}")).because(cause).hint(
                    "a network is given as NAME[:ip=ADDRESS,ip6=ADDRESS,mac=ADDRESS,alias=NAME,ifname=NAME]",
                )
            };
            let twice = || invalid(format!("{option:?} is the second of its kind"));
            match option.split_once('=') {
                Some(("ip", value)) => {
                    if join.ip.replace(parse_ip(value)?).is_some() {
                        return Err(twice());
                    }
                }
                Some(("ip6", value)) => {
                    if join.ip6.replace(parse_ip6(value)?).is_some() {
                        return Err(twice());
                    }
                }
                Some(("mac", value)) => {
                    if join.mac.replace(parse_mac(value)?).is_some() {
                        return Err(twice());
                    }
                }
                Some((key, value)) if join.add_name(option, key, value)? => {}
                _ => {
                    return Err(invalid(format!(
                        "{option:?} is none of ip=…, ip6=…, mac=…, alias=… and ifname=…"
                    )));
                }
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
    /// Its IPv6; `None` for a network without.
    pub ipv6: Option<New6>,
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
    /// Take a box that runs into one.
    Connect {
        /// Which box.
        of: BoxRef,
        /// The network, and what the box is to have there.
        join: Join,
    },
    /// Take a box that runs out of one.
    Disconnect {
        /// Which box.
        of: BoxRef,
        /// The network.
        network: NetworkName,
    },
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
            ipv6: None,
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
        subnet::contradictions(self)
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
        let join: Join = "db:ip=10.9.0.7,ip6=fd09::7,mac=02:00:00:00:00:07".parse().unwrap();
        assert_eq!(
            (join.name.as_str(), join.ip, join.ip6, join.mac),
            ("db", "10.9.0.7".parse().ok(), "fd09::7".parse().ok(), Some([2, 0, 0, 0, 0, 7]))
        );
        assert_eq!("db".parse::<Join>().unwrap().ip, None);
        for bad in [
            "db:",
            "db:ip",
            "db:ip=x",
            "db:ip=10.9.0.7,ip=10.9.0.8",
            "db:port=7",
            ":ip=10.9.0.7",
            "db:ip6=10.9.0.7",
            "db:ip6=fd09::7,ip6=fd09::8",
        ] {
            assert_eq!(bad.parse::<Join>().unwrap_err().exit_status(), 2, "{bad}");
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
}
