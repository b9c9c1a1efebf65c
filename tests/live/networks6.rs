//! Named networks over IPv6: who in one reaches whom, and what a port of its bridge may bring.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{
    Capture, ECHO, HOST, HOST_LAN6, HOST6, Lab, PROBE, Packet, RunningBox, Shape, WAN6, links, live_tests,
    probe, send, sysctl, words,
};
use crate::names;
use crate::networks::{
    answers, ask, ethernet, inject, inspect, keeper_of, mac_of, member, network, ps, record_of, refused,
};

live_tests![
    members_reach_each_other_and_the_outside_over_ipv6,
    members_have_ipv6_among_themselves_on_a_host_without,
    boxes_of_different_networks_reach_published_ports_only_over_ipv6,
    a_published_port_of_a_member_is_reached_over_ipv6_from_everywhere,
    an_internal_network_has_no_way_out_over_ipv6,
    isolated_boxes_do_not_reach_each_other_over_ipv6,
    a_member_cannot_send_with_anothers_ipv6_addresses,
    no_member_hears_neighbours_or_routers,
    a_member_tells_of_errors_in_connections_of_its_own_only,
    members_find_each_others_ipv6_addresses_by_name_at_once,
    ipv6_addresses_of_a_network_are_had_or_refused,
    ranges_of_ipv6_are_chosen_kept_and_described,
    ranges_of_ipv6_that_conflict_are_refused_naming_the_other,
    nothing_is_left_of_members_with_ipv6_that_were_killed,
    nobody_gets_the_connections_of_a_member_before,
    a_dry_run_shows_the_ipv6_of_a_network,
];

const WAN: (Ipv6Addr, u16) = (WAN6, ECHO);
const SERVER: [&str; 3] = ["listen", "tcp", "[::]:80"];

/// A network of this name, `fd09:0:0:NUMBER::/64`.
fn create(lab: &Lab, name: &str, number: u8, options: &[&str]) {
    let subnets = [format!("10.9.{number}.0/24"), format!("fd09:0:0:{number}::/64")];
    let ranges = ["--ipv6", "--subnet", &subnets[0], "--subnet", &subnets[1]];
    network(lab, &[&["create", name], &ranges[..], options].concat());
}

fn address_of(running: &RunningBox) -> Ipv6Addr {
    running.address6.expect("a box with an IPv6 address")
}

fn at(running: &RunningBox, port: u16) -> SocketAddr {
    SocketAddr::from((address_of(running), port))
}

/// N1: by their own addresses, and out with the host's. At the same place of both ranges; no neighbour is asked for.
fn members_reach_each_other_and_the_outside_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let (one, other) = (member(&lab, "db", &SERVER), member(&lab, "db", &["listen", "udp", "[::]:53"]));
    for running in [&one, &other] {
        let last = u16::from(running.address.octets()[3]);
        assert_eq!(address_of(running), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last));
    }
    let heard = Capture::start(&one.place());
    let gateway = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
    for outcome in other.inside(|| {
        [
            probe::tcp(at(&one, 80)),
            probe::icmp(address_of(&one)),
            probe::icmp(gateway),
            probe::tcp(WAN.into()),
        ]
    }) {
        assert!(outcome.reached(), "{outcome}");
    }
    let seen = one.inside(|| probe::udp(at(&other, 53))).seen_as();
    assert_eq!(seen, Some(address_of(&one).into()), "not translated on the way");
    for running in [&one, &other] {
        for outcome in running.inside(|| [probe::tcp(WAN.into()), probe::udp(WAN.into())]) {
            assert_eq!(outcome.seen_as(), Some(HOST6.into()), "{outcome}");
        }
    }
    let pings = |packet| matches!(packet, Packet::Ipv6 { next_header: 58, source, .. } if source == address_of(&other));
    let count = heard.packets().into_iter().filter(|packet| pings(*packet)).count();
    assert_eq!(count, 1, "a ping, and no question for a neighbour: {:?}", heard.packets());
    // The host itself may look at them, by the addresses that it knows.
    let known = record_of(&lab, &one)["attachment"]["address6"].as_str().expect("an address").to_owned();
    let known: Ipv6Addr = known.parse().expect("an address");
    assert!(probe::tcp(SocketAddr::from((known, 80))).reached(), "{known}");
    assert_eq!(ps(&lab, &one)["ipv6"].as_str(), Some(&*address_of(&one).to_string()));
    let without = lab.start(&["--net", "db", "--no-ipv6"], &["sleep"]);
    assert_eq!(without.address6, None);
    let nobody = SocketAddr::from((Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x99), 80));
    let (start, outcome) = (Instant::now(), other.inside(|| probe::tcp(nobody)));
    assert!(outcome.refused() && start.elapsed() < Duration::from_millis(500), "{outcome}");
}

