//! What a box's questions take of the host: every socket that is opened for one takes a port, and, long after it was closed, a
//! place in the host's connection tracking table. So there are a number of new ones, and past it sockets are used again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// New sockets in [`WINDOW`]: more than a program needs that is not out for them, and few beside the table's tens of thousands.
const NEW: u32 = 1024;

/// How long the kernel remembers an exchange of datagrams (nf_conntrack_udp_timeout).
const WINDOW: Duration = Duration::from_secs(30);

/// Sockets that wait to be used again: as many as there are questions at a time, for each of the three servers that
/// resolv.conf(5) may name.
const IDLE: usize = 3 * super::QUESTIONS;

/// So many at once, then one after the other as time passes: the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug, Default)]
struct Budget(Cell<Option<Instant>>);

impl Budget {
    /// Takes one.
    ///
    /// # Errors
    /// How long to wait for the next, where all are taken.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let spent = self.0.get().map_or(now, |spent| spent.max(now)) + WINDOW / NEW;
        let ahead = spent.duration_since(now);
        if ahead > WINDOW {
            return Err(ahead - WINDOW);
        }
        self.0.set(Some(spent));
        Ok(())
    }

    /// Whether more than half are taken.
    fn is_low(&self, now: Instant) -> bool {
        self.0.get().is_some_and(|spent| spent > now + WINDOW / 2)
    }
}

/// The sockets of one resolver on the host's side.
#[derive(Debug, Default)]
pub(super) struct Ports {
    datagrams: Budget,
    streams: Budget,
    idle: RefCell<VecDeque<(SocketAddr, UdpSocket)>>,
}

impl Ports {
    /// A socket for one question to `server`. With a port that the kernel chooses at random: what somebody else would have to
    /// guess to be taken for the server (RFC 5452). Where too many have been opened, any of those of earlier questions.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2).
    pub(super) fn datagram(self: &Rc<Self>, server: SocketAddr) -> io::Result<Lent> {
        let used = self.datagrams.take(Instant::now()).err().and_then(|_| self.used(server));
        let socket = match used {
            Some(socket) => socket,
            None => {
                let kind = Type::DGRAM.nonblocking();
                let socket = Socket::new(Domain::for_address(server), kind, Some(Protocol::UDP))?;
                socket.connect(&server.into())?;
                UdpSocket::from_std(socket.into())?
            }
        };
        Ok(Lent { socket: Some(socket), server, to: Rc::clone(self) })
    }

    /// Waits until another connection may be made.
    pub(super) async fn stream(&self) {
        while let Err(wait) = self.streams.take(Instant::now()) {
            sleep(wait).await;
        }
    }

    /// Closes what waits to be used again.
    pub(super) fn rest(&self) {
        self.idle.take();
    }

    fn used(&self, server: SocketAddr) -> Option<UdpSocket> {
        let mut idle = self.idle.borrow_mut();
        let start = usize::from(random()).checked_rem(idle.len())?;
        idle.rotate_left(start);
        let found = idle.iter().position(|(to, _)| *to == server)?;
        idle.swap_remove_back(found).map(|(_, socket)| socket)
    }

    fn take_back(&self, server: SocketAddr, socket: UdpSocket) {
        // Not only where there is no new one left: one comes every few milliseconds, and all that are taken back then would be lost.
        if !self.datagrams.is_low(Instant::now()) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE {
            idle.pop_front();
        }
        idle.push_back((server, socket));
    }
}

/// A socket for one question, however that ends.
#[derive(Debug)]
pub(super) struct Lent {
    socket: Option<UdpSocket>,
    server: SocketAddr,
    to: Rc<Ports>,
}

impl Lent {
    /// The socket.
    ///
    /// # Errors
    /// None: it is there until this is dropped.
    pub(super) fn socket(&self) -> io::Result<&UdpSocket> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.to.take_back(self.server, socket);
        }
    }
}

/// A number that nobody can guess.
pub(super) fn random() -> u16 {
    let mut bytes = [0; 2];
    // So few bytes cannot fail (getrandom(2)).
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_as_many_as_time_gives_back() {
        let (budget, start) = (Budget::default(), Instant::now());
        let taken = (0..2 * NEW).take_while(|_| budget.take(start).is_ok()).count();
        assert_eq!(taken, NEW as usize);
        assert!(budget.is_low(start));
        let wait = budget.take(start).unwrap_err();
        assert!(wait <= WINDOW / NEW);
        assert!(budget.take(start + wait).is_ok());
        assert!(budget.take(start + wait).is_err());
        let later = start + WINDOW / 2;
        assert!(!budget.is_low(later + WINDOW / NEW));
        let taken = (0..2 * NEW).take_while(|_| budget.take(later).is_ok()).count();
        assert!((NEW as usize / 2 - 2..=NEW as usize / 2).contains(&taken), "{taken}");
    }

    #[tokio::test]
    async fn sockets_are_used_again_only_when_too_many_were_opened() {
        let ports = Rc::new(Ports::default());
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let [server, other] = [server.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 1], 9))];
        drop(ports.datagram(server).unwrap());
        assert!(ports.idle.borrow().is_empty());
        while ports.datagrams.take(Instant::now()).is_ok() {}
        let first = ports.datagram(server).unwrap();
        let port = first.socket().unwrap().local_addr().unwrap();
        drop(first);
        assert_ne!(ports.datagram(other).unwrap().socket().unwrap().local_addr().unwrap(), port);
        assert_eq!(ports.datagram(server).unwrap().socket().unwrap().local_addr().unwrap(), port);
        ports.rest();
        assert!(ports.idle.borrow().is_empty());
    }
}
