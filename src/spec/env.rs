//! What the command finds in its environment: `-e`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};

/// One `-e`. Names and values are bytes, as the kernel hands them over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSetting {
    /// `K=V`: set to this value, which may be empty.
    Set(OsString, OsString),
    /// `K`: copied from the caller's environment; nothing where the caller has none.
    Copy(OsString),
}

impl EnvSetting {
    /// Reads `K=V` or `K`. The first `=` separates, so that a value may contain others.
    ///
    /// # Errors
    /// When the name is empty.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let own = |bytes| OsStr::from_bytes(bytes).to_owned();
        match bytes.iter().position(|&byte| byte == b'=') {
            Some(0) => Err(invalid(text)),
            Some(end) => Ok(Self::Set(own(&bytes[..end]), own(&bytes[end + 1..]))),
            None if bytes.is_empty() => Err(invalid(text)),
            None => Ok(Self::Copy(text.to_owned())),
        }
    }
}

fn invalid(text: &OsStr) -> Error {
    Error::usage(format!("invalid environment variable {text:?}"))
        .because("it has no name")
        .hint("a variable is set with NAME=VALUE, and copied from the caller with NAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<EnvSetting> {
        EnvSetting::parse(OsStr::from_bytes(bytes))
    }

    #[test]
    fn settings() {
        let set = |k: &[u8], v: &[u8]| {
            Ok(EnvSetting::Set(OsStr::from_bytes(k).to_owned(), OsStr::from_bytes(v).to_owned()))
        };
        assert_eq!(parse(b"K=V"), set(b"K", b"V"));
        assert_eq!(parse(b"K="), set(b"K", b""));
        assert_eq!(parse(b"K=a=b"), set(b"K", b"a=b"));
        assert_eq!(parse(b"K==="), set(b"K", b"=="));
        assert_eq!(parse(b"K\xff=\xfe\n"), set(b"K\xff", b"\xfe\n"));
        assert_eq!(parse(b"-x=1"), set(b"-x", b"1"));
        assert_eq!(parse(b"HOME"), Ok(EnvSetting::Copy("HOME".into())));
        for bad in [&b""[..], b"=", b"=V"] {
            assert_eq!(parse(bad).unwrap_err().exit_status(), 2);
        }
    }
}
