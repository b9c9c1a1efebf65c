//! Reading what netlink answers: messages, attributes, refusals (netlink(7)).

use std::{fmt, io};

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};
use nix::errno::Errno;

use crate::error::Error;

/// The size of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `NLMSG_*` or the protocol's own type.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// That of the request which it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// How a request ended, where this message tells (NLMSG_ERROR, and NLMSG_DONE at the end of a dump).
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), Refusal>> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let errno = i32_at(self.payload, 0).unwrap_or(0).saturating_neg();
        if errno <= 0 {
            return Some(Ok(()));
        }
        // With NLM_F_CAPPED the request's header alone is echoed, else all of it; nothing at the end of a dump.
        let echoed = match (self.kind == NLMSG_DONE, self.flags & CAPPED != 0) {
            (true, _) => 0,
            (false, true) => HEADER,
            (false, false) => u32_at(self.payload, 4).and_then(|n| n.try_into().ok()).unwrap_or(HEADER),
        };
        let details = self.payload.get(4_usize.saturating_add(align(echoed))..);
        let mut refusal = Refusal { errno, text: None, offset: None };
        for (kind, value) in attributes(details.filter(|_| self.flags & ACK_TLVS != 0).unwrap_or_default()) {
            match kind {
                NLMSGERR_ATTR_MSG => refusal.text = Some(text_of(value)),
                NLMSGERR_ATTR_OFFS => refusal.offset = u32_at(value, 0).and_then(|n| n.try_into().ok()),
                _ => {}
            }
        }
        Some(Err(refusal))
    }
}

/// The kernel's reason not to do what a message asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, be it one that user space has a name for or not (ENOTSUPP).
    pub errno: i32,
    /// The kernel's words for it, where it has any.
    pub text: Option<String>,
    /// Where in the request the culprit is, in bytes from its start.
    pub offset: Option<usize>,
}

impl Refusal {
    /// The failure of `what`, for the reason that the kernel gave.
    #[must_use]
    pub fn into_error(self, what: impl Into<String>) -> Error {
        Error::new(what).os(&io::Error::from_raw_os_error(self.errno)).because(self)
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno: errno as i32, text: None, offset: None }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::from_raw_os_error(refusal.errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Errno::from_raw(self.errno).desc().to_lowercase())?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// `NLM_F_CAPPED` and `NLM_F_ACK_TLVS` of `linux/netlink.h`, and the attributes of a refusal.
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// The messages of a datagram. A malformed one ends the walk.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER..length)?;
        let (kind, flags) = (u16_at(rest, 4)?, u16_at(rest, 6)?);
        let sequence = u32_at(rest, 8)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, payload })
    })
}

/// The attributes of a message or of another attribute, as (type without its flag bits, value).
/// A malformed one ends the walk.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that kind.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Messages and attributes start at multiples of 4 bytes.
#[must_use]
pub const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The number in host byte order at `offset`, where there is one.
#[must_use]
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The number in host byte order at `offset`, where there is one.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The number in host byte order at `offset`, where there is one.
#[must_use]
pub fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes.get(offset..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

/// The text of a string attribute, up to its NUL.
#[must_use]
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_message_or_attribute_ends_the_walk() {
        assert_eq!(attributes(&[8, 0, 1, 0, 1, 2, 3, 4, 9, 0, 2, 0, 1]).count(), 1);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[255; 64]).count(), 0);
    }

    /// A refusal as Linux sends it: EEXIST, the request's header, a text and an offset.
    fn refusal() -> Vec<u8> {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend([8, 0, 1, 0, b'w', b'h', b'y', 0, 8, 0, 2, 0, 40, 0, 0, 0]);
        payload
    }

    #[test]
    fn a_refusal_keeps_the_kernels_words() {
        let payload = refusal();
        let message = Message { kind: NLMSG_ERROR, flags: CAPPED | ACK_TLVS, sequence: 1, payload: &payload };
        let expected = Refusal { errno: libc::EEXIST, text: Some("why".to_owned()), offset: Some(40) };
        assert_eq!(message.outcome(), Some(Err(expected)));
        let bare = Refusal { errno: libc::EEXIST, text: None, offset: None };
        assert_eq!(Message { flags: CAPPED, ..message }.outcome(), Some(Err(bare)));
        assert_eq!(Message { payload: &[0; 20], ..message }.outcome(), Some(Ok(())));
        assert_eq!(Message { kind: 16, ..message }.outcome(), None);
    }

    #[test]
    fn a_datagram_cut_anywhere_is_no_panic() {
        let mut datagram = vec![52, 0, 0, 0, 2, 0, 0, 3, 7, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend(refusal());
        let whole: Vec<_> = messages(&datagram).collect();
        assert_eq!((whole.len(), whole[0].sequence), (1, 7));
        for end in 0..datagram.len() {
            assert_eq!(messages(&datagram[..end]).count(), 0, "cut at {end}");
            let cut = Message { payload: &datagram[HEADER..end.max(HEADER)], ..whole[0] };
            let _ = cut.outcome();
        }
    }
}
