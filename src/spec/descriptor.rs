//! Numbers of open files: `--keep-fd`, `--json-status-fd`.

use crate::error::{Error, Result};

/// Reads the number of a descriptor.
///
/// # Errors
/// When it is none.
pub fn parse(text: &str) -> Result<i32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        Error::usage(format!("invalid file descriptor {text:?}")).because("it is a number from 0 on")
    })
}

/// Reads the number of a descriptor that is not one of the command's standard ones.
///
/// # Errors
/// When it is none.
pub fn parse_own(text: &str) -> Result<i32> {
    match parse(text)? {
        0..=2 => Err(Error::usage(format!("invalid file descriptor {text:?} for --json-status-fd"))
            .because("0, 1 and 2 are the command's")
            .hint("3>status.json netbox run --json-status-fd 3 …")),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!((parse("0"), parse("3"), parse("2147483647")), (Ok(0), Ok(3), Ok(i32::MAX)));
        for text in ["", "-1", "+1", "3,4", "2147483648", "x"] {
            assert_eq!(parse(text).unwrap_err().exit_status(), 2, "{text:?}");
        }
        assert_eq!(parse_own("3"), Ok(3));
        assert_eq!(parse_own("2").unwrap_err().exit_status(), 2);
    }
}
