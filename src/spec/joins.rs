//! The networks that one box is in: `--net` given more than once.

use std::collections::BTreeMap;
use std::fmt;

use super::name::BoxName;
use super::net::Net;
use super::network::Join;
use crate::error::{Error, Result};

/// How many links a box can have, and so how many networks it can be in.
pub const MOST_LINKS: u32 = 16;

/// How many further names a box can have in a network.
pub const MOST_ALIASES: usize = 16;

/// The longest name of an interface in bytes: IFNAMSIZ of linux/if.h, less the byte that ends it.
const LONGEST_INTERFACE: usize = 15;

/// The networks with names that a box is in, in the order of its links; before them the one of its own, where it has that too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joins {
    with_nat: bool,
    networks: Vec<Join>,
    word: String,
}

impl Joins {
    /// Those of one network.
    #[must_use]
    pub fn one(join: Join) -> Self {
        Self { with_nat: false, word: join.name.to_string(), networks: vec![join] }
    }

    /// Those of several `--net`, where there is more than one.
    ///
    /// # Errors
    /// Two that cannot be had at once, naming both (exit 2).
    pub fn several(nets: Vec<Net>) -> Result<Self> {
        let contradict = |one: &Net, other: &Net, cause: &str| {
            Error::usage(format!("--net {one} and --net {other} contradict each other")).because(cause)
        };
        for (place, net) in nets.iter().enumerate() {
            let other =
                nets.iter().enumerate().find(|(other, _)| *other != place).map_or(net, |(_, net)| net);
            match net {
                Net::None => return Err(contradict(net, other, "a box of the first has no link")),
                Net::Host | Net::Netns(_) | Net::Box(_) => {
                    return Err(contradict(
                        net,
                        other,
                        "the network of the first is not the box's, and taken as it is",
                    ));
                }
                Net::Nat if place > 0 => {
                    return Err(contradict(other, net, "nat is the box's way out, and so the first")
                        .hint("--net nat --net NETWORK"));
                }
                Net::Nat | Net::Networks(_) => {}
            }
        }
        let with_nat = nets.first().is_some_and(|net| *net == Net::Nat);
        let word = nets.iter().map(Net::as_str).collect::<Vec<_>>().join(",");
        let of = |net| if let Net::Networks(joins) = net { joins.networks } else { Vec::new() };
        let joins = Self { with_nat, networks: nets.into_iter().flat_map(of).collect(), word };
        joins.check()?;
        Ok(joins)
    }

    /// Refuses what two of them cannot both have.
    fn check(&self) -> Result<()> {
        if self.count() > MOST_LINKS as usize {
            return Err(
                Error::usage("too many --net").because(format!("a box is in {MOST_LINKS} networks at most"))
            );
        }
        let mut names = BTreeMap::new();
        let mut interfaces = BTreeMap::new();
        if self.with_nat {
            interfaces.insert(eth(0), "nat");
        }
        for (link, join) in self.links() {
            let name = join.name.as_str();
            if names.insert(&join.name, ()).is_some() {
                return Err(Error::usage(format!("--net {name} and --net {name} contradict each other"))
                    .because("a box is in a network once"));
            }
            let interface = join.interface_at(link);
            if let Some(other) = interfaces.insert(interface.clone(), name) {
                return Err(Error::usage(format!("--net {other} and --net {name} contradict each other"))
                    .because(format!("the box would have two interfaces {interface}"))
                    .hint(
                        "choose others with ifname=…; without it they are eth0, eth1, … in the order given",
                    ));
            }
        }
        Ok(())
    }

    /// What `--net` said, by names.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.word
    }

    /// The networks with names, each with the number of the box's link that leads there.
    pub fn links(&self) -> impl Iterator<Item = (u32, &Join)> {
        (u32::from(self.with_nat)..).zip(&self.networks)
    }

    /// How many links they take.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.networks.len() + self.with_nat as usize
    }

    /// The network that the box's way out leads through, where that is not a link of its own.
    #[must_use]
    pub fn way_out(&self) -> Option<&Join> {
        self.networks.first().filter(|_| !self.with_nat)
    }
}