/// Nothing else of IPv6 works, and is told so at once.
fn members_have_ipv6_among_themselves_on_a_host_without() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
    create(&lab, "db", 0, &[]);
    create(&lab, "apart", 1, &["--isolate"]);
    let server = lab.start(&["--name", "store", "--net", "db", "-p", "8080:80"], &SERVER);
    let other = member(&lab, "db", &["sleep"]);
    for outcome in other.inside(|| [probe::tcp(at(&server, 80)), probe::icmp(address_of(&server))]) {
        assert!(outcome.reached(), "{outcome}");
    }
    assert!(other.inside(|| probe::udp(WAN.into())).refused());
    assert!(other.inside(|| probe::tcp(SocketAddr::from((HOST, 8080)))).reached(), "over IPv4");
    let [one, two] = [(); 2].map(|()| member(&lab, "apart", &SERVER));
    assert!(!two.inside(|| probe::tcp(at(&one, 80))).reached(), "isolated");
    assert_eq!(ps(&lab, &server)["ipv6"].as_str(), Some(&*address_of(&server).to_string()));
    let described = described(&lab, "store");
    assert_eq!(described["addresses"]["ipv6"].as_str(), Some(&*address_of(&server).to_string()));
    assert_eq!(described["gateways"]["ipv6"], Value::Null);
}

/// I2: nor does a box that is in no network.
fn boxes_of_different_networks_reach_published_ports_only_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    create(&lab, "web", 1, &[]);
    let server = lab.start(&["--net", "db", "-p", "8080:80"], &SERVER);
    let plain_server = lab.start(&["-p", "8081:80"], &SERVER);
    let (stranger, plain) = (member(&lab, "web", &["sleep"]), lab.start(&[], &["sleep"]));
    let known = record_of(&lab, &server)["attachment"]["address6"].as_str().expect("an address").to_owned();
    let known: Ipv6Addr = known.parse().expect("an address");
    for running in [&stranger, &plain] {
        let start = Instant::now();
        for outcome in running.inside(|| {
            [
                probe::tcp(at(&server, 80)),
                probe::tcp(SocketAddr::from((known, 80))),
                probe::icmp(address_of(&server)),
            ]
        }) {
            assert!(!outcome.reached(), "{}: {outcome}", address_of(running));
        }
        assert!(start.elapsed() < Duration::from_secs(4), "told, not left to a time-out");
        let published = running.inside(|| probe::tcp(SocketAddr::from((HOST6, 8080))));
        assert!(published.reached(), "{}: {published}", address_of(running));
    }
    let outcome = stranger.inside(|| probe::tcp(at(&plain_server, 80)));
    assert!(outcome.refused(), "a box without a network: {outcome}");
    let outcome = stranger.inside(|| probe::tcp(SocketAddr::from((HOST6, 8081))));
    assert!(outcome.reached(), "its published port: {outcome}");
}

/// N2: who comes from outside keeps its address. The port goes with `port rm`, and with the box.
fn a_published_port_of_a_member_is_reached_over_ipv6_from_everywhere() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let server = lab.start(&["--name", "web", "--net", "db", "-p", "8080:80", "-p", "8081:80"], &SERVER);
    let (fellow, plain) = (member(&lab, "db", &["sleep"]), lab.start(&[], &["sleep"]));
    let published = SocketAddr::from((HOST_LAN6, 8080));
    let neighbour = lab.client(|| probe::tcp(published));
    let seen = neighbour.seen_as();
    assert!(seen.is_some_and(|seen| seen.is_ipv6() && seen != IpAddr::V6(HOST_LAN6)), "{neighbour}");
    for (who, outcome) in [
        ("the host", probe::tcp(SocketAddr::from((HOST6, 8080)))),
        ("the host's loopback", probe::tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, 8080)))),
        ("the box itself", server.inside(|| probe::tcp(SocketAddr::from((HOST6, 8080))))),
        ("another member", fellow.inside(|| probe::tcp(SocketAddr::from((HOST6, 8080))))),
        ("a box without a network", plain.inside(|| probe::tcp(SocketAddr::from((HOST6, 8080))))),
    ] {
        assert!(outcome.reached(), "{who}: {outcome}");
    }
    let removed = lab.netbox(&["port", "rm", "web", "8081:80"]).output().expect("netbox port");
    assert!(removed.status.success(), "{}", words(&removed));
    assert!(!lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN6, 8081)))).reached());
    assert!(lab.client(|| probe::tcp(published)).reached());
    drop(server);
    assert!(!lab.client(|| probe::tcp(published)).reached(), "it has ended");
}

