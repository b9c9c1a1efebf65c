//! What passes on the wires: every packet's source and destination, with none lost unseen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, getsockopt, recvfrom, setsockopt, socket,
    sockopt,
};
use std::os::fd::AsFd;

use super::place::Place;

use nix::{getsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// How many packets an AF_PACKET socket got, and how many it dropped, since last asked.
    PacketStatistics, GetOnly, libc::SOL_PACKET, libc::PACKET_STATISTICS, libc::tpacket_stats
);

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// One packet, as far as the tests ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet {
    Ipv4 { source: Ipv4Addr, destination: Ipv4Addr, protocol: u8 },
    Arp { source: Ipv4Addr },
    Ipv6 { source: Ipv6Addr, destination: Ipv6Addr, next_header: u8 },
    Other(u16),
}

impl Packet {
    /// The source, where the packet is IPv4, IPv6 or ARP.
    pub(crate) fn source(self) -> Option<IpAddr> {
        match self {
            Self::Ipv4 { source, .. } | Self::Arp { source } => Some(source.into()),
            Self::Ipv6 { source, .. } => Some(source.into()),
            Self::Other(_) => None,
        }
    }

    fn decode(ethertype: u16, bytes: &[u8]) -> Self {
        let address = |at: usize| {
            let four: Option<[u8; 4]> = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            four.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
        };
        let address6 = |at: usize| {
            let sixteen: Option<[u8; 16]> = bytes.get(at..at + 16).and_then(|b| b.try_into().ok());
            sixteen.map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
        };
        match ethertype {
            ETHERTYPE_IPV4 => Self::Ipv4 {
                source: address(12),
                destination: address(16),
                protocol: bytes.get(9).copied().unwrap_or(0),
            },
            ETHERTYPE_ARP => Self::Arp { source: address(14) },
            ETHERTYPE_IPV6 => Self::Ipv6 {
                source: address6(8),
                destination: address6(24),
                next_header: bytes.get(6).copied().unwrap_or(0),
            },
            other => Self::Other(other),
        }
    }
}

/// A recording of everything on all links of one place.
#[derive(Debug)]
pub(crate) struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Capture {
    /// Starts to record; when this returns, no packet is missed any more.
    pub(crate) fn start(place: &Place) -> Self {
        let packets = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        // Made in the place, so that it hears all links of the place.
        let socket = place.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)
                .expect("a packet socket")
        });
        // Up to the machine's limit (rmem_max); what does not fit is counted as a drop.
        setsockopt(&socket, sockopt::RcvBuf, &(1 << 24)).expect("a large receive buffer");
        let (record, halt) = (Arc::clone(&packets), Arc::clone(&stop));
        let thread = std::thread::spawn(move || listen(&socket, &record, &halt));
        Self { packets, stop, thread: Some(thread) }
    }

    /// Everything seen so far.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a packet like that has been seen so far.
    pub(crate) fn any(&self, like: impl Fn(Packet) -> bool) -> bool {
        self.packets().into_iter().any(like)
    }

    /// Reads what is still queued, stops, and fails if the kernel had to drop a packet.
    pub(crate) fn stop(&mut self) -> Result<Vec<Packet>, String> {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "the capture panicked".to_owned())??;
        }
        Ok(self.packets())
    }
}

fn listen(socket: &OwnedFd, record: &Mutex<Vec<Packet>>, stop: &AtomicBool) -> Result<(), String> {
    let mut buffer = [0; 64];
    loop {
        // Read before the queue is drained: what was queued when the stop was asked for is still seen.
        let last_round = stop.load(Ordering::SeqCst);
        loop {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) => {
                    let packet = Packet::decode(u16::from_be(from.protocol()), &buffer[..length]);
                    record.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
                }
                Ok((_, None)) | Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(format!("the capture ended early: {errno}")),
            }
        }
        if last_round {
            break;
        }
        let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_u8));
    }
    let statistics = getsockopt(socket, PacketStatistics).map_err(|errno| errno.to_string())?;
    match statistics.tp_drops {
        0 => Ok(()),
        drops => Err(format!("the capture lost {drops} packets")),
    }
}
