//! Which part of a JSON value is wanted: a JSON pointer (RFC 6901).

use std::fmt;

use crate::error::{Error, Result};

/// A JSON pointer, as in `/0/addresses/ipv4`. The empty one is the whole value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPointer(String);

impl JsonPointer {
    /// Reads one (RFC 6901, section 3): what it points to need not be there.
    ///
    /// # Errors
    /// When it is neither empty nor starts with '/', or has a '~' that stands for nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |cause: &str| {
            Err(Error::usage(format!("invalid JSON pointer {text:?}"))
                .because(cause)
                .hint("a name or a number after each '/': /0/addresses/ipv4"))
        };
        if !text.is_empty() && !text.starts_with('/') {
            return wrong("it does not start with '/'");
        }
        if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return wrong("after '~' comes 0, for a '~', or 1, for a '/'");
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_that_of_the_rfc() {
        for text in ["", "/", "/0/addresses/ipv4", "/a~0b~1c", "//", "/ä b"] {
            assert_eq!(JsonPointer::parse(text).unwrap().as_str(), text);
        }
        for text in ["0", ".addresses", "{{.Id}}", "/a~", "/~2", "/a~/b", "#/0"] {
            let error = JsonPointer::parse(text).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