/// I2: not by a route of its own either.
fn an_internal_network_has_no_way_out_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "inner", 0, &["--internal"]);
    let published = lab.start(&["-p", "8080:80"], &SERVER);
    let (one, other) = (member(&lab, "inner", &SERVER), member(&lab, "inner", &["sleep"]));
    let attempts = |way: &str| {
        for (what, outcome) in other.inside(|| {
            [
                ("tcp", probe::tcp(WAN.into())),
                ("udp", probe::udp(WAN.into())),
                ("a published port", probe::tcp(SocketAddr::from((HOST6, 8080)))),
            ]
        }) {
            assert!(outcome.refused(), "{way}, {what}: {outcome}");
        }
    };
    attempts("no route");
    let gateway = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
    other.inside(|| links::route_by("eth0", Ipv6Addr::UNSPECIFIED.into(), 0, gateway.into()));
    attempts("a route of its own");
    assert!(other.inside(|| probe::tcp(at(&one, 80))).reached(), "members reach each other");
    assert_eq!((lab.wan_tcp.visits(), lab.wan_udp.visits()), (0, 0));
    drop(published);
}

/// I2: not over the bridge, be it to the other's own hardware address, nor by way of the gateway.
fn isolated_boxes_do_not_reach_each_other_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "apart", 0, &["--isolate"]);
    let server = lab.start(&["--net", "apart", "-p", "8080:80"], &SERVER);
    let other = member(&lab, "apart", &["sleep"]);
    assert!(other.inside(|| probe::tcp(at(&server, 80))).refused());
    let heard = Capture::start(&server.place());
    let (from, to) = (address_of(&other), address_of(&server));
    other.inside(|| inject(&ethernet(mac_of(&server), mac_of(&other), IP, &datagram(from, to, 5000))));
    for to in [WAN.into(), SocketAddr::from((HOST6, 8080))] {
        let outcome = other.inside(|| probe::tcp(to));
        assert!(outcome.reached(), "{to}: {outcome}");
    }
    assert!(!heard.any(|packet| packet.source() == Some(from.into())), "{:?}", heard.packets());
}

const IP: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const GATEWAY: [u8; 6] = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x01];

/// A packet (RFC 8200) of UDP or ICMPv6, whose checksum is right (RFC 8200, 8.1). `sum`: where in the payload it belongs.
fn packet(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8], sum: usize) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let pseudo =
        [&from.octets()[..], &to.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, next]].concat();
    let all = [&pseudo[..], payload].concat();
    let total: u32 =
        all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    let folded = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("16 bits");
    let mut payload = payload.to_vec();
    payload[sum..sum + 2].copy_from_slice(&folded.to_be_bytes());
    let head =
        [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255], &from.octets(), &to.octets()].concat();
    [head, payload].concat()
}

fn datagram(from: Ipv6Addr, to: Ipv6Addr, port: u16) -> Vec<u8> {
    let payload = [&[40_000u16, port, 16, 0].map(u16::to_be_bytes).concat()[..], b"a packet"].concat();
    packet(from, to, UDP, &payload, 6)
}

