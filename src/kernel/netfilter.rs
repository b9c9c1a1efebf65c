//! Netfilter messages in the making (`include/uapi/linux/netfilter/nfnetlink.h`).

use netlink_packet_core::{Emitable, NLA_F_NESTED, NLM_F_REQUEST};
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::wire::{HEADER, align};

/// A message that is being written. Every attribute is written once, at its place, and the lengths of what is
/// around it when that ends: the crates' own way computes them anew on each level, again and again, which takes
/// a ruleset eight times as long.
#[derive(Debug)]
pub(super) struct Draft(Vec<u8>);

impl Draft {
    /// The headers: `struct nlmsghdr`, a request of that type, and `struct nfgenmsg`.
    pub(super) fn new(
        subsystem: u8,
        kind: u8,
        flags: u16,
        family: NetfilterProtoFamily,
        resource: u16,
    ) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend([0; 4]); // the length, which `finish` fills in
        bytes.extend(u16::from_be_bytes([subsystem, kind]).to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend([family.into(), 0]);
        bytes.extend(resource.to_be_bytes());
        Self(bytes)
    }

    /// Adds an attribute of one of the crates' types: one that holds little.
    pub(super) fn put(&mut self, attribute: &impl Emitable) -> &mut Self {
        let start = self.0.len();
        self.0.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[start..]);
        self
    }

    /// Adds an attribute that is a text, with its NUL.
    pub(super) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, |bytes| {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        })
    }

    /// Adds an attribute that is some bytes.
    pub(super) fn value(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.bytes(kind, |bytes| bytes.extend(value))
    }

    /// Adds an attribute that holds others. Together they are shorter than 64 KiB.
    pub(super) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.begin(kind | NLA_F_NESTED);
        inside(self);
        self.end(start)
    }

    /// The message, whole.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        std::mem::take(&mut self.0)
    }

    /// Adds an attribute of the bytes that `write` appends.
    pub(super) fn bytes(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.begin(kind);
        write(&mut self.0);
        self.end(start)
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0; 2]); // the length, which `end` fills in
        self.0.extend(kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) -> &mut Self {
        // A length that does not fit is one that the kernel refuses, because it goes beyond the message.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(align(self.0.len()), 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::wire::{attributes, messages};

    #[test]
    fn a_draft_reads_back_as_what_was_written() {
        let mut draft = Draft::new(10, 6, 0x800, NetfilterProtoFamily::Inet, 0);
        draft.text(1, "t").nest(4, |list| {
            list.value(1, &[1, 2, 3, 4, 5]).value(2, &[]);
        });
        let bytes = draft.finish();
        let message = messages(&bytes).next().unwrap();
        assert_eq!((bytes.len(), message.kind, message.flags), (48, 0x0a06, 0x801));
        assert_eq!(message.payload[..4], [1, 0, 0, 0]);
        let read: Vec<_> = attributes(&message.payload[4..]).collect();
        assert_eq!(read[0], (1, b"t\0".as_slice()));
        let inner: Vec<_> = attributes(read[1].1).collect();
        assert_eq!((read.len(), read[1].0, inner), (2, 4, vec![(1, [1, 2, 3, 4, 5].as_slice()), (2, &[])]));
    }
}
