//! Who cannot talk to whom.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, sendto, socket,
};

use crate::lab::{
    ECHO, HOST, HOST_LAN, HOST6, Lab, RunningBox, Service, Shape, WAN, WAN6, links, live_tests, nftables,
    probe,
};

live_tests![
    a_box_reaches_no_service_of_the_host,
    a_box_reaches_no_other_box,
    a_box_cannot_spoof_a_source_address,
    a_box_cannot_forge_errors_about_connections_of_others,
    a_box_cannot_forge_errors_about_connections_of_its_network,
    what_belongs_to_no_connection_does_not_leave_a_box,
    a_neighbour_with_a_route_reaches_no_box,
    a_neighbour_on_the_uplink_with_a_route_reaches_no_box,
    a_neighbour_reaches_no_port_published_on_loopback,
    the_host_is_no_router_between_its_networks,
    the_host_is_no_router_for_the_uplinks_neighbours,
    the_host_is_no_router_while_its_rules_are_flushed,
    a_flush_opens_no_service_of_the_host,
    a_flush_lets_nothing_leave_unfenced,
];

/// An attempt denied has to be told at once, not to be left to a time-out.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The fence's own addresses, as boxes see them: the gateway and the next hop behind it.
pub(crate) fn gateways(running: &RunningBox) -> [Ipv4Addr; 2] {
    let pool = u32::from(running.address) & !((1 << 14) - 1);
    [Ipv4Addr::from(pool + 1), Ipv4Addr::from(pool + 2)]
}

/// The host's TCP port 22 and UDP port 5354, open to the world.
fn host_services(lab: &Lab) -> [Service; 2] {
    let on = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    [Service::tcp(lab.host_place(), on(22)), Service::udp(lab.host_place(), on(5354))]
}

fn assert_denied_at_once(running: &RunningBox, attempt: impl FnOnce() -> probe::Outcome + Send, what: &str) {
    let start = Instant::now();
    let outcome = running.inside(attempt);
    assert!(outcome.refused(), "{what}: {outcome}");
    assert!(start.elapsed() < AT_ONCE, "{what}: {outcome} after {:?}", start.elapsed());
}

/// I1: on no address of it, and it is told so at once.
fn a_box_reaches_no_service_of_the_host() {
    let lab = Lab::new(Shape::OwnLan);
    let services = host_services(&lab);
    let running = lab.start(&[], &["sleep"]);
    let [gateway, hop] = gateways(&running);
    for address in [gateway, HOST, HOST_LAN, Ipv4Addr::LOCALHOST] {
        let at = |port| SocketAddr::from((address, port));
        assert_denied_at_once(&running, || probe::tcp(at(22)), &format!("tcp to {address}"));
        assert_denied_at_once(&running, || probe::udp(at(5354)), &format!("udp to {address}"));
    }
    // Nobody has this address; what is sent there must not be taken for something of the host's.
    assert!(!running.inside(|| probe::udp(SocketAddr::from((hop, 5354)))).reached());
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);

    let neighbour = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 22))));
    assert!(neighbour.reached(), "the service is there: {neighbour}");
}

/// I2: not its listening ports; the host itself may look at them.
fn a_box_reaches_no_other_box() {
    let lab = Lab::new(Shape::OwnLan);
    let server = lab.start(&[], &["listen", "tcp", "0.0.0.0:80"]);
    let datagrams = lab.start(&[], &["listen", "udp", "0.0.0.0:53"]);
    let other = lab.start(&[], &["sleep"]);
    let (tcp, udp) = (SocketAddr::from((server.address, 80)), SocketAddr::from((datagrams.address, 53)));
    assert_denied_at_once(&other, || probe::tcp(tcp), "tcp to another box");
    assert_denied_at_once(&other, || probe::udp(udp), "udp to another box");
    assert!(!other.inside(|| probe::icmp(server.address)).reached(), "a ping to another box");
    let host = probe::tcp(tcp);
    assert!(host.reached(), "the server is there: {host}");
}

