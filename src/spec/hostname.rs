//! The host name of a box: `--hostname`.

use std::fmt;

use crate::error::{Error, Result};

/// The longest name that the kernel keeps (`__NEW_UTS_LEN`, uname(2)).
const LONGEST: usize = 64;
/// The longest label (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;

/// A name in the form of RFC 1123 §2.1: labels of letters, digits and hyphens, separated by dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// Reads a name.
    ///
    /// # Errors
    /// When it has not that form, or is longer than the kernel keeps.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Err(Error::usage(format!("invalid host name {text:?}")).because(cause));
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > LONGEST {
            return wrong("it is longer than 64 characters");
        }
        for label in text.split('.') {
            let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !plain {
                return wrong("it is made of letters, digits, hyphens and dots (RFC 1123)");
            }
            if label.is_empty() {
                return wrong("between dots, and at both ends, is at least one letter or digit");
            }
            if label.len() > LONGEST_LABEL {
                return wrong("a part between dots is longer than 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return wrong("a part between dots neither starts nor ends with a hyphen");
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Hostname;

    #[test]
    fn host_names() {
        let label = "a".repeat(63);
        for text in ["web", "Web-1", "3com", "a.example.org", "1.2.3.4", "x", label.as_str()] {
            assert_eq!(Hostname::parse(text).unwrap().as_str(), text);
        }
        let (long_label, long) = ("a".repeat(64), format!("{}.{}", "a".repeat(32), "b".repeat(32)));
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "a_b",
            "a b",
            "a\n",
            "ä",
            "a/b",
            "a\0",
            &long_label,
            &long,
        ] {
            assert_eq!(Hostname::parse(text).unwrap_err().exit_status(), 2, "{text:?}");
        }
    }
}
