//! One box takes as much as it can get: enough is left for the others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use crate::isolation::gateways;
use crate::lab::{
    ECHO, HOST, HOST6, Lab, NETBOX, PROBE, RunningBox, Shape, WAN, WAN6, live_tests, probe, read_sysctl,
};

live_tests![
    a_box_uses_up_neither_connections_nor_ports,
    a_box_that_pings_uses_up_no_connections,
    connections_that_have_ended_do_not_count,
    connections_that_have_ended_are_soon_forgotten,
    what_the_gateway_takes_for_an_end_counts_on_the_host,
    the_end_of_a_box_leaves_the_connections_of_others_alone,
];

/// As src/plan/gateway.rs has it.
pub(crate) fn limit() -> u32 {
    let max: u32 = read_sysctl("net/netfilter/nf_conntrack_max").parse().expect("a number");
    (max / 8).clamp(512, 8192)
}

/// How many connections the host tracks.
fn tracked() -> u32 {
    read_sysctl("net/netfilter/nf_conntrack_count").parse().expect("a number")
}

fn wan() -> SocketAddr {
    SocketAddr::from((WAN, ECHO))
}

/// A datagram from each of so many ports, all to the same place: each is a connection, and takes one of the host's ports.
fn hog(running: &RunningBox, connections: u32) {
    running.inside(|| {
        for port in (0..connections).filter_map(|number| u16::try_from(10_000 + number).ok()) {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port of the box's own");
            // Refused, past the limit.
            let _ = socket.send_to(b"who am I?", wan());
        }
    });
}

/// Neither the gateway's connection tracking nor the host's, nor the host's ports towards one destination.
fn a_box_uses_up_neither_connections_nor_ports() {
    let lab = Lab::new(Shape::OwnLan);
    let greedy = lab.start(&[], &["sleep"]);
    let other = lab.start(&[], &["sleep"]);
    let goes_on = greedy.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
        socket.connect(wan()).expect("to connect");
        socket.send(b"before").expect("to send");
        socket.recv(&mut [0; 64]).expect("an answer");
        socket
    });
    hog(&greedy, limit() + 2000);
    let count = tracked();
    // A few of the lab's own.
    assert!((limit()..limit() + 20).contains(&count), "{count} connections of {}", limit());
    // The kernel sends a thousand ICMP errors per second, and has just sent two thousand.
    let outcome = greedy.inside(|| probe::udp(wan()));
    assert!(!outcome.reached(), "one more: {outcome}");
    let outcome = greedy.inside(|| probe::tcp(wan()));
    assert!(outcome.refused(), "one more: {outcome}");
    goes_on.send(b"after").expect("to send");
    goes_on.recv(&mut [0; 64]).expect("what is there goes on");
    for outcome in other.inside(|| [probe::udp(wan()), probe::tcp(wan()), probe::icmp(WAN)]) {
        assert!(outcome.reached(), "the other box: {outcome}");
    }
}

/// To the gateway, which answers them itself: they count as well.
fn a_box_that_pings_uses_up_no_connections() {
    let lab = Lab::new(Shape::OwnLan);
    let greedy = lab.start(&[], &["sleep"]);
    let other = lab.start(&[], &["sleep"]);
    let [gateway, _] = gateways(&greedy);
    hog(&greedy, limit() + 100);
    assert!(!greedy.inside(|| probe::icmp(gateway)).reached(), "a ping past the limit");
    assert!(other.inside(|| probe::icmp(gateway)).reached(), "the other box");
}

/// A program that opens one connection after the other is no hog: TIME_WAIT is not counted.
fn connections_that_have_ended_do_not_count() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    running.inside(|| {
        for _ in 0..limit() / 8 {
            assert!(probe::tcp(wan()).reached());
        }
    });
    hog(&running, limit() - 50);
    assert!(running.inside(|| probe::tcp(wan())).reached());
}