/// I2: neither an address of the outside nor one of another box.
fn a_box_cannot_spoof_a_source_address() {
    let lab = Lab::new(Shape::OwnLan);
    let (spoofer, victim) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    let stranger = Ipv4Addr::new(198, 51, 100, 77);
    let wan = SocketAddr::from((WAN, ECHO));
    spoofer.inside(|| {
        for source in [stranger, victim.address] {
            links::address("eth0", source.into(), 32);
            let socket = UdpSocket::bind((source, 0)).expect("an address of this namespace");
            socket.send_to(b"spoofed", wan).expect("to send");
        }
        // By the same way: when this is answered, those before it would have arrived.
        let socket = UdpSocket::bind((spoofer.address, 0)).expect("its own address");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
        socket.send_to(b"honest", wan).expect("to send");
        socket.recv(&mut [0; 64]).expect("an answer to the honest one");
    });
    assert_eq!(lab.wan_udp.visits(), 1, "{:?}", lab.wan_udp.visitors());
    assert!(!lab.seen_by_wan(|packet| packet.source() == Some(stranger.into())));
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("16 bits")
}

/// Says that a datagram could not be delivered ("port unreachable"; RFC 792, RFC 4443 §3.1), to the one who sent it.
fn send_error(about_from: SocketAddr, about_to: SocketAddr) {
    let ports = [about_from.port(), about_to.port()].map(u16::to_be_bytes).concat();
    let udp = [&ports[..], &[0, 8, 0, 0]].concat();
    let (family, protocol, mut message) = match (about_from.ip(), about_to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
            let quoted = [&header[..], &from.octets(), &to.octets(), &udp].concat();
            (AddressFamily::Inet, SockProtocol::Icmp, [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[..]].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = [0x60, 0, 0, 0, 0, 8, 17, 64];
            let quoted = [&header[..], &from.octets(), &to.octets(), &udp].concat();
            (AddressFamily::Inet6, SockProtocol::IcmpV6, [&[1, 4, 0, 0, 0, 0, 0, 0], &quoted[..]].concat())
        }
        _ => panic!("two families"),
    };
    // That of ICMPv6 is the kernel's work (RFC 3542 §3.1).
    if family == AddressFamily::Inet {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("a raw socket");
    let to = SockaddrStorage::from(SocketAddr::new(about_from.ip(), 0));
    sendto(raw.as_raw_fd(), &message, &to, MsgFlags::empty()).expect("to send");
}

/// A datagram there and back, and nothing heard of an error before.
fn assert_undisturbed(socket: &UdpSocket, what: &str) {
    let result = socket.send(b"who am I?").and_then(|_| socket.recv(&mut [0; 64]));
    assert!(result.is_ok(), "{what}: {result:?}");
}

fn assert_told(socket: &UdpSocket, what: &str) {
    let error = socket.recv(&mut [0; 64]).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{what}");
}

fn bound(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("to bind");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    socket
}

/// I2: with the rights of NET_RAW, neither to the other box nor, in its name, to those it talks with. What the outside has to
/// tell of the connection arrives, and so does what a box has to tell of its own.
fn a_box_cannot_forge_errors_about_connections_of_others() {
    let lab = Lab::new(Shape::OwnLan);
    let (victim, forger) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    let own6 = victim.address6.expect("an IPv6 address");
    for (own, wan) in [(IpAddr::V4(victim.address), IpAddr::V4(WAN)), (own6.into(), WAN6.into())] {
        let echo = SocketAddr::new(wan, ECHO);
        let (socket, outside) = victim.inside(|| {
            let socket = bound(own);
            socket.connect(echo).expect("to connect");
            socket.send(b"who am I?").expect("to send");
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).expect("an answer");
            let outside = String::from_utf8_lossy(&answer[..length]).parse::<SocketAddr>();
            (socket, outside.expect("an address"))
        });
        let at = socket.local_addr().expect("an address");
        forger.inside(|| {
            send_error(at, echo);
            // By the same way: when this is answered, the other has arrived.
            assert!(probe::udp(echo).reached());
        });
        assert_undisturbed(&socket, "an error that another box forged");
        lab.wan(|| send_error(outside, echo));
        assert_told(&socket, "an error from outside");

        let peer = lab.wan(|| bound(wan));
        let there = peer.local_addr().expect("an address");
        let socket = victim.inside(|| bound(own));
        let at = socket.local_addr().expect("an address");
        socket.send_to(b"hello", there).expect("to send");
        let (_, from) = peer.recv_from(&mut [0; 64]).expect("a datagram");
        peer.connect(from).expect("to connect");
        forger.inside(|| {
            send_error(there, at);
            assert!(probe::udp(echo).reached());
        });
        let heard = peer.take_error().expect("a socket");
        assert!(heard.is_none(), "an error in the name of another box: {heard:?}");
        drop(socket);
        peer.send(b"are you there?").expect("to send");
        assert_told(&peer, "an error of the box's own, about a connection it opened");
    }
    let server = lab.start(&["-p", "5353:5353/udp"], &["sleep"]);
    for address in [IpAddr::V4(HOST), HOST6.into()] {
        let outcome = lab.wan(|| probe::udp(SocketAddr::new(address, 5353)));
        assert!(outcome.refused(), "nobody listens in the box: {outcome}");
    }
    drop(server);
}

