//! Reading what netlink answers: messages, attributes, refusals (netlink(7)).

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
    /// What an NLMSG_ERROR (or the error that ends a dump in NLMSG_DONE) says: nothing wrong, or an
    /// errno and, where the kernel gave them, its words.
    #[must_use]
    pub fn refusal(&self) -> Option<(i32, Option<String>)> {
        let errno = i32_at(self.payload, 0).unwrap_or(0).checked_neg().filter(|errno| *errno > 0)?;
        // With NLM_F_CAPPED the request's header alone is echoed, else all of it.
        let echoed = match (i32::from(self.kind) == libc::NLMSG_DONE, self.flags & CAPPED != 0) {
            (true, _) => 0,
            (false, true) => HEADER,
            (false, false) => u32_at(self.payload, 4).and_then(|n| n.try_into().ok()).unwrap_or(HEADER),
        };
        let details = self.payload.get(4 + align(echoed)..).filter(|_| self.flags & ACK_TLVS != 0);
        let words = attributes(details.unwrap_or_default()).find(|(kind, _)| *kind == MESSAGE_TEXT);
        Some((errno, words.map(|(_, text)| text_of(text))))
    }
}

/// `NLM_F_CAPPED`, `NLM_F_ACK_TLVS` and `NLMSGERR_ATTR_MSG` of `linux/netlink.h`.
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const MESSAGE_TEXT: u16 = 1;

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

    #[test]
    fn a_refusal_keeps_the_kernels_words() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend([8, 0, 1, 0]);
        payload.extend(*b"why\0");
        let message = Message { kind: 2, flags: CAPPED | ACK_TLVS, sequence: 1, payload: &payload };
        assert_eq!(message.refusal(), Some((libc::EEXIST, Some("why".to_owned()))));
        assert_eq!(Message { payload: &[0; 20], ..message }.refusal(), None);
    }
}
