//! Network namespaces that have names: ip-netns(8).

use std::fmt;

use crate::error::{Error, Result};

/// The longest name of a file (limits.h).
const NAME_MAX: usize = 255;

/// The name of a network namespace, which is that of a file in /run/netns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsName(String);

impl NetnsName {
    /// Reads one. ip(8) takes any that can be a file's (`invalid_name` of iproute2's lib/utils.c); here it must also be
    /// fit to be printed.
    ///
    /// # Errors
    /// When it is not one (exit 2).
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = match text {
            "" => "it is empty",
            "." | ".." => "it is that of a directory",
            _ if text.contains('/') => "it contains a slash",
            _ if text.chars().any(char::is_control) => "it contains a control character",
            _ if text.len() > NAME_MAX => "it is longer than 255 bytes",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(Error::usage(format!("invalid name {text:?} for a network namespace")).because(wrong))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Under which name ip-netns(8) sees the network of a box: `--export-netns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// That of the box, which is its id where it has none.
    OfBox,
    /// This one.
    As(NetnsName),
}

impl Export {
    /// Reads the option's value, which may be missing.
    ///
    /// # Errors
    /// As [`NetnsName::parse`].
    pub fn parse(text: Option<&str>) -> Result<Self> {
        text.map_or(Ok(Self::OfBox), |text| NetnsName::parse(text).map(Self::As))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_ip_takes_and_can_be_printed() {
        for good in ["blue", "a b", "-x", "...", "\u{e9}", &"n".repeat(255)] {
            assert_eq!(NetnsName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "/run/netns/a", "a\nb", "\x1b[2J", &"n".repeat(256)] {
            let error = NetnsName::parse(bad).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{bad:?}");
        }
        assert_eq!(Export::parse(None), Ok(Export::OfBox));
        assert!(Export::parse(Some("")).is_err());
    }
}