/// I2: neither to another member, nor, in its name, to the outside.
fn a_member_cannot_send_with_anothers_ipv6_addresses() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let [spoofer, victim, receiver] = [(); 3].map(|()| member(&lab, "db", &["sleep"]));
    let [own, his, theirs] = [&spoofer, &victim, &receiver].map(mac_of);
    let [from, victims, to] = [&spoofer, &victim, &receiver].map(address_of);
    let listener = receiver.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5000)).expect("to bind"));
    listener.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77);
    let gateways = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
    spoofer.inside(|| {
        for source in [victims, stranger, gateways, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7)] {
            for mac in [theirs, GATEWAY] {
                inject(&ethernet(mac, own, IP, &datagram(source, to, 5000)));
            }
            inject(&ethernet(GATEWAY, own, IP, &datagram(source, WAN6, ECHO)));
        }
        inject(&ethernet(theirs, his, IP, &datagram(from, to, 5000)));
        inject(&ethernet(GATEWAY, his, IP, &datagram(victims, WAN6, ECHO)));
        // By the same way: when this arrives, those before it would have.
        inject(&ethernet(GATEWAY, own, IP, &datagram(from, to, 5000)));
    });
    let (_, source) = listener.recv_from(&mut [0; 64]).expect("the honest one");
    assert_eq!(source.ip(), IpAddr::V6(from));
    listener.set_nonblocking(true).expect("to change a socket");
    assert!(listener.recv_from(&mut [0; 64]).is_err(), "nothing else arrived");
    assert!(spoofer.inside(|| probe::udp(WAN.into())).reached());
    assert_eq!(lab.wan_udp.visits(), 1, "{:?}", lab.wan_udp.visitors());
}

/// A neighbour solicitation (135), advertisement (136), router advertisement (134) or redirect (137), with the liar's hardware
/// address (RFC 4861, 4), as the kernel would take it for true.
fn lie(kind: u8, about: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let option = |number: u8| [&[number, 1][..], &mac].concat();
    match kind {
        134 => [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8], &option(1)].concat(),
        135 => [&[135, 0, 0, 0, 0, 0, 0, 0][..], &about.octets(), &option(1)].concat(),
        136 => [&[136, 0, 0, 0, 0xa0, 0, 0, 0][..], &about.octets(), &option(2)].concat(),
        _ => [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &about.octets(), &about.octets(), &option(2)].concat(),
    }
}

/// I2: there is nothing to lie about, and lies go nowhere: behind an extension header neither. What is for a link-local address
/// does not arrive, though the box has one; a multicast does.
fn no_member_hears_neighbours_or_routers() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let [liar, victim, hearer] = [(); 3].map(|()| member(&lab, "db", &["sleep"]));
    let [own, hearers] = [&liar, &hearer].map(mac_of);
    let [from, about, to] = [&liar, &victim, &hearer].map(address_of);
    let local = |last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
    hearer.inside(|| links::address("eth0", local(9).into(), 64));
    let neighbours = || hearer.inside(|| fs::read_to_string("/proc/net/ipv6_route").expect("the routes"));
    let before = neighbours();
    let heard = Capture::start(&hearer.place());
    liar.inside(|| {
        for kind in [133, 134, 135, 136, 137, 143] {
            for (source, mac) in [(from, [0x33, 0x33, 0, 0, 0, 1]), (local(7), hearers), (from, hearers)] {
                let to = if mac == hearers { to } else { all_nodes };
                let plain = packet(source, to, ICMPV6, &lie(kind, about, own), 2);
                // Destination options (60) that say nothing, and what follows them.
                let (head, lie) = plain.split_at(40);
                let mut behind = [head, &[ICMPV6, 0, 1, 4, 0, 0, 0, 0], lie].concat();
                behind[6] = 60;
                behind[4..6].copy_from_slice(&u16::try_from(lie.len() + 8).expect("short").to_be_bytes());
                inject(&ethernet(mac, own, IP, &plain));
                inject(&ethernet(mac, own, IP, &behind));
            }
        }
        inject(&ethernet(hearers, own, IP, &datagram(from, local(9), 5000)));
        inject(&ethernet([0x33, 0x33, 0, 0, 0, 0xfb], own, IP, &datagram(from, group, 5353)));
    });
    let multicast = |packet| matches!(packet, Packet::Ipv6 { destination, .. } if destination == group);
    let limit = Instant::now() + Duration::from_secs(2);
    while !heard.any(multicast) && Instant::now() < limit {
        std::thread::yield_now();
    }
    let mut packets = heard.packets();
    // What this box's own kernel says, now that it has a link-local address.
    let own_words = |source: Ipv6Addr| source.is_unspecified() || source == local(9);
    packets.retain(|packet| !matches!(packet, Packet::Ipv6 { source, .. } if own_words(*source)));
    assert!(packets.iter().copied().all(multicast) && packets.len() == 1, "{packets:?}");
    assert_eq!(neighbours().lines().count(), before.lines().count());
    let reached = hearer.inside(|| probe::icmp(about));
    assert!(reached.reached(), "{reached}");
}

