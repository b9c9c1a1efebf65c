//! What a box is called: by netbox (its id) and by its user (its name).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// RFC 4648 base32 in lower case: no digit that could be read as a letter.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The length of a [`BoxId`] in characters. With the `nb` in front it fits an interface name (15 bytes).
const ID_LENGTH: usize = 8;

/// The longest [`BoxName`] in bytes: that of a DNS label (RFC 1035 §2.3.4), since a name is also a host name.
const NAME_MAX: usize = 63;

/// The id that netbox gives a box: 40 random bits as 8 characters of `a-z2-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxId([u8; ID_LENGTH]);

impl BoxId {
    /// The id made of these random bytes, five bits to a character, the first bits first.
    #[must_use]
    pub fn from_random(random: [u8; 5]) -> Self {
        let bits = random.into_iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(byte));
        let mut id = [0; ID_LENGTH];
        for (place, character) in id.iter_mut().rev().enumerate() {
            // Masked to 0..32, so neither the index nor the conversion can go wrong.
            let digit = usize::try_from(bits >> (5 * place) & 31).unwrap_or_default();
            *character = ALPHABET[digit];
        }
        Self(id)
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When it is not 8 characters of `a-z2-7`.
    pub fn parse(text: &str) -> Result<Self> {
        match <[u8; ID_LENGTH]>::try_from(text.as_bytes()) {
            Ok(id) if id.iter().all(|byte| ALPHABET.contains(byte)) => Ok(Self(id)),
            _ => Err(Error::usage(format!("invalid box id {text:?}"))
                .because(format_args!("an id is {ID_LENGTH} characters of a-z and 2-7"))),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII by construction.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The name that a user gives a box: `[a-zA-Z0-9][a-zA-Z0-9_.-]*` as in Docker, at most 63 characters.
///
/// It can be a file name and a host name, and is never taken for an option or a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxName(String);

impl BoxName {
    /// Reads a name.
    ///
    /// # Errors
    /// When it breaks the rule, saying in which way.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |cause: &str| Err(Error::usage(format!("invalid box name {text:?}")).because(cause));
        let Some(first) = text.bytes().next() else {
            return refuse("it is empty");
        };
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            return refuse("only a-z, A-Z, 0-9, '_', '.' and '-' may be in it");
        }
        if !first.is_ascii_alphanumeric() {
            return refuse("it must start with a letter or a digit");
        }
        if text.len() > NAME_MAX {
            return refuse(&format!("it has {} characters, and {NAME_MAX} are the most", text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }
    };
}

text!(BoxId);
text!(BoxName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forty_bits_in_base32() {
        for (random, id) in [
            ([0; 5], "aaaaaaaa"),
            ([0xff; 5], "77777777"),
            ([0, 0, 0, 0, 1], "aaaaaaab"),
            ([0x80, 0, 0, 0, 0], "qaaaaaaa"),
            // RFC 4648 §10: BASE32("fooba") = "MZXW6YTB".
            (*b"fooba", "mzxw6ytb"),
        ] {
            assert_eq!(BoxId::from_random(random).to_string(), id);
            assert_eq!(BoxId::parse(id).unwrap(), BoxId::from_random(random));
        }
    }

    #[test]
    fn what_is_no_id() {
        for text in ["", "aaaaaaa", "aaaaaaaaa", "AAAAAAAA", "aaaaaaa1", "aaaa/aaa", "äaaaaaa", "../aaaaa"] {
            assert!(BoxId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names() {
        for text in ["a", "7", "web", "Web-1", "a.b_c-d", "0..", &"x".repeat(63)] {
            assert_eq!(BoxName::parse(text).unwrap().as_str(), text);
        }
        for (text, cause) in [
            ("", "it is empty"),
            ("-rf", "it must start with"),
            (".", "it must start with"),
            ("..", "it must start with"),
            ("_x", "it must start with"),
            ("../x", "only a-z"),
            ("a/b", "only a-z"),
            ("a b", "only a-z"),
            ("a\n", "only a-z"),
            ("a\0", "only a-z"),
            ("🦀", "only a-z"),
            ("é", "only a-z"),
            (&"x".repeat(64), "it has 64 characters"),
        ] {
            let error = BoxName::parse(text).unwrap_err();
            assert_eq!(error.exit_status(), 2);
            assert!(error.to_string().contains(cause), "{error}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_stored_name_is_checked_when_it_is_read() {
        let name: BoxName = serde_json::from_str(r#""web""#).unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""web""#);
        let id: BoxId = serde_json::from_str(r#""mzxw6ytb""#).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""mzxw6ytb""#);
        assert!(serde_json::from_str::<BoxName>(r#""../x""#).is_err());
        assert!(serde_json::from_str::<BoxId>(r#""../x""#).is_err());
    }
}
