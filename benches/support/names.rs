//! Questions for names: a host's own /etc/resolv.conf, a name server outside, and how long an answer takes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;

use super::namespaces::mount_new;
use super::place::Place;
use super::statistics::median;

/// The first question may start something.
const PATIENCE: Duration = Duration::from_secs(5);

const HEADER: usize = 12;

/// From now on, an /etc in which this is the one name server. What names users is kept.
pub(crate) fn host_asks(server: Ipv4Addr) {
    let kept = ["passwd", "group"].map(|name| (name, fs::read(format!("/etc/{name}")).unwrap_or_default()));
    mount_new("tmpfs", "/etc", MsFlags::empty());
    let resolv_conf = ("resolv.conf", format!("nameserver {server}\n").into_bytes());
    for (name, text) in kept.into_iter().chain([resolv_conf]) {
        fs::write(format!("/etc/{name}"), text).expect("a file in a fresh tmpfs");
    }
}

/// The name server that a process is told of.
pub(crate) fn server_of(pid: u32) -> Option<Ipv4Addr> {
    let text = fs::read_to_string(format!("/proc/{pid}/root/etc/resolv.conf")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok())
}

/// The median times of an answer from `server` itself and by way of `resolver`, in turns, in milliseconds. Both are asked in
/// `inside`; the server is in `outside`, and answers at once. Where there is a `member`, the resolver is asked for its name, which
/// it knows itself.
pub(crate) fn answer_times(
    count: usize,
    inside: &Place,
    outside: &Place,
    server: SocketAddr,
    resolver: SocketAddr,
    member: Option<&str>,
) -> (f64, f64) {
    let socket = outside.run(|| UdpSocket::bind(server)).expect("a name server's socket");
    // Longer than those who ask wait: where one of them gives up, the server ends as well.
    socket.set_read_timeout(Some(PATIENCE * 2)).expect("a time-out");
    thread::scope(|scope| {
        scope.spawn(|| serve(&socket));
        let times = inside.run(|| {
            let sockets = [server, resolver].map(|to| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                socket.connect(to).expect("a way to the name server");
                socket
            });
            let questions = [None, member];
            for (socket, member) in sockets.iter().zip(questions) {
                ask(socket, 0, member);
            }
            let mut times = [Vec::new(), Vec::new()];
            for number in 1..=count {
                for ((socket, times), member) in sockets.iter().zip(&mut times).zip(questions) {
                    times.push(ask(socket, number, member).as_secs_f64() * 1e3);
                }
            }
            // Nothing in it: the server ends.
            sockets[0].send(&[]).expect("a way to the name server");
            times
        });
        (median(&times[0]), median(&times[1]))
    })
}

/// Another name for every number, so that nobody has the answer already; or a member's.
fn ask(socket: &UdpSocket, number: usize, member: Option<&str>) -> Duration {
    let label = member.map_or_else(|| format!("n{number}"), str::to_owned);
    let id = number.to_le_bytes();
    let mut question = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]; // RFC 1035, 4.1.1: recursion desired
    let above = if member.is_none() { &["example", "org"][..] } else { &[] };
    for label in [label.as_str()].iter().chain(above) {
        question.push(u8::try_from(label.len()).expect("a short label"));
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]); // A, IN
    let mut answer = [0; 1500];
    let start = Instant::now();
    socket.send(&question).expect("to ask");
    let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("no answer to {label}: {error}"));
    let time = start.elapsed();
    assert_eq!(answer[..2], question[..2], "an answer to another question");
    assert!(length > question.len() && answer[3] & 0xf == 0 && answer[7] == 1, "no address for {label}");
    time
}

/// Says the same address to every question, until a datagram is empty.
fn serve(socket: &UdpSocket) {
    let mut question = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut question) else { return };
        if length == 0 {
            return;
        }
        let Some(name) = question[HEADER..length].iter().position(|byte| *byte == 0) else { continue };
        let mut answer = question[..HEADER + name + 5].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]); // a response; recursion desired and available
        answer[4..HEADER].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
        // The name of the question, A, IN, a minute, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 1]);
        socket.send_to(&answer, from).expect("to answer");
    }
}
