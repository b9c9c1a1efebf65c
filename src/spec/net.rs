//! Which network a box gets: `--net`.

use std::fmt;
use std::str::FromStr;

use super::network::Join;
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
    /// One that it shares with other boxes, behind netbox's router.
    Network(Join),
}

impl Net {
    /// The word for it, or its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nat => "nat",
            Self::None => "none",
            Self::Host => "host",
            Self::Network(join) => join.name.as_str(),
        }
    }

    /// Whether a box in it hangs off the gateway.
    #[must_use]
    pub const fn is_behind_gateway(&self) -> bool {
        matches!(self, Self::Nat | Self::Network(_))
    }

    /// The network that has a name.
    #[must_use]
    pub const fn network(&self) -> Option<&Join> {
        match self {
            Self::Network(join) => Some(join),
            Self::Nat | Self::None | Self::Host => None,
        }
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
        let word = [Self::Nat, Self::None, Self::Host].into_iter().find(|net| net.as_str() == text);
        word.map_or_else(|| text.parse().map(Self::Network), Ok).map_err(|error: Error| {
            match error.remedy() {
                Some(_) => error,
                None => error.hint("the networks are nat, none and host, and those of `netbox network ls`"),
            }
        })
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
        for text in ["", "default", "NAT", "nat ", "container:x", "nat:ip=10.0.0.7"] {
            let error = text.parse::<Net>().unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.remedy().is_some(), "{error}");
        }
    }
}