/// I2: though all of the network come to the gateway by one interface.
fn a_member_tells_of_errors_in_connections_of_its_own_only() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let [victim, forger] = [(); 2].map(|()| member(&lab, "db", &["sleep"]));
    let peer = lab.wan(|| UdpSocket::bind((WAN6, 0)).expect("to bind"));
    peer.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let there = peer.local_addr().expect("an address");
    let socket = victim.inside(|| UdpSocket::bind((address_of(&victim), 0)).expect("to bind"));
    let at = socket.local_addr().expect("an address");
    socket.send_to(b"hello", there).expect("to send");
    let (_, from) = peer.recv_from(&mut [0; 64]).expect("a datagram");
    peer.connect(from).expect("to connect");
    let udp = [&[there.port(), at.port(), 16, 0].map(u16::to_be_bytes).concat()[..], b"a packet"].concat();
    let about = packet(WAN6, address_of(&victim), UDP, &udp, 6);
    // Destination unreachable, port unreachable (RFC 4443, 3.1).
    let error = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &about].concat();
    forger.inside(|| {
        let lie = packet(address_of(&forger), WAN6, ICMPV6, &error, 2);
        inject(&ethernet(GATEWAY, mac_of(&forger), IP, &lie));
        // By the same way: when this is answered, the other would have arrived.
        assert!(probe::udp(WAN.into()).reached());
    });
    let heard = peer.take_error().expect("a socket");
    assert!(heard.is_none(), "an error in the name of another box: {heard:?}");
    drop(socket);
    peer.send(b"are you there?").expect("to send");
    let told = peer.recv(&mut [0; 64]).expect_err("nobody is there");
    assert_eq!(told.kind(), std::io::ErrorKind::ConnectionRefused, "{told}");
}

/// N4: AAAA and PTR; a name without an IPv6 address is there all the same.
fn members_find_each_others_ipv6_addresses_by_name_at_once() {
    const AAAA: u8 = 28;
    const PTR: u8 = 12;
    let lab = names::lab("nameserver 198.51.100.99\noptions timeout:1 attempts:1\n");
    create(&lab, "Db", 0, &[]);
    network(&lab, &["create", "four", "--subnet", "10.9.1.0/24"]);
    let asker = member(&lab, "Db", &["sleep"]);
    for last in [0x77, 0x78] {
        let address = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last);
        let store = lab.start(&["--name", "Store", "--net", &format!("Db:ip6={address}")], &["sleep"]);
        for name in [&["store"][..], &["STORE"], &["store", "db"]] {
            let said = ask(&asker, name, AAAA);
            assert!(answers(&said) == (0, 1) && said.ends_with(&address.octets()), "{name:?}: {said:?}");
        }
        let digits: Vec<String> = address
            .octets()
            .iter()
            .rev()
            .flat_map(|byte| [byte & 15, byte >> 4])
            .map(|digit| format!("{digit:x}"))
            .collect();
        let labels: Vec<&str> = digits.iter().map(String::as_str).chain(["ip6", "arpa"]).collect();
        let said = ask(&asker, &labels, PTR);
        assert!(answers(&said) == (0, 1) && said.windows(6).any(|part| part == b"\x05Store"), "{said:?}");
        store.end();
        assert_ne!(answers(&ask(&asker, &["store"], AAAA)), (0, 1), "it has ended");
        assert_eq!(answers(&ask(&asker, &labels, PTR)), (3, 0));
    }
    let _without = lab.start(&["--name", "plain", "--net", "Db", "--no-ipv6"], &["sleep"]);
    assert_eq!(answers(&ask(&asker, &["plain"], AAAA)), (0, 0), "no data");
    let four = lab.start(&["--name", "one", "--net", "four"], &["sleep"]);
    assert_eq!(answers(&ask(&four, &["one"], AAAA)), (0, 0), "no data");
}

