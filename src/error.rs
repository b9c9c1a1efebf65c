//! What can go wrong, in the words of the user: what failed, on which object, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of anything that a user may have to be told about.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which exit status a failure has (promise R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command line was wrong: exit 2.
    Usage,
    /// netbox itself failed: exit 125.
    Failure,
    /// The command was found but could not be executed: exit 126.
    NotExecutable,
    /// The command was not found: exit 127.
    NotFound,
}

impl Kind {
    /// The exit status of the kind.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Failure => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }
}

/// A failure as the user reads it: `what: cause`, and on a second line `hint: …`.
///
/// Serializable, because most failures happen in the keeper or in the box's first process and are
/// told by the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    what: String,
    cause: Option<String>,
    errno: Option<i32>,
    hint: Option<String>,
}

impl Error {
    /// A failure of netbox itself (exit 125). `what` names the step and its object, in lower case, no full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, what: what.into(), cause: None, errno: None, hint: None }
    }

    /// A wrong command line (exit 2).
    pub fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    /// The same failure with another exit status.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same failure, with the reason why.
    #[must_use]
    pub fn because(self, cause: impl fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    /// The same failure, with the reason that the kernel gave. The number stays inside for callers that decide by it.
    #[must_use]
    pub fn os(self, error: &std::io::Error) -> Self {
        let words = match error.raw_os_error() {
            Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
            None => error.to_string(),
        };
        Self { cause: Some(words), errno: error.raw_os_error(), ..self }
    }

    /// The same failure, with what the user can do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The exit status that netbox ends with when this failure ends it.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        self.kind.exit_status()
    }

    /// The kernel's error number, where the kernel gave one.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// What the user can do, where netbox knows.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds the step and its object to an error of the operating system.
pub trait Context<T> {
    /// Turns `Err(e)` into `what: e`. `what` is computed for failures only.
    ///
    /// # Errors
    /// Exactly when `self` is one.
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Error::new(what()).os(&error))
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|errno| Error::new(what()).os(&errno.into()))
    }
}