/// I2: the same for boxes of one network, whose packets come by the same interface.
fn a_box_cannot_forge_errors_about_connections_of_its_network() {
    let lab = Lab::new(Shape::OwnLan);
    let created = lab.netbox(&["network", "create", "db"]).output().expect("netbox can be started");
    assert!(created.status.success(), "{created:?}");
    let (victim, forger) = (lab.start(&["--net", "db"], &["sleep"]), lab.start(&["--net", "db"], &["sleep"]));
    let peer = lab.wan(|| bound(WAN.into()));
    let there = peer.local_addr().expect("an address");
    let socket = victim.inside(|| bound(victim.address.into()));
    let at = socket.local_addr().expect("an address");
    socket.send_to(b"hello", there).expect("to send");
    let (_, from) = peer.recv_from(&mut [0; 64]).expect("a datagram");
    peer.connect(from).expect("to connect");
    forger.inside(|| {
        send_error(there, at);
        assert!(probe::udp(SocketAddr::from((WAN, ECHO))).reached());
    });
    let heard = peer.take_error().expect("a socket");
    assert!(heard.is_none(), "an error in the name of another box: {heard:?}");
    drop(socket);
    peer.send(b"are you there?").expect("to send");
    assert_told(&peer, "an error of the box's own, about a connection it opened");
}

/// I4: not even with the lab's rights. NAT passes over what connection tracking finds invalid, an answer to a ping that
/// nobody sent for instance; it would be seen outside with its address of the pool.
fn what_belongs_to_no_connection_does_not_leave_a_box() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    running.inside(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).expect("a raw socket");
        // Type 0, an echo reply; the checksum of it.
        let answer = [0, 0, 0xff, 0xfd, 0, 1, 0, 1];
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(WAN, 0));
        sendto(raw.as_raw_fd(), &answer, &to, MsgFlags::empty()).expect("to send");
        // By the same way: when this is answered, the other would have arrived.
        assert!(probe::udp(SocketAddr::from((WAN, ECHO))).reached());
    });
    assert!(!lab.seen_by_wan(|packet| packet.source() == Some(running.address.into())));
}

/// What a neighbour who has found out the pool tries.
fn assert_box_hidden(lab: &Lab) {
    let by = IpAddr::V4(lab.host_for_client());
    lab.client(|| links::route(Ipv4Addr::new(10, 0, 0, 0).into(), 8, by));
    let server = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    let unpublished = lab.start(&[], &["listen", "udp", "0.0.0.0:53"]);
    lab.client(|| {
        let mapped = probe::tcp(SocketAddr::from((server.address, 80)));
        assert!(!mapped.reached(), "the box side of a mapping: {mapped}");
        let open = probe::udp(SocketAddr::from((unpublished.address, 53)));
        assert!(!open.reached(), "an unpublished port: {open}");
        assert!(!probe::icmp(server.address).reached(), "a ping");
        let published = probe::tcp(SocketAddr::from((lab.host_for_client(), 8080)));
        assert!(published.reached(), "the published port: {published}");
    });
}

/// I3: neither an unpublished port nor the box side of a mapping.
fn a_neighbour_with_a_route_reaches_no_box() {
    assert_box_hidden(&Lab::new(Shape::OwnLan));
}

/// I3: the same on the uplink's own network.
fn a_neighbour_on_the_uplink_with_a_route_reaches_no_box() {
    assert_box_hidden(&Lab::new(Shape::SharedUplink));
}

