//! The largest packet of a link.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// The MTUs that an IPv4 link can have, in bytes: 68 is the least that every module must forward whole
/// (RFC 791 §3.2), 65535 the longest packet, and the most that a veth takes.
pub const MTU: RangeInclusive<u32> = 68..=65535;

/// The least MTU of a link with IPv6, in bytes (RFC 8200 §5). The kernel takes IPv6 off a link with less.
pub const LEAST_MTU6: u32 = 1280;

/// Reads an MTU in bytes.
///
/// # Errors
/// When it is no number from 68 to 65535.
pub fn parse(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|mtu| digits && MTU.contains(mtu)).ok_or_else(|| {
        Error::usage(format!("invalid MTU {text:?}")).because(format_args!(
            "it is a number of bytes from {} to {}",
            MTU.start(),
            MTU.end()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn mtus() {
        for (text, mtu) in [("68", 68), ("1500", 1500), ("65535", 65535), ("01500", 1500)] {
            assert_eq!(parse(text), Ok(mtu));
        }
        for text in ["", "0", "67", "65536", "-1500", "+1500", "1500 ", "1.5k", "99999999999"] {
            assert_eq!(parse(text).unwrap_err().exit_status(), 2, "{text:?}");
        }
    }
}
