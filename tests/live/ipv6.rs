//! IPv6: the outside is reached, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
    sockopt,
};

use crate::lab::{
    ECHO, HOST, HOST_LAN6, HOST6, Lab, RunningBox, Service, Shape, WAN, WAN6, links, live_tests, nftables,
    outcome, probe, read_sysctl, sysctl, words,
};

live_tests![
    a_box_reaches_the_outside_over_ipv6,
    a_box_on_a_laptop_reaches_the_outside_over_ipv6,
    a_box_is_told_of_packets_too_big_over_ipv6,
    a_box_knows_its_ipv6_address,
    a_box_has_no_link_local_address,
    a_box_with_a_small_mtu_has_no_ipv6,
    the_switches_of_ipv6_forwarding_stay_off,
    a_host_that_forwards_ipv6_already_is_left_alone,
    a_host_without_ipv6_gives_its_boxes_none,
    a_host_with_ipv6_alone_gives_its_boxes_that,
    a_box_reaches_no_service_of_the_host_over_ipv6,
    a_box_reaches_no_other_box_over_ipv6,
    a_box_reaches_no_metadata_service_over_ipv6,
    a_box_cannot_spoof_an_ipv6_address,
    a_box_cannot_pass_for_a_router,
    a_neighbour_with_a_route_reaches_no_box_over_ipv6,
    a_neighbour_on_the_uplink_with_a_route_reaches_no_box_over_ipv6,
    the_host_is_no_ipv6_router_between_its_networks,
    a_flush_opens_nothing_over_ipv6,
];

const WAN_ECHO: (Ipv6Addr, u16) = (WAN6, ECHO);

/// An attempt denied has to be told at once, not to be left to a time-out.
const AT_ONCE: Duration = Duration::from_millis(500);

fn address_of(running: &RunningBox) -> Ipv6Addr {
    running.address6.expect("a box with an IPv6 address")
}

fn assert_denied_at_once(running: &RunningBox, attempt: impl FnOnce() -> probe::Outcome + Send, what: &str) {
    let start = Instant::now();
    let outcome = running.inside(attempt);
    assert!(outcome.refused(), "{what}: {outcome}");
    assert!(start.elapsed() < AT_ONCE, "{what}: {outcome} after {:?}", start.elapsed());
}

fn reaches_wan(lab: &Lab) {
    let wan = SocketAddr::from(WAN_ECHO).to_string();
    for protocol in ["tcp", "udp"] {
        let outcome = lab.attempt(&[protocol, &wan]);
        assert_eq!(outcome.seen_as(), Some(IpAddr::V6(HOST6)), "{protocol}: {outcome}");
    }
    let outcome = lab.attempt(&["icmp", &WAN6.to_string()]);
    assert!(outcome.reached(), "{outcome}");
}

/// N1, N5: by TCP, UDP and ICMP, with the host's address as source.
fn a_box_reaches_the_outside_over_ipv6() {
    reaches_wan(&Lab::new(Shape::OwnLan));
}

/// N1: also where the neighbours are on the uplink's own network.
fn a_box_on_a_laptop_reaches_the_outside_over_ipv6() {
    reaches_wan(&Lab::new(Shape::SharedUplink));
}

/// N1: routers do not break IPv6 packets up, they say that one was too big.
fn a_box_is_told_of_packets_too_big_over_ipv6() {
    let lab = Lab::before(Shape::OwnLan, || links::set_mtu("hw", 1300));
    let running = lab.start(&["--mtu", "1500"], &["sleep"]);
    running.inside(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket");
        setsockopt(&socket, sockopt::Ipv6DontFrag, &true).expect("no fragments");
        socket.connect(WAN_ECHO).expect("to connect");
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            match socket.send(&[0; 1400]) {
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => return,
                _ => assert!(Instant::now() < end, "nothing was said of a packet that was too big"),
            }
            std::thread::yield_now();
        }
    });
}

/// In `NETBOX_IPV6` and `ps --json`.
fn a_box_knows_its_ipv6_address() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    let own = address_of(&running);
    assert!(own.is_unique_local(), "{own}");
    let listed = lab.netbox(&["ps", "--json"]).output().expect("netbox ps");
    assert!(words(&listed).contains(&own.to_string()), "{}", words(&listed));
    let environment = lab.run(&[], &["environment"]);
    let environment = String::from_utf8_lossy(&environment.stdout).into_owned();
    let told = environment.split('\0').find_map(|line| line.strip_prefix("NETBOX_IPV6="));
    let told: Ipv6Addr = told.expect("NETBOX_IPV6").parse().expect("an IPv6 address");
    assert_eq!(told.segments()[..4], own.segments()[..4]);
}