/// L1: also at once after the box before.
fn ipv6_addresses_of_a_network_are_had_or_refused() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &["--ip-range", "fd09::7:0/112"]);
    network(&lab, &["create", "four", "--subnet", "10.9.1.0/24"]);
    let running = lab.start(&["--name", "one", "--net", "db:ip=10.9.0.7,ip6=fd09::8:7"], &["sleep"]);
    assert_eq!(running.address6, "fd09::8:7".parse().ok());
    let next = lab.start(&["--net", "db:ip=10.9.0.8", "--ip6", "fd09::7:9"], &["sleep"]);
    assert_eq!(next.address6, "fd09::7:9".parse().ok());
    // The place of its IPv4 address is taken: the next is not.
    let third = lab.start(&["--net", "db:ip=10.9.0.9"], &["sleep"]);
    assert_eq!(third.address6, "fd09::7:a".parse().ok());
    for (net, expected) in [
        ("db:ip6=fd09::8:7", &["fd09::8:7", "box one (pid"][..]),
        ("db:ip6=fd09::1", &["fd09::1", "it is the gateway's"]),
        ("db:ip6=fd09::", &["no address of a box in fd09::/64"]),
        ("db:ip6=fd09:0:0:1::7", &["no address of a box in fd09::/64"]),
        ("four:ip6=fd09::7", &["network four", "has no IPv6", "--ipv6"]),
    ] {
        refused(&lab, &["run", "--net", net, "--", "true"], 125, expected);
    }
    running.end();
    for _ in 0..5 {
        let again = lab.start(&["--net", "db:ip6=fd09::8:7"], &["sleep"]);
        assert!(next.inside(|| probe::icmp(address_of(&again))).reached());
        again.end();
    }
    network(&lab, &["create", "few", "--ipv6", "--subnet", "fd09:0:0:2::/125"]);
    let all: Vec<_> = (0..6).map(|_| member(&lab, "few", &["sleep"])).collect();
    refused(&lab, &["run", "--net", "few", "--", "true"], 125, &["network few", "all of its IPv6 addresses"]);
    drop(all);
}

/// As `netbox inspect` describes a box.
fn described(lab: &Lab, name: &str) -> Value {
    let output = lab.netbox(&["inspect", name]).output().expect("netbox can be started");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    value.as_array().map_or(value.clone(), |all| all[0].clone())
}

fn ranges_of_ipv6_are_chosen_kept_and_described() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "one", "--ipv6"]);
    network(&lab, &["create", "two", "--ipv6"]);
    create(&lab, "given", 0, &["--gateway", "fd09::fe", "--ip-range", "fd09::7:0/112"]);
    network(&lab, &["create", "four"]);
    let [one, two, given, four] = ["one", "two", "given", "four"].map(|name| inspect(&lab, name));
    for network in [&one, &two] {
        let subnet = network["subnet6"].as_str().expect("a range");
        assert!(subnet.starts_with("fd") && subnet.ends_with("::/64"), "{subnet}");
        assert_eq!(network["gateway6"].as_str(), Some(&*subnet.replace("/64", "1")));
    }
    assert_ne!(one["subnet6"], two["subnet6"]);
    assert_eq!(
        ["subnet6", "gateway6", "ip_range6"].map(|field| given[field].as_str()),
        [Some("fd09::/64"), Some("fd09::fe"), Some("fd09::7:0/112")]
    );
    assert_eq!(four["subnet6"], Value::Null);
    let table = network(&lab, &["ls"]);
    assert!(table.contains(",fd09::/64"), "{table}");
    let running = lab.start(&["--name", "box", "--net", "given"], &["sleep"]);
    let boxes = inspect(&lab, "given")["boxes"].clone();
    assert_eq!(boxes[0]["ipv6"].as_str(), Some(&*address_of(&running).to_string()));
    assert!(running.inside(|| probe::icmp("fd09::fe".parse::<Ipv6Addr>().expect("an address"))).reached());
    let inspected = described(&lab, "box");
    assert_eq!(inspected["addresses"]["ipv6"].as_str(), Some(&*address_of(&running).to_string()));
    assert_eq!(inspected["gateways"]["ipv6"].as_str(), Some("fd09::fe"));
}

