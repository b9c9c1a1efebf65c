//! Between two network namespaces: how fast one flow of TCP is, what a connection and a datagram cost.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::{ACK, Message, Netlink};
use super::place::Place;
use super::statistics::median;

/// What is written and read at once: large enough that system calls do not count, small enough for a cache.
const BUFFER: usize = 128 << 10;
/// A peer that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many connections are waiting to be accepted at most.
const BATCH: usize = 100;

/// From a client to a server, through whatever is between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) client: &'a Place,
    pub(crate) server: &'a Place,
    /// Where the server listens.
    pub(crate) listen: SocketAddr,
    /// What the client connects to.
    pub(crate) connect: SocketAddr,
}

impl Way<'_> {
    /// What arrives of one flow in Gbit/s: from `warm_up` after the first byte on, for `time`.
    pub(crate) fn flow(&self, warm_up: Duration, time: Duration) -> f64 {
        let listener = self.listener();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                self.server.run(|| {
                    let (stream, _) = listener.accept().expect("a connection");
                    receive(&stream.into(), warm_up, time)
                })
            });
            self.client.run(|| self.send());
            receiver.join().expect("the receiver")
        })
    }

    /// Sends until the receiver closes.
    fn send(&self) {
        let mut stream = TcpStream::connect_timeout(&self.connect, PATIENCE)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.connect));
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        let bytes = vec![0; BUFFER];
        while stream.write(&bytes).is_ok() {}
    }

    /// The median cost of `count` connections, one after the other, in microseconds: connect(2), and a close(2) that
    /// resets, so that no port stays taken. The server's part is that of its kernel; nobody is woken up.
    pub(crate) fn connection(&self, count: usize) -> f64 {
        let listener = self.listener();
        listener.set_nonblocking(true).expect("a socket that does not wait");
        let mut times = Vec::with_capacity(count);
        self.client.run(|| {
            for number in 1..=count {
                let begun = Instant::now();
                self.connect_and_reset();
                times.push(begun.elapsed().as_secs_f64() * 1e6);
                if number % BATCH == 0 {
                    while listener.accept().is_ok() {}
                }
            }
        });
        median(&times)
    }

    /// The median time of `count` datagrams that come back, one after the other, in microseconds. One thread is at both ends: nobody
    /// is woken up.
    pub(crate) fn round_trip(&self, count: usize) -> f64 {
        self.datagrams(count, || {})
    }

    /// The same where the client has to find out each time where the server is (ARP), by a link called eth0.
    pub(crate) fn first_round_trip(&self, count: usize) -> f64 {
        self.client.run(|| {
            let netlink = Netlink::route();
            let link = if_nametoindex("eth0").expect("a link");
            self.datagrams(count, || forget(&netlink, link, self.connect.ip()))
        })
    }

    fn datagrams(&self, count: usize, before: impl Fn()) -> f64 {
        let socket = |place: &Place, address: SocketAddr| {
            let socket = place.run(|| UdpSocket::bind(address)).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            socket
        };
        let server = socket(self.server, self.listen);
        let client = socket(self.client, (Ipv4Addr::UNSPECIFIED, 0).into());
        client.connect(self.connect).expect("a way to the server");
        let mut bytes = [0; 64];
        let mut there_and_back = || {
            before();
            let begun = Instant::now();
            client.send(&bytes).expect("to ask");
            let (length, from) = server.recv_from(&mut bytes).expect("a question");
            server.send_to(&bytes[..length], from).expect("to answer");
            client.recv(&mut bytes).expect("an answer");
            begun.elapsed().as_secs_f64() * 1e6
        };
        // The first finds out where the other is.
        there_and_back();
        median(&(0..count).map(|_| there_and_back()).collect::<Vec<_>>())
    }

    fn connect_and_reset(&self) {
        let socket = tcp();
        socket.set_linger(Some(Duration::ZERO)).expect("a reset at the end");
        socket
            .connect(&self.connect.into())
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.connect));
    }

    fn listener(&self) -> Socket {
        self.server.run(|| {
            let socket = tcp();
            let bound = socket.set_reuse_address(true).and_then(|()| socket.bind(&self.listen.into()));
            bound.unwrap_or_else(|error| panic!("cannot bind to {}: {error}", self.listen));
            socket.listen(i32::try_from(BATCH * 2).expect("a small number")).expect("a listening socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            socket
        })
    }
}

/// Each way once a round, each round begun by another, so that what the machine does meanwhile hits all alike.
pub(crate) fn interleaved<const N: usize>(
    rounds: usize,
    ways: &[Way<'_>; N],
    measure: impl Fn(&Way<'_>) -> f64,
) -> [Vec<f64>; N] {
    let mut figures = std::array::from_fn(|_| Vec::new());
    for round in 0..rounds {
        for turn in 0..N {
            let index = (round + turn) % N;
            figures[index].push(measure(&ways[index]));
        }
    }
    figures
}

/// Removes what is known of a neighbour of the namespace that the calling thread is in.
fn forget(netlink: &Netlink, link: u32, address: IpAddr) {
    const DEL_NEIGHBOUR: u16 = 29;
    let IpAddr::V4(address) = address else { return };
    // ndmsg: AF_INET, the link, and no more that counts; NDA_DST 1
    let mut header = vec![2, 0, 0, 0];
    header.extend(link.to_ne_bytes());
    header.extend([0; 4]);
    let message = Message::new(DEL_NEIGHBOUR, ACK, &header).attr(1, &address.octets());
    match netlink.ask(&[message]) {
        Ok(()) => {}
        // Nothing was known.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
        Err(error) => panic!("cannot forget {address}: {error}"),
    }
}

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket")
}

fn receive(mut stream: &TcpStream, warm_up: Duration, time: Duration) -> f64 {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut buffer = vec![0; BUFFER];
    let mut read = || {
        let length = stream.read(&mut buffer).expect("data");
        assert_ne!(length, 0, "the flow ended early");
        u64::try_from(length).expect("64 bits")
    };
    read();
    let start = Instant::now();
    while start.elapsed() < warm_up {
        read();
    }
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        bytes += read();
        let elapsed = start.elapsed();
        if elapsed >= time {
            #[expect(clippy::cast_precision_loss, reason = "a few gigabytes")]
            return bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e9;
        }
    }
}