/// I3: `-p 127.0.0.1:…` is for the host alone.
fn a_neighbour_reaches_no_port_published_on_loopback() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "127.0.0.1:8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    for address in [HOST_LAN, HOST] {
        let target = SocketAddr::from((address, 8080));
        let outcome =
            if address == HOST { lab.wan(|| probe::tcp(target)) } else { lab.client(|| probe::tcp(target)) };
        assert!(!outcome.reached(), "{target}: {outcome}");
    }
    let host = probe::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    assert!(host.reached(), "{host}");
}

/// The client tries to reach wan through the host, and wan the client.
fn assert_no_router(lab: &Lab, when: &str) {
    let at = SocketAddr::from((lab.client_address(), 5354));
    lab.client(|| probe::udp(SocketAddr::from((WAN, ECHO))));
    lab.wan(|| probe::udp(at));
    assert_eq!(lab.wan_udp.visits(), 0, "the client reached the outside {when}");
}

fn route_through_host(lab: &Lab) -> Service {
    lab.client(|| links::route(Ipv4Addr::new(198, 51, 100, 0).into(), 24, HOST_LAN.into()));
    Service::udp(lab.client_place(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5354)))
}

/// I4: with a box running, published ports or not.
fn the_host_is_no_router_between_its_networks() {
    let lab = Lab::new(Shape::OwnLan);
    let client = route_through_host(&lab);
    let _plain = lab.start(&[], &["sleep"]);
    assert_no_router(&lab, "beside a plain box");
    let _server = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    assert_no_router(&lab, "beside a published port");
    assert_eq!(client.visits(), 0, "the outside reached the client");
}

/// I4: nor from the uplink to the uplink.
fn the_host_is_no_router_for_the_uplinks_neighbours() {
    let lab = Lab::new(Shape::SharedUplink);
    let far = Ipv4Addr::new(203, 0, 113, 1);
    lab.wan(|| links::address("br0", far.into(), 32));
    lab.client(|| links::route(far.into(), 32, HOST.into()));
    let _running = lab.start(&["-p", "8080:80"], &["sleep"]);
    for when in ["beside a box", "after a flush"] {
        let outcome = lab.client(|| probe::udp(SocketAddr::from((far, ECHO))));
        assert_eq!(lab.wan_udp.visits(), 0, "{when}: {outcome}");
        nftables::flush();
    }
}

/// I4: rules flushed or not.
fn the_host_is_no_router_while_its_rules_are_flushed() {
    let lab = Lab::new(Shape::OwnLan);
    let client = route_through_host(&lab);
    let _server = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    nftables::flush();
    assert_no_router(&lab, "after a flush");
    assert_eq!(client.visits(), 0, "the outside reached the client");
}

/// I6: the closed half, towards the host.
fn a_flush_opens_no_service_of_the_host() {
    let lab = Lab::new(Shape::OwnLan);
    let services = host_services(&lab);
    let running = lab.start(&[], &["sleep"]);
    let [gateway, _] = gateways(&running);
    nftables::flush();
    running.inside(|| {
        for address in [HOST, HOST_LAN, gateway] {
            assert!(!probe::tcp(SocketAddr::from((address, 22))).reached(), "tcp to {address}");
            assert!(!probe::udp(SocketAddr::from((address, 5354))).reached(), "udp to {address}");
        }
    });
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);
}

/// I6: the closed half, towards the outside: with the host's address or not at all. (The lab fails if
/// an address of the pool is ever seen there.)
fn a_flush_lets_nothing_leave_unfenced() {
    let lab = Lab::new(Shape::OwnLan);
    let wan = SocketAddr::from((WAN, ECHO));
    let running = lab.start(&[], &["sleep"]);
    assert!(running.inside(|| probe::udp(wan)).reached());
    nftables::flush();
    for _ in 0..2 {
        let outcome = running.inside(|| probe::udp(wan));
        assert!(outcome.seen_as().is_none_or(|source| source == IpAddr::V4(HOST)), "{outcome}");
    }
    let status = running.end();
    assert_eq!(status.code(), Some(143), "the end of a box whose rules were flushed: {status}");
}