impl Join {
    /// The name of the box's interface there, where its link has this number.
    #[must_use]
    pub fn interface_at(&self, link: u32) -> String {
        self.interface.clone().unwrap_or_else(|| eth(link))
    }

    /// The name of the interface of a box that joins later, and has interfaces of these names: the one that was asked for, or the
    /// first of eth1, eth2 and so on that is free.
    ///
    /// # Errors
    /// The one that was asked for, where it is among them.
    pub fn free_interface(&self, taken: &[&str]) -> Result<String, String> {
        let is_free = |name: &String| !taken.contains(&name.as_str());
        match self.interface.clone() {
            Some(name) => Some(name.clone()).filter(is_free).ok_or(name),
            // One more than there are links is enough.
            None => (1..=MOST_LINKS).map(eth).find(is_free).ok_or_else(|| eth(MOST_LINKS)),
        }
    }

    /// Adds one of the options after a network's name. `false`: there is no such option.
    ///
    /// # Errors
    /// A value that cannot be; a second one where there is but one.
    pub(super) fn add_name(&mut self, option: &str, key: &str, value: &str) -> Result<bool> {
        let refuse =
            |cause: String| Error::usage(format!("invalid option {option:?} of a network")).because(cause);
        match key {
            "alias" => self.add_alias(value)?,
            "ifname" => {
                if self.interface.replace(parse_interface(value)?).is_some() {
                    return Err(refuse("it is the second of its kind".to_owned()));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Join {
    /// Adds a further name that the network's other boxes find the box by.
    ///
    /// # Errors
    /// When no box could have it, or there are too many (exit 2).
    pub fn add_alias(&mut self, text: &str) -> Result<()> {
        let refuse = |cause: String| Error::usage(format!("invalid alias {text:?}")).because(cause);
        let name = BoxName::parse(text).map_err(|error| {
            let cause = error.to_string();
            refuse(cause.split_once(": ").map_or(cause.as_str(), |(_, cause)| cause).to_owned())
        })?;
        if self.aliases.contains(&name) {
            return Ok(());
        }
        if self.aliases.len() == MOST_ALIASES {
            return Err(refuse(format!("a box has {MOST_ALIASES} further names in a network at most")));
        }
        self.aliases.push(name);
        Ok(())
    }
}

/// Reads the name of an interface of a box.
///
/// # Errors
/// When the kernel would not take it (`dev_valid_name` of net/core/dev.c), or it has another meaning there or here (exit 2).
pub fn parse_interface(text: &str) -> Result<String> {
    let wrong = match text {
        "" => "it is empty",
        "lo" => "it is that of the loopback interface",
        "." | ".." | "all" | "default" => "it would be no name in /proc/sys/net",
        _ if text.len() > LONGEST_INTERFACE => "it is longer than 15 bytes",
        _ if text.contains(['/', ':', '%']) => "it contains a slash, a colon or a percent sign",
        // It would be another option of the network's from there on.
        _ if text.contains(',') => "it contains a comma",
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "it contains what is neither a letter, a digit nor a sign"
        }
        _ => return Ok(text.to_owned()),
    };
    Err(Error::usage(format!("invalid name {text:?} for an interface")).because(wrong))
}

/// The name of one of a box's interfaces, where nobody calls it otherwise.
#[must_use]
pub fn eth(link: u32) -> String {
    format!("eth{link}")
}

/// As it is read.
impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let of = |key: &str, value: String| format!("{key}={value}");
        let options = [
            self.ip.map(|ip| of("ip", ip.to_string())),
            self.ip6.map(|ip| of("ip6", ip.to_string())),
            self.mac.map(|own| of("mac", mac(own))),
            self.interface.clone().map(|name| of("ifname", name)),
        ];
        let aliases = self.aliases.iter().map(|alias| of("alias", alias.to_string()));
        let options: Vec<_> = options.into_iter().flatten().chain(aliases).collect();
        match options.is_empty() {
            true => self.name.fmt(f),
            false => write!(f, "{}:{}", self.name, options.join(",")),
        }
    }
}

impl fmt::Display for Joins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn several(texts: &[&str]) -> Result<Net> {
        Net::of(&texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>>>()?)
    }

    #[test]
    fn links_are_counted_in_the_order_given() {
        let net = several(&["front", "db:alias=store,alias=sql,ifname=lan0"]).unwrap();
        assert_eq!(net.as_str(), "front,db");
        assert_eq!(net.way_out().unwrap().name.as_str(), "front");
        let links: Vec<_> = net.links().map(|(link, join)| (link, join.interface_at(link))).collect();
        assert_eq!(links, [(0, "eth0".to_owned()), (1, "lan0".to_owned())]);
        let net = several(&["nat", "db"]).unwrap();
        assert_eq!((net.as_str(), net.way_out(), net.links().next().unwrap().0), ("nat,db", None, 1));
        assert_eq!(several(&["nat"]), Ok(Net::Nat));
    }

    #[test]
    fn a_join_is_written_as_it_is_read() {
        for text in
            ["db", "db:ip=10.9.0.7,ip6=fd09::7,mac=02:00:00:00:00:07,ifname=lan0,alias=store,alias=sql"]
        {
            assert_eq!(text.parse::<Join>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_had_at_once_is_refused_naming_both() {
        for (nets, words) in [
            (&["none", "db"][..], ["--net none", "--net db"]),
            (&["db", "host"], ["--net host", "--net db"]),
            (&["db", "box:web"], ["--net box:web", "--net db"]),
            (&["netns:x", "db"], ["--net netns:x", "--net db"]),
            (&["db", "nat"], ["--net db", "--net nat"]),
            (&["nat", "nat"], ["--net nat", "--net nat"]),
            (&["db", "web", "db"], ["--net db", "--net db"]),
            (&["web", "db:ifname=eth0"], ["--net web", "--net db"]),
            (&["web:ifname=x", "db:ifname=x"], ["--net web", "--net db"]),
            (&["nat", "db:ifname=eth0"], ["--net nat", "--net db"]),
        ] {
            let error = several(nets).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{nets:?}");
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
        let names: Vec<_> = (0..17).map(|number| format!("n{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(several(&names).unwrap_err().exit_status(), 2);
        assert!(several(&names[..16]).is_ok());
    }

    #[test]
    fn who_joins_later_gets_the_first_interface_that_is_free() {
        let of = |text: &str, taken: &[&str]| text.parse::<Join>().unwrap().free_interface(taken);
        assert_eq!(of("db", &["eth0"]), Ok("eth1".to_owned()));
        // Those of its links are called what their users like.
        assert_eq!(of("db", &["lan0"]), Ok("eth1".to_owned()));
        assert_eq!(of("db", &["eth0", "eth2"]), Ok("eth1".to_owned()));
        assert_eq!(of("db", &["eth2", "eth1", "eth0"]), Ok("eth3".to_owned()));
        assert_eq!(of("db:ifname=lan0", &["eth0"]), Ok("lan0".to_owned()));
        assert_eq!(of("db:ifname=eth0", &["eth0"]), Err("eth0".to_owned()));
    }

    #[test]
    fn interfaces_are_called_what_the_kernel_takes() {
        for good in ["eth0", "lan-0.7", "a", "123456789012345", "eth1"] {
            assert_eq!(parse_interface(good).unwrap(), good);
        }
        for bad in
            ["", "lo", ".", "..", "all", "a b", "a/b", "a:b", "a,b", "e%d", "1234567890123456", "ä", "a\n"]
        {
            assert_eq!(parse_interface(bad).unwrap_err().exit_status(), 2, "{bad:?}");
        }
        for bad in ["db:ifname=a,ifname=b", "db:alias=", "db:alias=a b", "db:ifname=lo", "db:alias=-x"] {
            assert_eq!(bad.parse::<Join>().unwrap_err().exit_status(), 2, "{bad}");
        }
    }
}
