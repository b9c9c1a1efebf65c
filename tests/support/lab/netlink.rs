//! Netlink as the lab needs it: requests with attributes, acknowledgements, dumps.
//!
//! Written apart from the program's own netlink code on purpose: a lab that shares its subject's
//! encoders would share its mistakes.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCL: u16 = 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;

/// One message being written: its type, then a fixed header, then attributes.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        Self { kind, flags: flags | REQUEST, payload: header.to_vec() }
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.payload.extend(attribute(kind, value));
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attr(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    fn encoded(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.payload.len()).expect("a short message");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// An attribute, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes in `bytes`, their types without the flag bits.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if length < 4 || length > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        found.push((kind, &bytes[4..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// The value of the first attribute of that type.
pub(crate) fn find<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value)
}

/// A message received: its header, then its attributes.
pub(crate) type Reply = Vec<u8>;

/// A netlink socket of the network namespace that the calling thread is in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(crate) fn route() -> Self {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub(crate) fn netfilter() -> Self {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Self {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .expect("a netlink socket");
        Self { socket }
    }

    /// Sends the messages as one datagram and waits for one acknowledgement.
    pub(crate) fn ask(&self, messages: &[Message]) -> io::Result<()> {
        self.send(messages)?;
        self.replies().map(drop)
    }

    /// Everything that the kernel answers to a dump request.
    pub(crate) fn dump(&self, message: &Message) -> io::Result<Vec<Reply>> {
        self.send(std::slice::from_ref(message))?;
        self.replies()
    }

    fn send(&self, messages: &[Message]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let bytes: Vec<u8> = messages.iter().zip(1..).flat_map(|(m, sequence)| m.encoded(sequence)).collect();
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    fn replies(&self) -> io::Result<Vec<Reply>> {
        use std::os::fd::AsRawFd;
        let mut replies = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER {
                let size = usize::try_from(u32_at(rest, 0)).expect("32 bits fit");
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let payload = &rest[HEADER..size];
                if kind == ERROR || kind == DONE {
                    let code = i32::from_ne_bytes(payload[..4].try_into().expect("four bytes"));
                    return if code == 0 { Ok(replies) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                replies.push(payload.to_vec());
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

/// The native 32-bit number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}