/// I1: nor one that the kernel would make by itself.
fn a_box_has_no_link_local_address() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    running.inside(|| {
        let all = nix::ifaddrs::getifaddrs().expect("the addresses");
        let six = all.filter_map(|found| Some(found.address?.as_sockaddr_in6()?.ip()));
        let found: Vec<_> = six.filter(Ipv6Addr::is_unicast_link_local).collect();
        assert_eq!(found, Vec::<Ipv6Addr>::new());
    });
}

/// What the kernel gives no IPv6 works over IPv4.
fn a_box_with_a_small_mtu_has_no_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["--mtu", "1279"], &["sleep"]);
    assert_eq!(running.address6, None);
    let outcome = running.inside(|| probe::udp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "{outcome}");
}

/// I4: forwarding is switched on by the interface; what listens to router advertisements goes on doing so.
fn the_switches_of_ipv6_forwarding_stay_off() {
    let lab = Lab::new(Shape::OwnLan);
    let _running = lab.start(&[], &["sleep"]);
    for (interface, name, value) in [
        ("all", "forwarding", "0"),
        ("hw", "forwarding", "0"),
        ("hw", "accept_ra", "1"),
        ("lo", "forwarding", "0"),
    ] {
        assert_eq!(read_sysctl(&format!("net/ipv6/conf/{interface}/{name}")), value, "{interface} {name}");
    }
}

/// I4: what it forwards, it forwards.
fn a_host_that_forwards_ipv6_already_is_left_alone() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv6/conf/all/forwarding", "1"));
    let running = lab.start(&[], &["sleep"]);
    assert_eq!(read_sysctl("net/ipv6/conf/hw/force_forwarding"), "0");
    let outcome = running.inside(|| probe::udp(WAN_ECHO.into()));
    assert_eq!(outcome.seen_as(), Some(IpAddr::V6(HOST6)), "{outcome}");
}

/// N1: IPv4 works as ever, and `--verbose` says why there is no more.
fn a_host_without_ipv6_gives_its_boxes_none() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
    let output = lab.run(&["--verbose"], &["udp", &SocketAddr::from((WAN, ECHO)).to_string()]);
    assert_eq!(outcome(&output).seen_as(), Some(IpAddr::V4(HOST)), "{}", words(&output));
    assert!(words(&output).contains("boxes have no IPv6"), "{}", words(&output));
    let running = lab.start(&[], &["sleep"]);
    assert_eq!(running.address6, None);
    assert!(running.inside(|| probe::udp(WAN_ECHO.into())).refused());
}

/// N1: no IPv4 address, no IPv4 route.
fn a_host_with_ipv6_alone_gives_its_boxes_that() {
    let lab = Lab::before(Shape::OwnLan, || {
        links::remove_address("hw", HOST.into(), 24);
        links::remove_address("hc", Ipv4Addr::new(192, 0, 2, 1).into(), 24);
    });
    reaches_wan(&lab);
}

/// The host's TCP port 22 and UDP port 5354, open to the world.
fn host_services(lab: &Lab) -> [Service; 2] {
    let on = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    [Service::tcp(lab.host_place(), on(22)), Service::udp(lab.host_place(), on(5354))]
}

/// The gateway and the next hop behind it, as boxes would see them.
fn gateways(running: &RunningBox) -> [Ipv6Addr; 2] {
    let prefix = u128::from(address_of(running)) & !u128::from(u64::MAX);
    [1, 2].map(|last| Ipv6Addr::from(prefix + last))
}

/// The host's link-local addresses, and those that the kernel would make of netbox's hardware addresses, by this link.
fn link_local(by: u32) -> Vec<SocketAddrV6> {
    let all = nix::ifaddrs::getifaddrs().expect("the host's addresses");
    let six = all.filter_map(|found| Some(found.address?.as_sockaddr_in6()?.ip()));
    let made = [0xff01, 0xff03].map(|last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x6e, 0x62ff, last));
    let every = six.filter(Ipv6Addr::is_unicast_link_local).chain(made);
    every.map(|address| SocketAddrV6::new(address, 22, 0, by)).collect()
}

