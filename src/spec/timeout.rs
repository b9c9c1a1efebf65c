//! How long a command may run, or may take to end: `--timeout`, `stop --time`.

use std::time::Duration;

use crate::error::{Error, Result};

/// 68 years: what fits every clock.
const LONGEST: Duration = Duration::from_secs(i32::MAX as u64);

/// Reads a time span: a number of seconds, or numbers with units, as in `500ms` and `1h30m`.
///
/// # Errors
/// When it is neither, zero, or longer than a lifetime.
pub fn parse(text: &str) -> Result<Duration> {
    let duration = read(text, "--timeout")?;
    if duration.is_zero() {
        return Err(wrong(text, "--timeout", "it leaves the command no time"));
    }
    Ok(duration)
}

/// The same for how long to wait for an end, which may be no time.
///
/// # Errors
/// When it is no time span, or longer than a lifetime.
pub fn patience(text: &str) -> Result<Duration> {
    read(text, "-t/--time")
}

fn wrong(text: &str, option: &str, cause: &str) -> Error {
    Error::usage(format!("invalid duration {text:?} for {option}"))
        .because(cause)
        .hint("a number of seconds, or numbers with units: 500ms, 30s, 1h30m")
}

fn read(text: &str, option: &str) -> Result<Duration> {
    let wrong = |cause: &str| wrong(text, option, cause);
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let duration = if is_number {
        text.parse().map(Duration::from_secs).map_err(|_| wrong("it is too long"))?
    } else {
        humantime::parse_duration(text).map_err(|error| wrong(&error.to_string()))?
    };
    if duration > LONGEST { Err(wrong("it is too long")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse, patience};

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
        assert_eq!((patience("0"), patience("1m")), (Ok(Duration::ZERO), Ok(Duration::from_secs(60))));
        assert!(patience("-1").unwrap_err().to_string().contains("-t/--time"));
    }
}
