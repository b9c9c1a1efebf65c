//! One box takes as much as it can get: enough is left for the others.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::isolation::gateways;
use crate::lab::{ECHO, Lab, RunningBox, Shape, WAN, live_tests, probe, read_sysctl};

live_tests![
    a_box_uses_up_neither_connections_nor_ports,
    a_box_that_pings_uses_up_no_connections,
    connections_that_have_ended_do_not_count,
];

/// As src/plan/gateway.rs has it.
fn limit() -> u32 {
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