/// I1: on no address of it, and it is told so at once.
fn a_box_reaches_no_service_of_the_host_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    let services = host_services(&lab);
    let running = lab.start(&[], &["sleep"]);
    let [gateway, hop] = gateways(&running);
    for address in [gateway, HOST6, HOST_LAN6, Ipv6Addr::LOCALHOST] {
        let at = |port| SocketAddr::from((address, port));
        assert_denied_at_once(&running, || probe::tcp(at(22)), &format!("tcp to {address}"));
        assert_denied_at_once(&running, || probe::udp(at(5354)), &format!("udp to {address}"));
    }
    assert!(!running.inside(|| probe::udp(SocketAddr::from((hop, 5354)))).reached());
    let eth0 = running.inside(|| if_nametoindex("eth0")).expect("the box's link");
    for target in link_local(eth0) {
        running.inside(|| {
            // With the lab's rights; a box may not do that.
            let _ = links::try_address("eth0", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99).into(), 64);
            assert!(!probe::tcp(target.into()).reached(), "{target}");
        });
    }
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);
    let neighbour = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN6, 22))));
    assert!(neighbour.reached(), "the service is there: {neighbour}");
}

/// I2: not its listening ports; the host itself may look at them.
fn a_box_reaches_no_other_box_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    let server = lab.start(&[], &["listen", "tcp", "[::]:80"]);
    let datagrams = lab.start(&[], &["listen", "udp", "[::]:53"]);
    let other = lab.start(&[], &["sleep"]);
    let tcp = SocketAddr::from((address_of(&server), 80));
    let udp = SocketAddr::from((address_of(&datagrams), 53));
    assert_denied_at_once(&other, || probe::tcp(tcp), "tcp to another box");
    assert_denied_at_once(&other, || probe::udp(udp), "udp to another box");
    assert!(!other.inside(|| probe::icmp(address_of(&server))).reached(), "a ping to another box");
    let nobody = Ipv6Addr::from(u128::from(address_of(&other)) + 1000);
    assert_denied_at_once(&other, || probe::tcp(SocketAddr::from((nobody, 80))), "an address of no box");
    let host = probe::tcp(tcp);
    assert!(host.reached(), "the server is there: {host}");
}

/// I2: though the host could route it.
fn a_box_reaches_no_metadata_service_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    let service: Ipv6Addr = "fd00:ec2::254".parse().expect("an address");
    lab.wan(|| links::address("w0", service.into(), 128));
    links::route(service.into(), 128, WAN6.into());
    let running = lab.start(&[], &["sleep"]);
    let target = SocketAddr::from((service, ECHO));
    assert_denied_at_once(&running, || probe::tcp(target), "tcp to a metadata service");
    assert_eq!(lab.wan_tcp.visits(), 0);
    drop(running);
    links::remove_route(service.into(), 128, WAN6.into());
}

/// I2: neither an address of the outside nor one of another box.
fn a_box_cannot_spoof_an_ipv6_address() {
    let lab = Lab::new(Shape::OwnLan);
    let (spoofer, victim) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77);
    spoofer.inside(|| {
        for source in [stranger, address_of(&victim)] {
            links::address("eth0", source.into(), 128);
            let socket = UdpSocket::bind((source, 0)).expect("an address of this namespace");
            socket.send_to(b"spoofed", WAN_ECHO).expect("to send");
        }
        // By the same way: when this is answered, those before it would have arrived.
        let socket = UdpSocket::bind((address_of(&spoofer), 0)).expect("its own address");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
        socket.send_to(b"honest", WAN_ECHO).expect("to send");
        socket.recv(&mut [0; 64]).expect("an answer to the honest one");
    });
    assert_eq!(lab.wan_udp.visits(), 1, "{:?}", lab.wan_udp.visitors());
    assert!(!lab.seen_by_wan(|packet| packet.source() == Some(stranger.into())));
}

