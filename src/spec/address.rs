//! Addresses that a box, its gateway or its packets are to have.

use crate::error::{Error, Result};

/// Reads the hardware address of a box: `--mac`.
///
/// # Errors
/// When it is not six bytes, or the address of a group (IEEE 802, §8.2.2) or of nobody.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = |cause: &str| {
        Error::usage(format!("invalid hardware address {text:?} for --mac"))
            .because(cause)
            .hint("one is given as 02:00:5e:10:00:01")
    };
    let separator = if text.contains('-') { '-' } else { ':' };
    let byte = |part: &str| match part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => u8::from_str_radix(part, 16).ok(),
        false => None,
    };
    let bytes: Option<Vec<u8>> = text.split(separator).map(byte).collect();
    let mac: [u8; 6] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| invalid("it is not six bytes of two hexadecimal digits each"))?;
    if mac[0] & 1 != 0 {
        return Err(invalid("it is the address of a group (the lowest bit of the first byte is 1)"));
    }
    if mac == [0; 6] {
        return Err(invalid("it is nobody's"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn hardware_addresses() {
        assert_eq!(parse_mac("02:00:5e:10:00:01"), Ok([2, 0, 0x5e, 0x10, 0, 1]));
        assert_eq!(parse_mac("00-1B-21-aa-bb-cc"), Ok([0, 0x1b, 0x21, 0xaa, 0xbb, 0xcc]));
        refused(parse_mac("01:00:5e:00:00:01"), "group");
        refused(parse_mac("ff:ff:ff:ff:ff:ff"), "group");
        refused(parse_mac("00:00:00:00:00:00"), "nobody");
        for text in [
            "",
            "2:0:5e:10:0:1",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "+2:00:5e:10:00:01",
            "02:00-5e:10:00:01",
        ] {
            refused(parse_mac(text), "six bytes");
        }
    }
}
