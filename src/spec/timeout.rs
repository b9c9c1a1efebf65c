//! How long a command may run: `--timeout`.

use std::time::Duration;

use crate::error::{Error, Result};

/// 68 years: what fits every clock.
const LONGEST: Duration = Duration::from_secs(i32::MAX as u64);

/// Reads a time span: a number of seconds, or numbers with units, as in `500ms` and `1h30m`.
///
/// # Errors
/// When it is neither, zero, or longer than a lifetime.
pub fn parse(text: &str) -> Result<Duration> {
    let wrong = |cause: &str| {
        Error::usage(format!("invalid duration {text:?} for --timeout"))
            .because(cause)
            .hint("a number of seconds, or numbers with units: 500ms, 30s, 1h30m")
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let duration = if is_number {
        text.parse().map(Duration::from_secs).map_err(|_| wrong("it is too long"))?
    } else {
        humantime::parse_duration(text).map_err(|error| wrong(&error.to_string()))?
    };
    if duration.is_zero() {
        return Err(wrong("it leaves the command no time"));
    }
    if duration > LONGEST { Err(wrong("it is too long")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("030", 30_000),
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1h 1s", 3_601_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "0", "0s", "0ms", "-1", "+1", "1x", "s", "ten", "1e3", "99999999999999999999", "2147483648"]
        {
            assert_eq!(parse(text).unwrap_err().exit_status(), 2, "{text:?}");
        }
    }
}