/// I2: not even with the lab's rights: a router advertisement of a box's is heard by nobody.
fn a_box_cannot_pass_for_a_router() {
    let lab = Lab::new(Shape::OwnLan);
    let (liar, other) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    // Without the columns that count.
    let of_gateway = || {
        let mut cat = lab.netbox(&["gateway", "--", "cat", "/proc/net/if_inet6", "/proc/net/ipv6_route"]);
        let text = String::from_utf8(cat.output().expect("netbox gateway").stdout).expect("text");
        let columns = |line: &str| -> Vec<String> {
            let all: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            [0, 1, 4].iter().filter_map(|n| all.get(*n).cloned()).chain(all.last().cloned()).collect()
        };
        text.lines().map(columns).collect::<Vec<_>>()
    };
    let before = of_gateway();
    assert!(before.len() > 4, "{before:?}");
    liar.inside(|| {
        links::address("eth0", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99).into(), 64);
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw =
            socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6).expect("a raw socket");
        // RFC 4861 §6.1.2: from a link-local address, with the hop limit of 255.
        setsockopt(&raw, sockopt::Ipv6MulticastHops, &255).expect("a hop limit");
        let eth0 = if_nametoindex("eth0").expect("the box's link");
        // Type 134: a router for half an hour, with the prefix 2001:db8:bad::/64 to make addresses from.
        let mut lie = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        lie.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
        lie.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets());
        let everybody = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, eth0);
        let to = SockaddrIn6::from(everybody);
        sendto(raw.as_raw_fd(), &lie, &to, MsgFlags::empty()).expect("to send");
        // By the same way: when this is answered, the other would have arrived.
        assert!(probe::udp(WAN_ECHO.into()).reached());
    });
    assert_eq!(of_gateway(), before);
    let outcome = other.inside(|| probe::udp(WAN_ECHO.into()));
    assert_eq!(outcome.seen_as(), Some(IpAddr::V6(HOST6)), "{outcome}");
}

/// What a neighbour who has found out the pool tries.
fn assert_box_hidden(lab: &Lab, by: Ipv6Addr) {
    lab.client(|| links::route(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).into(), 8, by.into()));
    let server = lab.start(&["-p", "8080:80"], &["listen", "tcp", "[::]:80"]);
    let unpublished = lab.start(&[], &["listen", "udp", "[::]:53"]);
    assert!(probe::tcp(SocketAddr::from((address_of(&server), 80))).reached(), "the server is there");
    for when in ["", " after a flush"] {
        lab.client(|| {
            let mapped = probe::tcp(SocketAddr::from((address_of(&server), 80)));
            assert!(!mapped.reached(), "the box side of a mapping{when}: {mapped}");
            let open = probe::udp(SocketAddr::from((address_of(&unpublished), 53)));
            assert!(!open.reached(), "an unpublished port{when}: {open}");
            assert!(!probe::icmp(address_of(&server)).reached(), "a ping{when}");
        });
        nftables::flush();
    }
}

/// I3, I6: no port of it.
fn a_neighbour_with_a_route_reaches_no_box_over_ipv6() {
    assert_box_hidden(&Lab::new(Shape::OwnLan), HOST_LAN6);
}

/// I3, I6: the same on the uplink's own network.
fn a_neighbour_on_the_uplink_with_a_route_reaches_no_box_over_ipv6() {
    assert_box_hidden(&Lab::new(Shape::SharedUplink), HOST6);
}

/// I4: rules flushed or not.
fn the_host_is_no_ipv6_router_between_its_networks() {
    let lab = Lab::new(Shape::OwnLan);
    let wan_net = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0);
    lab.client(|| links::route(wan_net.into(), 64, HOST_LAN6.into()));
    let client6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
    let at = SocketAddr::from((client6, 5354));
    let client = Service::udp(lab.client_place(), at);
    let _server = lab.start(&["-p", "8080:80"], &["listen", "tcp", "[::]:80"]);
    for when in ["beside a box", "after a flush"] {
        lab.client(|| probe::udp(WAN_ECHO.into()));
        lab.wan(|| probe::udp(at));
        assert_eq!((lab.wan_udp.visits(), client.visits()), (0, 0), "{when}");
        nftables::flush();
    }
    sysctl("net/ipv6/conf/all/forwarding", "1");
    let all_forward = lab.client(|| probe::udp(WAN_ECHO.into()));
    sysctl("net/ipv6/conf/all/forwarding", "0");
    assert!(!all_forward.reached(), "rule 92 holds what comes by the interfaces that netbox switched");
}

/// I6: the closed half. What leaves, leaves with the host's address or not at all. (The lab fails if an address of the
/// pool is ever seen there.)
fn a_flush_opens_nothing_over_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    let services = host_services(&lab);
    let running = lab.start(&[], &["sleep"]);
    let [gateway, _] = gateways(&running);
    assert!(running.inside(|| probe::udp(WAN_ECHO.into())).reached());
    nftables::flush();
    running.inside(|| {
        for address in [HOST6, HOST_LAN6, gateway] {
            assert!(!probe::tcp(SocketAddr::from((address, 22))).reached(), "tcp to {address}");
            assert!(!probe::udp(SocketAddr::from((address, 5354))).reached(), "udp to {address}");
        }
        let outcome = probe::udp(WAN_ECHO.into());
        assert!(outcome.seen_as().is_none_or(|source| source == IpAddr::V6(HOST6)), "{outcome}");
    });
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);
}
