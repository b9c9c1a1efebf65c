//! Servers on threads: each answers with the address it was asked from, and counts who came.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::place::Place;

/// A server that runs until the test ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    visits: Arc<AtomicUsize>,
    visitors: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service {
    /// Answers TCP on `address`: the peer's address as a line, then an echo of what it gets.
    pub(crate) fn tcp(place: &Place, address: SocketAddr) -> Self {
        let service = Self::default();
        let listener =
            place.run(|| TcpListener::bind(address)).unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let own = service.clone();
        thread::spawn(move || serve_tcp(&listener, |peer| own.visited(peer)));
        service
    }

    /// Answers UDP on `address` with the peer's address.
    pub(crate) fn udp(place: &Place, address: SocketAddr) -> Self {
        let service = Self::default();
        let socket =
            place.run(|| UdpSocket::bind(address)).unwrap_or_else(|e| panic!("bind to {address}: {e}"));
        let own = service.clone();
        thread::spawn(move || serve_udp(&socket, |peer| own.visited(peer)));
        service
    }

    /// How many connections or datagrams have come.
    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }

    /// From where.
    pub(crate) fn visitors(&self) -> Vec<SocketAddr> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn visited(&self, peer: SocketAddr) {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
        self.visits.fetch_add(1, Ordering::SeqCst);
    }
}

/// Serves for ever.
pub(crate) fn serve_tcp(listener: &TcpListener, visited: impl Fn(SocketAddr)) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(peer) = stream.peer_addr() else { continue };
        visited(plain(peer));
        thread::spawn(move || greet(stream, peer));
    }
}

/// Serves for ever.
pub(crate) fn serve_udp(socket: &UdpSocket, visited: impl Fn(SocketAddr)) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error for an earlier answer comes as an error here, and concerns nobody.
        let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
        visited(plain(peer));
        let _ = socket.send_to(plain(peer).to_string().as_bytes(), peer);
    }
}

fn greet(stream: TcpStream, peer: SocketAddr) {
    let Ok(mut out) = stream.try_clone() else { return };
    // A peer that leaves in the middle is no concern of the server's.
    let _ = writeln!(out, "{}", plain(peer));
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// The address without the IPv6 wrapping that a dual-stack socket puts around IPv4.
fn plain(peer: SocketAddr) -> SocketAddr {
    let address: IpAddr = peer.ip().to_canonical();
    SocketAddr::new(address, peer.port())
}