/// For how many seconds more the closed TCP connections of host and gateway are remembered, as soon as there is one in both.
fn remembered(lab: &Lab, port: u16) -> Vec<u32> {
    let end = Instant::now() + Duration::from_secs(1);
    // As what answers in it, whatever it was called with.
    let from = format!(" sport={port} ");
    loop {
        let host = std::fs::read_to_string("/proc/net/nf_conntrack").expect("the host's connections");
        let gateway = lab.netbox(&["gateway", "--", PROBE, "cat", "/proc/net/nf_conntrack"]).output();
        let gateway = String::from_utf8(gateway.expect("netbox gateway").stdout).expect("text");
        // ipv4 2 tcp 6 SECONDS STATE …
        let closed = |text: &str| -> Vec<u32> {
            let lines = text.lines().filter(|line| line.contains(" TIME_WAIT ") && line.contains(&from));
            lines
                .map(|line| line.split_whitespace().nth(4).expect("seconds").parse().expect("a number"))
                .collect()
        };
        let (host, gateway) = (closed(&host), closed(&gateway));
        if !host.is_empty() && !gateway.is_empty() {
            return [host, gateway].concat();
        }
        assert!(Instant::now() < end, "no closed connection to port {port}: {host:?} {gateway:?}");
    }
}

/// I2: they are not counted, so a box that opens one after the other must not fill the tables with them. Those that it opens
/// and those that it answers, over both families.
fn connections_that_have_ended_are_soon_forgotten() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &["listen", "tcp", "[::]:80"]);
    for (host, wan) in [(IpAddr::V4(HOST), IpAddr::V4(WAN)), (HOST6.into(), WAN6.into())] {
        for inward in [false, true] {
            let port = if inward {
                assert!(lab.wan(|| probe::tcp(SocketAddr::new(host, 8080))).reached());
                80
            } else {
                assert!(running.inside(|| probe::tcp(SocketAddr::new(wan, ECHO))).reached());
                ECHO
            };
            let seconds = remembered(&lab, port);
            assert!(seconds.iter().all(|seconds| *seconds <= 2), "{host}, inward {inward}: {seconds:?}");
        }
    }
}

/// I2: a reset with a TTL of 1, which any program can send, ends a connection for the gateway, and comes no further.
fn what_the_gateway_takes_for_an_end_counts_on_the_host() {
    /// So many wait at each server (net.core.somaxconn).
    const QUEUE: u32 = 4096;
    let lab = Lab::new(Shape::OwnLan);
    let greedy = lab.start(&[], &["sleep"]);
    let other = lab.start(&[], &["sleep"]);
    let many = limit() + 300;
    // Never accepted, and so never closed by the other side either.
    let servers: Vec<_> = lab.wan(|| {
        let server = || {
            let server = TcpListener::bind((WAN, 0)).expect("to bind");
            listen(&server, Backlog::MAXALLOWABLE).expect("a longer queue");
            server
        };
        (0..many.div_ceil(QUEUE)).map(|_| server()).collect()
    });
    greedy.inside(|| {
        for (_, server) in (0..many).zip(servers.iter().cycle()) {
            let Ok(stream) = TcpStream::connect(server.local_addr().expect("an address")) else { continue };
            stream.set_ttl(1).expect("a TTL");
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &at_once).expect("a reset instead of an end");
        }
    });
    let count = tracked();
    assert!((limit()..limit() + 20).contains(&count), "{count} connections of {}", limit());
    assert!(greedy.inside(|| probe::tcp(wan())).refused(), "one more is denied at once");
    assert!(other.inside(|| probe::tcp(wan())).reached(), "the other box");
}

/// L3: over both families. (The kernel's filter for IPv6 addresses means all others.)
fn the_end_of_a_box_leaves_the_connections_of_others_alone() {
    let lab = Lab::new(Shape::OwnLan);
    let goes_on = lab.start(&[], &["sleep"]);
    let open: Vec<_> = [SocketAddr::from((WAN, ECHO)), SocketAddr::from((WAN6, ECHO))]
        .into_iter()
        .map(|to| (to, goes_on.inside(|| TcpStream::connect(to).expect("a connection"))))
        .collect();
    let tracked = |stream: &TcpStream| {
        let port = format!("sport={} ", stream.local_addr().expect("an address").port());
        std::fs::read_to_string("/proc/net/nf_conntrack").expect("the host's connections").contains(&port)
    };
    for to in [WAN6.to_string(), WAN.to_string()] {
        let words = [PROBE, "tcp", &SocketAddr::new(to.parse().expect("an address"), ECHO).to_string()];
        let other = lab.run(&[], &words[1..]);
        assert!(crate::lab::outcome(&other).reached());
    }
    // Its connections are forgotten last of all: when its keeper has gone.
    crate::lab::wait_for_end_of(NETBOX, 2);
    for (to, stream) in &open {
        assert!(tracked(stream), "the connection to {to} is forgotten");
    }
}
