//! Which network a box gets: `--net`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The network of a box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// Its own, behind netbox's router.
    #[default]
    Nat,
    /// Its own, with a loopback interface and nothing else.
    None,
    /// The host's.
    Host,
}

impl Net {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::None => "none",
            Self::Host => "host",
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
        [Self::Nat, Self::None, Self::Host].into_iter().find(|net| net.as_str() == text).ok_or_else(|| {
            Error::usage(format!("invalid network {text:?}")).because("the networks are nat, none and host")
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
            assert_eq!(serde_json::to_string(&net).unwrap(), format!("\"{net}\""));
        }
        for text in ["", "bridge", "default", "NAT", "nat ", "container:x"] {
            let error = text.parse::<Net>().unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.to_string().contains("nat, none and host"), "{error}");
        }
    }
}
