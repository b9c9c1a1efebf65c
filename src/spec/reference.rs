//! What a user types where a command asks for a box.

use std::fmt;

use super::name::{BoxId, BoxName};
use crate::error::{Error, Result};

/// The name of a box, its id, or the beginning of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxRef(String);

impl BoxRef {
    /// Reads what can be the name or the id of a box: every id and every beginning of one has the form of a name.
    ///
    /// # Errors
    /// As [`BoxName::parse`].
    pub fn parse(text: &str) -> Result<Self> {
        BoxName::parse(text).map(|name| Self(name.as_str().to_owned()))
    }

    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of `ids` is meant, where no box has that name: the one that it is, else the only one that begins so.
    ///
    /// # Errors
    /// When no box has such an id, or several have.
    pub fn among<'a>(&self, ids: &'a [BoxId]) -> Result<&'a BoxId> {
        if let Some(id) = ids.iter().find(|id| id.as_str() == self.0) {
            return Ok(id);
        }
        let mut fitting: Vec<_> = ids.iter().filter(|id| id.as_str().starts_with(&self.0)).collect();
        fitting.sort_unstable();
        match fitting[..] {
            [id] => Ok(id),
            [] => Err(self.unknown()),
            [a, b, ..] => Err(Error::new(format!("cannot tell which box {self} is"))
                .because(format!("{} ids begin so, {a} and {b} among them", fitting.len()))
                .hint("give its name, or more of the id")),
        }
    }

    /// There is no such box.
    #[must_use]
    pub fn unknown(&self) -> Error {
        Error::new(format!("there is no box {self}")).hint("`netbox ps` lists the boxes")
    }
}

impl fmt::Display for BoxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which boxes a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These, at least one.
    Named(Vec<BoxRef>),
    /// Every box that lives.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<BoxId> {
        ["abcdefgh", "abczzzzz", "qqqqqqqq"].iter().map(|id| BoxId::parse(id).unwrap()).collect()
    }

    fn which(text: &str) -> Result<String> {
        BoxRef::parse(text)?.among(&ids()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn an_id_or_as_much_of_it_as_is_unambiguous_names_a_box() {
        assert_eq!(which("abcdefgh").unwrap(), "abcdefgh");
        assert_eq!(which("abcz").unwrap(), "abczzzzz");
        assert_eq!(which("q").unwrap(), "qqqqqqqq");
    }

    #[test]
    fn the_beginning_of_several_ids_is_refused_with_two_of_them() {
        let error = which("abc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot tell which box abc is: 2 ids begin so, abcdefgh and abczzzzz among them"
        );
        assert_eq!(error.exit_status(), 125);
    }

    #[test]
    fn who_is_no_box_is_no_failure_of_the_command_line_but_what_can_be_no_name_is() {
        assert_eq!(which("web").unwrap_err().to_string(), "there is no box web");
        assert_eq!(which("web").unwrap_err().exit_status(), 125);
        for bad in ["", "-x", "a/b", "a b", "\u{e9}", "../../x"] {
            assert_eq!(BoxRef::parse(bad).unwrap_err().exit_status(), 2, "{bad}");
        }
    }
}
