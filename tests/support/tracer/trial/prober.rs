//! A neighbour with a route to the pool, who tries all the time what must never be answered.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netbox::apply::state::State;
use netbox::plan::topology::RESERVED;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvfrom, sendto, socket,
};

use crate::lab::{HOST_LAN, Lab, let_pass, links, sysctl, wait_until};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(3);

#[derive(Debug)]
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl Prober {
    /// `pool`: its first address. `other`: a box that stays, with a server on TCP port 80.
    pub(super) fn start(lab: &Lab, pool: Ipv4Addr, other: Option<Ipv4Addr>) -> Self {
        lab.client(|| {
            links::route(Ipv4Addr::new(10, 0, 0, 0).into(), 8, HOST_LAN.into());
            sysctl("net/ipv4/ping_group_range", "0 0");
        });
        // A ping socket: echo replies alone come in, not the host's refusals.
        let pings = lab.client(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Inet, SockType::Datagram, flags, SockProtocol::Icmp).expect("a ping socket")
        });
        assert!(ping(&pings, HOST_LAN), "the client can ping");
        wait_until("the host answers a ping", || answer(&pings).is_some());
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let slot = Arc::new(AtomicU32::new(0));
        let (halt, next) = (Arc::clone(&stop), Arc::clone(&slot));
        // Which box address will be used next is in the state directory.
        let watcher = thread::spawn(move || {
            while !halt.load(SeqCst) {
                if let Ok(Some(state)) = State::open_existing() {
                    next.store(u32::try_from(state.slots().counter(0)).unwrap_or(0), SeqCst);
                }
                let_pass(PAUSE);
            }
        });
        let (halt, count, place) = (Arc::clone(&stop), Arc::clone(&sent), lab.client_place().clone());
        let thread = thread::spawn(move || {
            place.run(|| {
                while !halt.load(SeqCst) {
                    let next = u32::from(pool) + RESERVED + slot.load(SeqCst);
                    for target in [next.saturating_sub(1), next].map(Ipv4Addr::from).into_iter().chain(other)
                    {
                        count.fetch_add(usize::from(ping(&pings, target)), SeqCst);
                    }
                    if let Some(other) = other {
                        let server = SocketAddr::from((other, 80));
                        let connected = TcpStream::connect_timeout(&server, PAUSE);
                        assert!(connected.is_err(), "a neighbour reached {server}");
                        count.fetch_add(1, SeqCst);
                    }
                    let answered = answer(&pings);
                    assert!(answered.is_none(), "a neighbour's ping was answered by {answered:?}");
                    let_pass(PAUSE);
                }
            });
        });
        Self { stop, sent, thread: Some(thread), watcher: Some(watcher) }
    }

    /// How often it has tried.
    pub(super) fn sent(&self) -> usize {
        self.sent.load(SeqCst)
    }

    /// Fails if anything was ever answered.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in [self.thread.take(), self.watcher.take()].into_iter().flatten() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        assert!(self.sent() > 0, "the neighbour has tried nothing");
    }
}

fn ping(socket: &OwnedFd, to: Ipv4Addr) -> bool {
    let request = [8, 0, 0, 0, 0, 0, 0, 1]; // type 8: echo; the kernel fills in checksum and id
    sendto(socket.as_raw_fd(), &request, &SockaddrIn::from(SocketAddrV4::new(to, 0)), MsgFlags::empty())
        .is_ok()
}

fn answer(socket: &OwnedFd) -> Option<Ipv4Addr> {
    let (_, from) = recvfrom::<SockaddrIn>(socket.as_raw_fd(), &mut [0; 64]).ok()?;
    from.map(|from| from.ip())
}
