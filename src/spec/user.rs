//! Who the command runs as: `-u USER[:GROUP]`.

use std::str::FromStr;

use crate::error::{Error, Result};

/// A user and, where given, a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The user.
    pub user: UserRef,
    /// The group; `None` for the user's own groups.
    pub group: Option<GroupRef>,
}

/// A user, by name or by number. What is all digits is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// The name.
    Name(String),
    /// The uid.
    Id(u32),
}

/// A group, by name or by number. What is all digits is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRef {
    /// The name.
    Name(String),
    /// The gid.
    Id(u32),
}

impl FromStr for UserSpec {
    type Err = Error;

    /// As Docker does, `USER:` is taken for `USER`.
    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let parsed = (|| {
            let user = match reference(user, "user")? {
                Reference::Name(name) => UserRef::Name(name),
                Reference::Id(id) => UserRef::Id(id),
            };
            let group = match group {
                "" => None,
                group => Some(match reference(group, "group")? {
                    Reference::Name(name) => GroupRef::Name(name),
                    Reference::Id(id) => GroupRef::Id(id),
                }),
            };
            Ok(Self { user, group })
        })();
        parsed.map_err(|cause: String| {
            Error::usage(format!("invalid user {text:?}"))
                .because(cause)
                .hint("a user is given as USER[:GROUP], each a name or a number")
        })
    }
}

enum Reference {
    Name(String),
    Id(u32),
}

fn reference(text: &str, what: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err(format!("it names no {what}"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number is -1, which setresuid(2) takes for "leave as it is".
        return match text.parse() {
            Ok(id) if id != u32::MAX => Ok(Reference::Id(id)),
            _ => Err(format!("{what} numbers end at {}", u32::MAX - 1)),
        };
    }
    // What could never stand in a line of passwd(5) or group(5), and what was meant as an option.
    if text.starts_with('-') || text.contains(|c: char| c == ':' || c.is_control()) {
        return Err(format!("{text:?} cannot be a {what}"));
    }
    Ok(Reference::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let name = |name: &str| UserRef::Name(name.to_owned());
        for (text, user, group) in [
            ("alice", name("alice"), None),
            ("alice:", name("alice"), None),
            ("alice:staff", name("alice"), Some(GroupRef::Name("staff".to_owned()))),
            ("alice:50", name("alice"), Some(GroupRef::Id(50))),
            ("0", UserRef::Id(0), None),
            ("1000:1000", UserRef::Id(1000), Some(GroupRef::Id(1000))),
            ("4294967294", UserRef::Id(u32::MAX - 1), None),
            ("1000x", name("1000x"), None),
            ("DOMAIN\\al ice$", name("DOMAIN\\al ice$"), None),
        ] {
            assert_eq!(text.parse(), Ok(UserSpec { user, group }), "{text}");
        }
    }

    #[test]
    fn what_is_no_user() {
        for text in
            ["", ":", ":staff", "-1", "1000:-1", "4294967295", "0:4294967295", "99999999999", "a:b:c", "a\nb"]
        {
            let error = text.parse::<UserSpec>().unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text:?}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