/// When a network is made, and when it is used.
fn ranges_of_ipv6_that_conflict_are_refused_naming_the_other() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let plain = lab.start(&[], &["sleep"]);
    let pool = inspect(&lab, "nat")["subnet6"].as_str().expect("a pool").to_owned();
    let web = |subnet: &str, expected: &[&str]| {
        refused(&lab, &["network", "create", "web", "--ipv6", "--subnet", subnet], 125, expected);
    };
    web("fd09::/48", &["network db has fd09::/64"]);
    web("2001:db8:2::/64", &["the host has the address 2001:db8:2::1/64"]);
    web(&pool, &["boxes without a network", &pool]);
    drop(plain);
    links::route("fd09::7:0".parse::<Ipv6Addr>().expect("an address").into(), 112, WAN6.into());
    refused(&lab, &["run", "--net", "db", "--", "true"], 125, &["network db", "a route to fd09::7:0/112"]);
    links::remove_route("fd09::7:0".parse::<Ipv6Addr>().expect("an address").into(), 112, WAN6.into());
    drop(member(&lab, "db", &["sleep"]));
}

/// L2: keepers and launchers at once, beside a member that goes on.
fn nothing_is_left_of_members_with_ipv6_that_were_killed() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let staying = member(&lab, "db", &SERVER);
    let options = ["--net", "db:ip=10.9.0.77,ip6=fd09::8:7", "-p", "8080:80"];
    let mut killed = lab.start(&options, &["sleep"]);
    send(keeper_of(&killed), Signal::SIGKILL);
    send(killed.launcher(), Signal::SIGKILL);
    killed.wait();
    // The sweep is part of this start, which gets the same addresses.
    let again = lab.start(&options, &SERVER);
    assert!(again.inside(|| probe::tcp(at(&staying, 80))).reached());
    assert!(probe::tcp(SocketAddr::from((HOST6, 8080))).reached());
    assert_eq!(inspect(&lab, "db")["boxes"].as_array().map(Vec::len), Some(2));
    again.end();
    let gone = staying.inside(|| probe::icmp("fd09::8:7".parse::<Ipv6Addr>().expect("an address")));
    assert!(!gone.reached(), "{gone}");
}

/// I2, L1: gateway and host forget them before the address is had again.
fn nobody_gets_the_connections_of_a_member_before() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let staying = member(&lab, "db", &["sleep"]);
    let own = "fd09:0000:0000:0000:0000:0000:0008:0007";
    let tracked = || {
        let inside = lab.netbox(&["gateway", "--", PROBE, "cat", "/proc/net/nf_conntrack"]).output();
        let inside = String::from_utf8(inside.expect("netbox gateway").stdout).expect("text");
        [inside, fs::read_to_string("/proc/net/nf_conntrack").expect("the host's")]
    };
    let before = lab.start(&["--net", "db:ip6=fd09::8:7"], &["sleep"]);
    let known = record_of(&lab, &before)["attachment"]["address6"].as_str().expect("an address").to_owned();
    let known: Ipv6Addr = known.parse().expect("an address");
    let known = known.segments().map(|part| format!("{part:04x}")).join(":");
    assert!(before.inside(|| probe::udp(WAN.into())).reached());
    let [inside, outside] = tracked();
    assert!(inside.contains(own) && outside.contains(&known), "{inside}\n{outside}");
    before.end();
    let again = lab.start(&["--net", "db:ip6=fd09::8:7"], &["sleep"]);
    let [inside, outside] = tracked();
    assert!(!inside.contains(own) && !outside.contains(&known), "{inside}\n{outside}");
    assert!(again.inside(|| probe::icmp(address_of(&staying))).reached());
}

fn a_dry_run_shows_the_ipv6_of_a_network() {
    let lab = Lab::new(Shape::OwnLan);
    create(&lab, "db", 0, &[]);
    let said = |options: &[&str]| {
        let arguments = [&["run", "--dry-run"], options, &["--", "true"]].concat();
        let output = lab.netbox(&arguments).output().expect("netbox can be started");
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = said(&["--net", "db:ip6=fd09::7"]);
    for part in ["address add fd09::7/128", "address add fd09::1/64", "@to6"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document: Value = serde_json::from_str(&said(&["--net", "db:ip6=fd09::7", "--json"])).expect("JSON");
    assert_eq!(
        ["ipv6", "gateway_ipv6"].map(|field| document["topology"][field].as_str()),
        [Some("fd09::7"), Some("fd09::1")]
    );
    refused(&lab, &["run", "--dry-run", "--net", "db:ip6=fd09::1", "--", "true"], 125, &["the gateway's"]);
}
