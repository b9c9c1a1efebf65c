//! Which network a box gets: `--net`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::joins::Joins;
use super::netns::NetnsName;
use super::network::Join;
use super::reference::BoxRef;
use crate::error::{Error, Result};

/// The network of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Net {
    /// Its own, behind netbox's router.
    #[default]
    Nat,
    /// Its own, with a loopback interface and nothing else.
    None,
    /// The host's.
    Host,
    /// That of a network namespace that is there, as it is.
    Netns(NetnsRef),
    /// That of another box.
    Box(OtherBox),
    /// Some that it shares with other boxes, behind netbox's router.
    Networks(Joins),
}

impl Net {
    /// The word for it, or its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nat => "nat",
            Self::None => "none",
            Self::Host => "host",
            Self::Networks(joins) => joins.as_str(),
            Self::Netns(netns) => &netns.word,
            Self::Box(other) => &other.word,
        }
    }

    /// What several `--net` say together.
    ///
    /// # Errors
    /// As [`Joins::several`].
    pub fn of(nets: &[Self]) -> Result<Self> {
        match nets {
            [] => Ok(Self::default()),
            [one] => Ok(one.clone()),
            several => Joins::several(several.to_vec()).map(Self::Networks),
        }
    }

    /// The networks with names, each with the number of the box's link that leads there.
    pub fn links(&self) -> impl Iterator<Item = (u32, &Join)> {
        let joins = if let Self::Networks(joins) = self { Some(joins) } else { None };
        joins.into_iter().flat_map(Joins::links)
    }

    /// How many links a box has to the gateway.
    #[must_use]
    pub fn count_links(&self) -> usize {
        match self {
            Self::Nat => 1,
            Self::Networks(joins) => joins.count(),
            Self::None | Self::Host | Self::Netns(_) | Self::Box(_) => 0,
        }
    }

    /// The network with a name that the box's way out leads through.
    #[must_use]
    pub fn way_out(&self) -> Option<&Join> {
        if let Self::Networks(joins) = self { joins.way_out() } else { None }
    }

    /// Whether a box in it hangs off the gateway.
    #[must_use]
    pub const fn is_behind_gateway(&self) -> bool {
        matches!(self, Self::Nat | Self::Networks(_))
    }

    /// Whether it is made for the box.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self, Self::Nat | Self::None | Self::Networks(_))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(netns) = text.strip_prefix("netns:") {
            return NetnsRef::parse(netns).map(Self::Netns);
        }
        // As in Docker.
        if let Some(other) = text.strip_prefix("box:").or_else(|| text.strip_prefix("container:")) {
            return OtherBox::parse(other).map(Self::Box);
        }
        let word = [Self::Nat, Self::None, Self::Host].into_iter().find(|net| net.as_str() == text);
        word.map_or_else(|| text.parse().map(|join| Self::Networks(Joins::one(join))), Ok).map_err(|error: Error| {
            match error.remedy() {
                Some(_) => error,
                None => error.hint(
                    "the networks are nat, none and host, those of `netbox network ls`, another box's (box:NAME), and one that is there (netns:NAME, netns:PATH)",
                ),
            }
        })
    }
}

/// A network namespace that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsRef {
    word: String,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Name(NetnsName),
    Path(PathBuf),
}

impl NetnsRef {
    /// Reads a name of ip-netns(8), or a path, which has a slash in it.
    ///
    /// # Errors
    /// As [`NetnsName::parse`].
    fn parse(text: &str) -> Result<Self> {
        let which = match text.contains('/') && !text.chars().any(char::is_control) {
            true => Which::Path(text.into()),
            false => Which::Name(NetnsName::parse(text)?),
        };
        Ok(Self { word: format!("netns:{text}"), which })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.which {
            Which::Name(name) => format!("/run/netns/{name}").into(),
            Which::Path(path) => path.clone(),
        }
    }

    /// Its name, where that is how it was named.
    #[must_use]
    pub const fn name(&self) -> Option<&NetnsName> {
        match &self.which {
            Which::Name(name) => Some(name),
            Which::Path(_) => None,
        }
    }
}

/// Another box, whose network is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherBox {
    word: String,
    /// Which.
    pub reference: BoxRef,
}

impl OtherBox {
    fn parse(text: &str) -> Result<Self> {
        Ok(Self { word: format!("box:{text}"), reference: BoxRef::parse(text)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for net in [Net::Nat, Net::None, Net::Host] {
            assert_eq!(net.to_string().parse(), Ok(net));
        }
        let named: Net = "bridge".parse().unwrap();
        assert_eq!((named.as_str(), named.is_behind_gateway()), ("bridge", true));
        for text in ["", "default", "NAT", "nat ", "nat:ip=10.0.0.7"] {
            let error = text.parse::<Net>().unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.remedy().is_some(), "{error}");
        }
    }

    #[test]
    fn a_namespace_is_named_as_ip_does_or_by_a_path() {
        let of = |text: &str| match text.parse::<Net>() {
            Ok(Net::Netns(netns)) => Ok((netns.path(), netns.name().is_some())),
            Ok(other) => panic!("{other}"),
            Err(error) => Err(error.exit_status()),
        };
        assert_eq!(of("netns:blue"), Ok(("/run/netns/blue".into(), true)));
        assert_eq!(of("netns:/proc/7/ns/net"), Ok(("/proc/7/ns/net".into(), false)));
        assert_eq!(of("netns:./blue"), Ok(("./blue".into(), false)));
        assert_eq!("netns:a b".parse::<Net>().unwrap().to_string(), "netns:a b");
        for bad in ["netns:", "netns:..", "netns:a\nb", "netns:/a\x1bb"] {
            assert_eq!(of(bad), Err(2), "{bad:?}");
        }
    }

    #[test]
    fn another_box_is_named_as_everywhere() {
        for text in ["box:web", "container:web"] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), "box:web");
        }
        for bad in ["box:", "box:a/b", "container:"] {
            assert_eq!(bad.parse::<Net>().unwrap_err().exit_status(), 2);
        }
    }
}
