//! Named networks: who in one reaches whom, and what a port of its bridge may bring.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};
use serde_json::Value;

use crate::lab::{
    Capture, ECHO, HOST, Lab, PROBE, Packet, RunningBox, Service, Shape, WAN, links, live_tests, outcome,
    probe, read_sysctl, send, words,
};
use crate::names;

live_tests![
    boxes_of_a_network_reach_each_other_and_the_outside,
    boxes_of_different_networks_reach_published_ports_only,
    a_published_port_of_a_member_is_reached_from_everywhere,
    an_internal_network_has_no_way_out,
    isolated_boxes_do_not_reach_each_other,
    a_member_cannot_send_with_anothers_addresses,
    a_member_cannot_make_others_believe_that_it_has_an_address,
    a_box_takes_no_place_in_the_table_of_neighbours,
    a_member_sees_nothing_that_is_for_others,
    a_member_asks_no_resolver_but_its_own,
    members_find_each_other_by_name_at_once,
    two_hundred_members_connect_by_name,
    names_of_other_networks_are_not_told,
    a_member_has_a_count_of_connections_of_its_own,
    addresses_of_a_network_are_had_or_refused,
    networks_are_listed_and_described,
    networks_that_conflict_are_refused_naming_the_other,
    a_network_may_have_an_mtu_too_small_for_ipv6,
    a_network_in_use_is_not_removed,
    broken_or_foreign_files_are_refused_and_left_alone,
    nothing_is_left_of_members_that_were_killed,
    a_full_network_says_so,
    a_dry_run_shows_the_bridge,
];

/// `netbox network WORDS`, which goes well; what it printed.
pub(crate) fn network(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.netbox(&[&["network"], arguments].concat()).output().expect("netbox can be started");
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The same, which fails with these words.
pub(crate) fn refused(lab: &Lab, arguments: &[&str], status: i32, expected: &[&str]) {
    let output = lab.netbox(arguments).output().expect("netbox can be started");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(expected.iter().all(|part| said.contains(part)), "{arguments:?}, {expected:?}: {said}");
}

pub(crate) fn inspect(lab: &Lab, name: &str) -> Value {
    let all: Value = serde_json::from_str(&network(lab, &["inspect", name])).expect("JSON");
    all[0].clone()
}

pub(crate) fn member(lab: &Lab, network: &str, words: &[&str]) -> RunningBox {
    lab.start(&["--net", network], words)
}

pub(crate) fn at(running: &RunningBox, port: u16) -> SocketAddr {
    SocketAddr::from((running.address, port))
}

pub(crate) fn wan() -> SocketAddr {
    SocketAddr::from((WAN, ECHO))
}

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];

/// N1: over the bridge by their own addresses, and out through the gateway, also where br_netfilter would show what passes the
/// bridge to the rules of IP.
fn boxes_of_a_network_reach_each_other_and_the_outside() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let (one, other) = (member(&lab, "db", &SERVER), member(&lab, "db", &["listen", "udp", "0.0.0.0:53"]));
    assert_ne!(one.address, other.address);
    for outcome in
        other.inside(|| [probe::tcp(at(&one, 80)), probe::icmp(one.address), probe::icmp([10, 9, 0, 1])])
    {
        assert!(outcome.reached(), "{outcome}");
    }
    // Not translated on the way.
    let seen = one.inside(|| probe::udp(at(&other, 53))).seen_as();
    assert_eq!(seen, Some(one.address.into()));
    for running in [&one, &other] {
        for outcome in running.inside(|| [probe::tcp(wan()), probe::udp(wan())]) {
            assert_eq!(outcome.seen_as(), Some(HOST.into()), "{outcome}");
        }
    }
    // The host itself may look at them, by the addresses that it knows.
    let record = ps(&lab, &one);
    assert_eq!(
        (record["net"].as_str(), record["ipv4"].as_str()),
        (Some("db"), Some(&*one.address.to_string()))
    );
}

pub(crate) fn ps(lab: &Lab, running: &RunningBox) -> Value {
    let output = lab.netbox(&["ps", "--json"]).output().expect("netbox can be started");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let own = |one: &&Value| one["pid"].as_u64() == Some(running.launcher().into());
    all.iter().find(own).expect("the box is listed").clone()
}

/// I2: nor does a box that is in no network.
fn boxes_of_different_networks_reach_published_ports_only() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    network(&lab, &["create", "web", "--subnet", "10.9.1.0/24"]);
    let server = lab.start(&["--net", "db", "-p", "8080:80"], &SERVER);
    let plain_server = lab.start(&["-p", "8081:80"], &SERVER);
    let (stranger, plain) = (member(&lab, "web", &["sleep"]), lab.start(&[], &["sleep"]));
    let pool_address = pool_of(&lab, &server);
    for running in [&stranger, &plain] {
        let attempts = running.inside(|| {
            [
                probe::tcp(at(&server, 80)),
                probe::tcp(SocketAddr::from((pool_address, 80))),
                probe::icmp(server.address),
            ]
        });
        for outcome in attempts {
            assert!(!outcome.reached(), "{}: {outcome}", running.address);
        }
        let published = running.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))));
        assert!(published.reached(), "{}: {published}", running.address);
    }
    let outcome = stranger.inside(|| probe::tcp(at(&plain_server, 80)));
    assert!(outcome.refused(), "a box without a network: {outcome}");
    let outcome = stranger.inside(|| probe::tcp(SocketAddr::from((HOST, 8081))));
    assert!(outcome.reached(), "its published port: {outcome}");
}

/// The address that the host knows a box by: that of its slot, in the pool of the boxes without a network.
fn pool_of(lab: &Lab, running: &RunningBox) -> Ipv4Addr {
    let whole = record_of(lab, running);
    let attachment = &whole["attachment"];
    let pool = attachment["topology"]["pool"].as_str().expect("a pool");
    let first: Ipv4Addr = pool.split('/').next().expect("an address").parse().expect("an address");
    let slot = u32::try_from(attachment["slot"].as_u64().expect("a slot")).expect("small");
    Ipv4Addr::from(u32::from(first) + 16 + slot)
}

/// What is written down of a box.
pub(crate) fn record_of(lab: &Lab, running: &RunningBox) -> Value {
    let record = ps(lab, running);
    let id = record["id"].as_str().expect("an id");
    let path = glob_one("/run/netbox", &format!("boxes/{id}/box.json"));
    serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON")
}

/// `/run/netbox/UID/COOKIE/TAIL`, of which there is one.
fn glob_one(parent: &str, tail: &str) -> String {
    let entries = |path: &str| -> Vec<String> {
        let listing =
            fs::read_dir(path).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
        listing.unwrap_or_default().iter().map(|path| path.display().to_string()).collect()
    };
    let mut all =
        entries(parent).into_iter().flat_map(|user| entries(&user)).map(|state| format!("{state}/{tail}"));
    all.find(|path| Path::new(path).exists()).unwrap_or_else(|| panic!("no {tail} below {parent}"))
}

/// N2: from a neighbour, the host, its loopback, the box itself, another member, and boxes elsewhere. Who comes from outside keeps
/// its address.
fn a_published_port_of_a_member_is_reached_from_everywhere() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let server = lab.start(&["--net", "db", "-p", "8080:80", "-p", "5353:53/udp"], &SERVER);
    let (fellow, plain) = (member(&lab, "db", &["sleep"]), lab.start(&[], &["sleep"]));
    let published = SocketAddr::from((lab.host_for_client(), 8080));
    let neighbour = lab.client(|| probe::tcp(published));
    assert_eq!(neighbour.seen_as(), Some(lab.client_address().into()), "{neighbour}");
    for (who, outcome) in [
        ("the host", probe::tcp(SocketAddr::from((HOST, 8080)))),
        ("the host's loopback", probe::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))),
        ("the box itself", server.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))))),
        ("another member", fellow.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))))),
        ("a box without a network", plain.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))))),
    ] {
        assert!(outcome.reached(), "{who}: {outcome}");
    }
    let address = server.address;
    drop(server);
    let again = lab.client(|| probe::tcp(published));
    assert!(!again.reached(), "{address} has ended: {again}");
}

/// Neither by routes of its own, nor to published ports, nor by names.
fn an_internal_network_has_no_way_out() {
    let lab = names::lab(&format!("nameserver {WAN}\noptions timeout:1 attempts:1\n"));
    network(&lab, &["create", "inner", "--internal", "--subnet", "10.9.0.0/24"]);
    let servers = Service::udp(lab.wan_place(), SocketAddr::from((WAN, 53)));
    drop(lab.run(&[], &["resolve", "www.example.org"]));
    let asked = servers.visits();
    assert!(asked > 0, "boxes elsewhere ask");
    let published = lab.start(&["-p", "8080:80"], &SERVER);
    let (one, other) = (member(&lab, "inner", &SERVER), member(&lab, "inner", &["sleep"]));
    assert!(other.inside(|| probe::tcp(at(&one, 80))).reached(), "members reach each other");
    let attempts = |way: &str| {
        for (what, outcome) in other.inside(|| {
            [
                ("tcp", probe::tcp(wan())),
                ("udp", probe::udp(wan())),
                ("a published port", probe::tcp(SocketAddr::from((HOST, 8080)))),
            ]
        }) {
            assert!(!outcome.reached(), "{way}, {what}: {outcome}");
        }
    };
    attempts("no route");
    other.inside(|| links::route(Ipv4Addr::UNSPECIFIED.into(), 0, [10, 9, 0, 1].into()));
    attempts("a route of its own");
    assert_eq!((lab.wan_tcp.visits(), lab.wan_udp.visits()), (0, 0));
    let start = Instant::now();
    let said = outcome(&lab.run(&["--net", "inner"], &["resolve", "www.example.org"]));
    assert!(said.refused() && start.elapsed() < Duration::from_secs(3), "{said} after {:?}", start.elapsed());
    assert_eq!(servers.visits(), asked);
    for options in [&["-p", "9090:80"][..], &["--dns", "192.0.2.53"], &["--snat", "198.51.100.1"]] {
        let all = [&["run", "--net", "inner"], options, &["--", "true"]].concat();
        refused(&lab, &all, 125, &["network inner", "is internal"]);
    }
    drop(published);
}

/// Not over the bridge, nor by way of the gateway; out they do, and published ports they reach.
fn isolated_boxes_do_not_reach_each_other() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "apart", "--isolate", "--subnet", "10.9.0.0/24"]);
    let server = lab.start(&["--net", "apart", "-p", "8080:80"], &SERVER);
    let other = member(&lab, "apart", &["sleep"]);
    let outcome = other.inside(|| probe::tcp(at(&server, 80)));
    assert!(!outcome.reached(), "over the bridge: {outcome}");
    other.inside(|| links::route(server.address.into(), 32, [10, 9, 0, 1].into()));
    let outcome = other.inside(|| probe::tcp(at(&server, 80)));
    assert!(!outcome.reached(), "by the gateway: {outcome}");
    for to in [wan(), SocketAddr::from((HOST, 8080))] {
        let outcome = other.inside(|| probe::tcp(to));
        assert!(outcome.reached(), "{to}: {outcome}");
    }
}

/// Sends a frame as it is, by a box's link.
pub(crate) fn inject(frame: &[u8]) {
    let all = nix::ifaddrs::getifaddrs().expect("the links");
    let eth0 =
        all.filter(|one| one.interface_name == "eth0").find_map(|one| one.address?.as_link_addr().copied());
    let to: LinkAddr = eth0.expect("eth0");
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
    let raw = raw.expect("a packet socket");
    sendto(raw.as_raw_fd(), frame, &to, MsgFlags::empty()).expect("to send");
}

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 datagram of UDP, whose receiver does not look at its checksum.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("16 bits");
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let ports = [40_000u16, port, 16, 0].map(u16::to_be_bytes).concat();
    [&header[..], &ports, b"spoofed!"].concat()
}

/// An ARP packet (RFC 826): operation 1 asks, 2 says.
fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender.0, &sender.1.octets(), &target.0, &target.1.octets()].concat()
}

pub(crate) fn mac_of(running: &RunningBox) -> [u8; 6] {
    running.inside(|| links::mac("eth0"))
}

const BROADCAST: [u8; 6] = [0xff; 6];
const GATEWAY: [u8; 6] = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x01];

/// I2: neither to another member, nor, in its name, to the outside.
fn a_member_cannot_send_with_anothers_addresses() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let [spoofer, victim, receiver] = [(); 3].map(|()| member(&lab, "db", &["sleep"]));
    let [own, his, theirs] = [&spoofer, &victim, &receiver].map(mac_of);
    let listener = receiver.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000)).expect("to bind"));
    listener.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let (from, to, stranger) = (spoofer.address, receiver.address, Ipv4Addr::new(198, 51, 100, 77));
    let ip = 0x0800;
    spoofer.inside(|| {
        inject(&ethernet(theirs, own, ip, &datagram(victim.address, to, 5000)));
        inject(&ethernet(theirs, own, ip, &datagram(stranger, to, 5000)));
        inject(&ethernet(theirs, own, ip, &datagram(Ipv4Addr::new(10, 9, 0, 1), to, 5000)));
        inject(&ethernet(theirs, his, ip, &datagram(from, to, 5000)));
        inject(&ethernet(theirs, GATEWAY, ip, &datagram(from, to, 5000)));
        inject(&ethernet(GATEWAY, own, ip, &datagram(victim.address, WAN, ECHO)));
        inject(&ethernet(GATEWAY, his, ip, &datagram(victim.address, WAN, ECHO)));
        // By the same way: when this arrives, those before it would have.
        inject(&ethernet(theirs, own, ip, &datagram(from, to, 5000)));
    });
    let (_, source) = listener.recv_from(&mut [0; 64]).expect("the honest one");
    assert_eq!(source.ip(), IpAddr::V4(from));
    listener.set_nonblocking(true).expect("to change a socket");
    assert!(listener.recv_from(&mut [0; 64]).is_err(), "nothing else arrived");
    assert!(spoofer.inside(|| probe::udp(wan())).reached());
    assert_eq!(lab.wan_udp.visits(), 1, "{:?}", lab.wan_udp.visitors());
    // The bridge still knows where the victim is.
    assert!(receiver.inside(|| probe::icmp(victim.address)).reached());
}

/// I2: who has an address is what the bridge says, whatever a box says of itself.
fn a_member_cannot_make_others_believe_that_it_has_an_address() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let [spoofer, victim, asker] = [(); 3].map(|()| member(&lab, "db", &["sleep"]));
    let [own, _, asking] = [&spoofer, &victim, &asker].map(mac_of);
    let gateway = Ipv4Addr::new(10, 9, 0, 1);
    let server = victim.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("to listen"));
    let trap = spoofer.inside(|| {
        // Its kernel answers for these now, too.
        links::address("eth0", victim.address.into(), 32);
        links::address("eth0", gateway.into(), 32);
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("to listen")
    });
    let heard = Capture::start(&asker.place());
    let lie = |address| {
        spoofer.inside(|| {
            for to in [BROADCAST, asking] {
                inject(&ethernet(to, own, 0x0806, &arp(2, (own, address), (asking, asker.address))));
                inject(&ethernet(to, own, 0x0806, &arp(1, (own, address), ([0; 6], asker.address))));
                inject(&ethernet(to, own, 0x0806, &arp(1, (own, address), ([0; 6], address))));
            }
            // And one that is true, about what nobody has.
            let (nobody, itself) = (Ipv4Addr::new(10, 9, 0, 99), (own, spoofer.address));
            inject(&ethernet(BROADCAST, own, 0x0806, &arp(1, itself, ([0; 6], nobody))));
        });
    };
    lie(victim.address);
    lie(gateway);
    server.set_nonblocking(true).expect("to change a socket");
    trap.set_nonblocking(true).expect("to change a socket");
    let connect = || std::net::TcpStream::connect_timeout(&at(&victim, 80), Duration::from_secs(2));
    let connection = asker.inside(connect);
    assert!(connection.is_ok(), "{connection:?}");
    assert!(server.accept().is_ok(), "the victim's");
    lie(victim.address);
    assert!(trap.accept().is_err(), "not the spoofer's");
    assert!(asker.inside(|| probe::tcp(wan())).reached(), "the gateway is where it was");
    let told = |packet| matches!(packet, Packet::Arp { source } if source != victim.address && source != asker.address);
    assert!(!heard.any(told), "{:?}", heard.packets());
}

/// I2: the kernel has one table for all namespaces of the machine, and whoever asks for the gateway by ARP would be put down in it.
fn a_box_takes_no_place_in_the_table_of_neighbours() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    // Of the addresses that a bridge does not pass on by itself: who has the port hears them (IEEE 802.1Q, table 8-1).
    let reserved = |last| [1, 0x80, 0xc2, 0, 0, last];
    for options in [&["--net", "db"][..], &[]] {
        let running = lab.start(options, &["sleep"]);
        let own = mac_of(&running);
        let gateway = lab.netbox(&["gateway", "--", PROBE, "cat", "/proc/net/arp"]).output();
        let before = words(&gateway.expect("netbox can be started"));
        running.inside(|| {
            let stranger = (own, Ipv4Addr::new(203, 0, 113, 9));
            for to in (0..16).map(reserved).chain([BROADCAST, GATEWAY]) {
                inject(&ethernet(to, own, 0x0806, &arp(1, stranger, ([0; 6], next_hop()))));
            }
            // Behind them, by the same queue.
            assert!(probe::tcp(wan()).reached());
        });
        let gateway = lab.netbox(&["gateway", "--", PROBE, "cat", "/proc/net/arp"]).output();
        assert_eq!(words(&gateway.expect("netbox can be started")), before, "{options:?}");
    }
}

/// The next hop of the box that this is called in.
fn next_hop() -> Ipv4Addr {
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").expect("the routes");
    // In network byte order, read as a number of this machine's.
    let next_hop = routes.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (destination, next_hop) = (words.next()?, words.next()?);
        (destination == "00000000").then(|| u32::from_str_radix(next_hop, 16).expect("a next hop"))
    });
    Ipv4Addr::from(next_hop.expect("a default route").to_ne_bytes())
}

/// I2: frames go to whom they are for. Spanning trees, router advertisements and other protocols go nowhere.
fn a_member_sees_nothing_that_is_for_others() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let [one, other, third] = [(); 3].map(|()| member(&lab, "db", &["sleep"]));
    let own = mac_of(&one);
    let heard = Capture::start(&third.place());
    assert!(one.inside(|| probe::icmp(other.address)).reached());
    one.inside(|| {
        // To a hardware address that nobody has, a spanning tree's, a router's advertisement, and a protocol of no use here.
        inject(&ethernet([0x0a, 0x6e, 10, 9, 0, 99], own, 0x0800, &datagram(one.address, other.address, 9)));
        inject(&ethernet([0x01, 0x80, 0xc2, 0, 0, 0], own, 0x0026, &[0x42; 38]));
        inject(&ethernet([0x33, 0x33, 0, 0, 0, 1], own, 0x86dd, &router_advertisement()));
        inject(&ethernet(BROADCAST, own, 0x88b5, &[0; 46]));
        inject(&ethernet(BROADCAST, own, 0x0800, &datagram(one.address, Ipv4Addr::BROADCAST, 9)));
    });
    let broadcast = |packet| matches!(packet, Packet::Ipv4 { destination: Ipv4Addr::BROADCAST, .. });
    let limit = Instant::now() + Duration::from_secs(2);
    while !heard.any(broadcast) && Instant::now() < limit {
        std::thread::yield_now();
    }
    let mut packets = heard.packets();
    // What this box's own kernel says of the multicast groups that it is in.
    packets.retain(|packet| !matches!(packet, Packet::Ipv6 { source, .. } if source.is_unspecified()));
    assert!(packets.iter().copied().all(broadcast) && !packets.is_empty(), "{packets:?}");
}

fn router_advertisement() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
    packet.extend("fe80::1".parse::<std::net::Ipv6Addr>().expect("an address").octets());
    packet.extend("ff02::1".parse::<std::net::Ipv6Addr>().expect("an address").octets());
    packet.extend([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

/// What one asks is on the account of nobody else.
fn a_member_asks_no_resolver_but_its_own() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let [one, other] = [(); 2].map(|()| member(&lab, "db", &["sleep"]));
    let (own, others) = (resolver(&one), resolver(&other));
    assert_ne!(own, others);
    let outcome =
        one.inside(|| std::net::TcpStream::connect_timeout(&others, Duration::from_secs(2)).is_ok());
    assert!(!outcome, "another's resolver");
    assert!(
        one.inside(|| std::net::TcpStream::connect_timeout(&own, Duration::from_secs(2)).is_ok()),
        "its own"
    );
}

/// What a box of that network finds a name to be.
fn resolved(lab: &Lab, network: &str, name: &str) -> String {
    outcome(&lab.run(&["--net", network], &["resolve", name])).to_string()
}

/// What the resolver of a box says to a question, byte for byte (RFC 1035, 4.1).
pub(crate) fn ask(running: &RunningBox, labels: &[&str], kind: u8) -> Vec<u8> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        question.push(u8::try_from(label.len()).expect("short"));
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, kind, 0, 1]);
    let to = resolver(running);
    running.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        socket.send_to(&question, to).expect("to send");
        let mut answer = [0; 512];
        let (length, _) = socket.recv_from(&mut answer).expect("an answer");
        answer[..length].to_vec()
    })
}

/// Whether an answer is one, and how many records it has.
pub(crate) fn answers(message: &[u8]) -> (u8, u8) {
    (message[3] & 0xf, message[7])
}

/// N4: by name, id, and name and network; and back. Who comes or goes is found, or not, from that moment on, also by a resolver
/// that was asked before.
fn members_find_each_other_by_name_at_once() {
    let lab = names::lab("nameserver 198.51.100.99\nsearch example.org\noptions timeout:1 attempts:1\n");
    network(&lab, &["create", "Db", "--subnet", "10.9.0.0/24"]);
    let asker = member(&lab, "Db", &["sleep"]);
    assert_ne!(answers(&ask(&asker, &["store"], 1)), (0, 1));
    for address in ["10.9.0.77", "10.9.0.78"] {
        let store = lab.start(&["--name", "Store", "--net", &format!("Db:ip={address}")], &["sleep"]);
        let id = ps(&lab, &store)["id"].as_str().expect("an id").to_owned();
        for name in ["store", "STORE", "store.db", &id] {
            assert!(resolved(&lab, "Db", name).contains(address), "{name}: {}", resolved(&lab, "Db", name));
        }
        let said = ask(&asker, &["store"], 1);
        let octets = address.parse::<Ipv4Addr>().expect("an address").octets();
        assert!(answers(&said) == (0, 1) && said.ends_with(&octets), "{said:?}");
        // It has no IPv6 address, and nobody else is asked for one.
        assert_eq!(answers(&ask(&asker, &["store"], 28)), (0, 0));
        let last = octets[3].to_string();
        let said = ask(&asker, &[&last, "0", "9", "10", "in-addr", "arpa"], 12);
        assert!(answers(&said) == (0, 1) && said.windows(6).any(|part| part == b"\x05Store"), "{said:?}");
        store.end();
        assert_ne!(answers(&ask(&asker, &["store"], 1)), (0, 1), "it has ended");
        assert_eq!(answers(&ask(&asker, &[&last, "0", "9", "10", "in-addr", "arpa"], 12)), (3, 0));
    }
    let _one = lab.start(&["--name", "web", "--net", "Db"], &["sleep"]);
    refused(
        &lab,
        &["run", "--name", "WEB", "--net", "Db", "--", "true"],
        125,
        &["WEB", "large or small letters"],
    );
    drop(lab.start(&["--name", "WEB"], &["sleep"]));
}

/// Any two of them, as two would: by the names that the C library asks for, with the address of whoever connects.
fn two_hundred_members_connect_by_name() {
    const MEMBERS: usize = 200;
    let lab = names::lab("nameserver 198.51.100.99\noptions timeout:1 attempts:1\n");
    network(&lab, &["create", "big", "--subnet", "10.9.0.0/24"]);
    let name = |number: usize| format!("m{number}");
    let members: Vec<_> =
        (0..MEMBERS).map(|number| lab.start(&["--name", &name(number), "--net", "big"], &SERVER)).collect();
    let chosen = (1..=8).map(|step| (step * 73 % MEMBERS, step * 151 % MEMBERS));
    for (from, to) in [(0, MEMBERS - 1), (MEMBERS - 1, 0), (0, 1)].into_iter().chain(chosen) {
        let to = format!("{}:80", name(to));
        let output = lab.netbox(&["exec", &name(from), "--", PROBE, "tcp", &to]).output().expect("netbox");
        let outcome = outcome(&output);
        assert_eq!(
            outcome.seen_as(),
            Some(members[from].address.into()),
            "{} to {to}: {outcome}",
            name(from)
        );
    }
    // All at the same time: one after the other they would take minutes.
    members.iter().for_each(|member| member.signal(Signal::SIGTERM));
    drop(members);
}

/// Nor those of a network to a box without one. An internal network has names.
fn names_of_other_networks_are_not_told() {
    let lab = names::lab("nameserver 198.51.100.99\noptions timeout:1 attempts:1\n");
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    network(&lab, &["create", "inner", "--internal", "--subnet", "10.9.1.0/24"]);
    let _store = lab.start(&["--name", "store", "--net", "db:ip=10.9.0.77"], &["sleep"]);
    let _other = lab.start(&["--name", "other", "--net", "inner:ip=10.9.1.77"], &["sleep"]);
    assert!(resolved(&lab, "inner", "other").contains("10.9.1.77"));
    for name in ["store", "store.db"] {
        assert!(!resolved(&lab, "inner", name).contains("10.9.0.77"), "{name}");
    }
}

pub(crate) fn resolver(running: &RunningBox) -> SocketAddr {
    let text = fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", running.pid)).expect("a file");
    let address = text.lines().find_map(|line| line.strip_prefix("nameserver ")).expect("a name server");
    SocketAddr::new(address.parse().expect("an address"), 53)
}

/// Though all members come in by one interface.
fn a_member_has_a_count_of_connections_of_its_own() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let [greedy, other] = [(); 2].map(|()| member(&lab, "db", &["sleep"]));
    let max: u32 = read_sysctl("net/netfilter/nf_conntrack_max").parse().expect("a number");
    let limit = (max / 8).clamp(512, 8192);
    greedy.inside(|| {
        for port in (0..limit + 500).filter_map(|number| u16::try_from(10_000 + number).ok()) {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port of the box's own");
            // Refused, past the limit.
            let _ = socket.send_to(b"who am I?", wan());
        }
    });
    let outcome = greedy.inside(|| probe::tcp(wan()));
    assert!(!outcome.reached(), "one more: {outcome}");
    for outcome in other.inside(|| [probe::tcp(wan()), probe::udp(wan())]) {
        assert!(outcome.reached(), "the other: {outcome}");
    }
}

/// L1: also at once after the box before.
fn addresses_of_a_network_are_had_or_refused() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.128/25"]);
    let mac = "02:00:5e:00:00:07";
    let running = lab.start(&["--name", "one", "--net", &format!("db:ip=10.9.0.7,mac={mac}")], &["sleep"]);
    assert_eq!(running.address, Ipv4Addr::new(10, 9, 0, 7));
    assert_eq!(mac_of(&running), [2, 0, 0x5e, 0, 0, 7]);
    let other = member(&lab, "db", &["sleep"]);
    assert!(other.address.octets()[3] >= 128, "{}", other.address);
    for (net, status, expected) in [
        ("db:ip=10.9.0.7", 125, &["10.9.0.7", "box one (pid"][..]),
        (&format!("db:mac={mac}"), 125, &[mac, "box one (pid"]),
        ("db:mac=0a:6e:01:02:03:04", 125, &["0a:6e:01:02:03:04", "by their IP addresses"]),
        ("db:ip=10.9.0.1", 125, &["it is the gateway's"]),
        ("db:ip=10.9.1.7", 125, &["no address of a box in 10.9.0.0/24"]),
        ("db:ip=10.9.0.255", 125, &["no address of a box"]),
        ("unknown", 125, &["there is no network unknown", "netbox network"]),
        ("db:port=7", 2, &["ip=", "mac="]),
    ] {
        refused(&lab, &["run", "--net", net, "--", "true"], status, expected);
    }
    running.end();
    for _ in 0..5 {
        let again = lab.start(&["--net", &format!("db:ip=10.9.0.7,mac={mac}")], &["sleep"]);
        assert!(other.inside(|| probe::icmp(again.address)).reached());
        again.end();
    }
    // With the hardware address that follows from it, which whoever remembers it may go on using.
    for _ in 0..3 {
        let again = lab.start(&["--net", "db", "--ip", "10.9.0.8"], &["sleep"]);
        assert_eq!(mac_of(&again), [0x0a, 0x6e, 10, 9, 0, 8]);
        assert!(other.inside(|| probe::icmp(again.address)).reached());
        again.end();
    }
}

/// The default one like any other.
fn networks_are_listed_and_described() {
    let lab = Lab::new(Shape::OwnLan);
    assert_eq!(network(&lab, &["ls", "-q"]), "nat\n");
    assert_eq!(
        network(&lab, &["create", "db", "--label", "tier=back", "--label", "x", "--mtu", "1400"]),
        "db\n"
    );
    assert_eq!(network(&lab, &["create", "-d", "bridge", "inner", "--internal", "--isolate"]), "inner\n");
    assert_eq!(network(&lab, &["ls", "-q"]), "nat\ndb\ninner\n");
    let nat = inspect(&lab, "nat");
    assert_eq!((nat["driver"].as_str(), &nat["subnet"]), (Some("nat"), &Value::Null));
    let (one, plain) = (lab.start(&["--name", "one", "--net", "db"], &["sleep"]), lab.start(&[], &["sleep"]));
    assert_eq!(one.inside(|| links::mtu("eth0")), 1400);
    let db = inspect(&lab, "db");
    assert_eq!(db["labels"], serde_json::json!({ "tier": "back", "x": "" }));
    assert_eq!(
        (db["mtu"].as_u64(), db["internal"].as_bool(), db["driver"].as_str()),
        (Some(1400), Some(false), Some("bridge"))
    );
    let boxes = db["boxes"].as_array().expect("an array");
    assert_eq!(
        (boxes.len(), boxes[0]["name"].as_str(), boxes[0]["ipv4"].as_str()),
        (1, Some("one"), Some(&*one.address.to_string()))
    );
    let (bridge, port) =
        (db["bridge"]["name"].as_str().expect("a name"), boxes[0]["link"].as_str().expect("a name"));
    assert!(bridge.starts_with("br") && port.starts_with("nb"), "{db}");
    assert_eq!(inspect(&lab, "nat")["boxes"].as_array().map(Vec::len), Some(1));
    let table = network(&lab, &["ls"]);
    assert!(table.contains("internal,isolate") && table.lines().count() == 4, "{table}");
    let all: Value = serde_json::from_str(&network(&lab, &["ls", "--json"])).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    drop((one, plain));
    refused(&lab, &["network", "inspect", "unknown"], 125, &["there is no network unknown"]);
    refused(&lab, &["network", "rm", "nat"], 2, &["network nat"]);
    refused(&lab, &["network", "create", "nat"], 2, &["network nat"]);
    refused(
        &lab,
        &["network", "create", "-d", "overlay", "x"],
        2,
        &["overlay", "the only one is bridge", "hint: "],
    );
    refused(&lab, &["network", "rm", "unknown"], 125, &["there is no network unknown"]);
    assert_eq!(network(&lab, &["prune"]), "db\ninner\n");
    assert_eq!(network(&lab, &["ls", "-q"]), "nat\n");
}

/// N1: its bridge has no settings of IPv6 then.
fn a_network_may_have_an_mtu_too_small_for_ipv6() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "small", "--mtu", "576"]);
    let [one, other] = [(); 2].map(|()| member(&lab, "small", &["sleep"]));
    assert!(one.inside(|| probe::icmp(other.address)).reached());
    assert!(one.inside(|| probe::tcp(wan())).reached());
}

/// The host's routes and addresses, the pool and other networks: when a network is made, and when it is used.
fn networks_that_conflict_are_refused_naming_the_other() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/16"]);
    let plain = lab.start(&[], &["sleep"]);
    let pool = inspect(&lab, "nat")["subnet"].as_str().expect("a pool").to_owned();
    let create = |subnet: &str, expected: &[&str]| {
        refused(&lab, &["network", "create", "web", "--subnet", subnet], 125, expected);
    };
    create("10.9.7.0/24", &["network db has 10.9.0.0/16"]);
    create("198.51.100.128/25", &["the host has the address 198.51.100.1/24"]);
    create(&pool, &["boxes without a network", &pool]);
    refused(&lab, &["network", "create", "db"], 125, &["there is a network of that name"]);
    assert_eq!(network(&lab, &["ls", "-q"]), "nat\ndb\n");
    drop(plain);
    links::route([10, 9, 3, 0].into(), 24, WAN.into());
    refused(&lab, &["run", "--net", "db", "--", "true"], 125, &["network db", "a route to 10.9.3.0/24"]);
    links::remove_route([10, 9, 3, 0].into(), 24, WAN.into());
    drop(member(&lab, "db", &["sleep"]));
}

/// And its bridge goes with it, though the gateway lives.
fn a_network_in_use_is_not_removed() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let plain = lab.start(&[], &["sleep"]);
    let running = lab.start(&["--net", "db"], &["sleep"]);
    refused(&lab, &["network", "rm", "db"], 125, &["cannot remove network db", "10.9.0."]);
    assert_eq!(network(&lab, &["prune"]), "");
    assert!(running.inside(|| probe::tcp(wan())).reached());
    running.end();
    network(&lab, &["rm", "db"]);
    // The same range again, with another bridge.
    network(&lab, &["create", "web", "--subnet", "10.9.0.0/24"]);
    let [one, other] = [(); 2].map(|()| member(&lab, "web", &["sleep"]));
    assert!(one.inside(|| probe::icmp(other.address)).reached());
    drop(plain);
}

/// Cut short, of somebody else, a link, open to others: named, and not changed.
fn broken_or_foreign_files_are_refused_and_left_alone() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let path = glob_one("/var/lib/netbox", "db.json");
    let whole = fs::read_to_string(&path).expect("a file");
    let use_it = ["run", "--net", "db", "--", "true"];
    for broken in [&whole[..whole.len() / 2], "", "{}", &whole.replace("10.9.0.1\"", "10.8.0.1\"")] {
        fs::write(&path, broken).expect("to write");
        refused(&lab, &use_it, 125, &[&path, "not what netbox wrote", "hint: "]);
        refused(&lab, &["network", "ls"], 125, &[&path]);
        refused(&lab, &["network", "rm", "db"], 125, &[&path]);
        refused(&lab, &["network", "create", "web"], 125, &[&path]);
        assert_eq!(fs::read_to_string(&path).expect("a file"), broken);
    }
    fs::write(&path, &whole).expect("to write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("to change a mode");
    refused(&lab, &use_it, 125, &[&path, "others may write to it"]);
    fs::rename(&path, "/var/lib/elsewhere").expect("to rename");
    symlink("/var/lib/elsewhere", &path).expect("to link");
    refused(&lab, &use_it, 125, &[&path, "is a link"]);
    fs::remove_file(&path).expect("to remove");
    let directory = Path::new(&path).parent().expect("a directory");
    fs::rename(directory, "/var/lib/moved").expect("to rename");
    symlink("/var/lib/moved", directory).expect("to link");
    refused(&lab, &use_it, 125, &[&directory.display().to_string()]);
    refused(&lab, &["network", "create", "web"], 125, &[&directory.display().to_string()]);
    fs::remove_file(directory).expect("to remove");
    fs::remove_dir_all("/var/lib/moved").expect("to remove");
    fs::remove_file("/var/lib/elsewhere").expect("to remove");
}

/// L2: keepers and launchers at once, beside a member that goes on; and then all.
fn nothing_is_left_of_members_that_were_killed() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let staying = member(&lab, "db", &SERVER);
    for options in
        [&["--net", "db"][..], &["--net", "db:ip=10.9.0.77,mac=02:00:5e:00:00:07", "-p", "8080:80"]]
    {
        let mut killed = lab.start(options, &["sleep"]);
        let keeper = keeper_of(&killed);
        send(keeper, Signal::SIGKILL);
        send(killed.launcher(), Signal::SIGKILL);
        killed.wait();
    }
    // The sweep is part of this start, which gets the same addresses.
    let again = lab.start(&["--net", "db:ip=10.9.0.77,mac=02:00:5e:00:00:07", "-p", "8080:80"], &["sleep"]);
    assert!(again.inside(|| probe::tcp(at(&staying, 80))).reached());
    assert_eq!(inspect(&lab, "db")["boxes"].as_array().map(Vec::len), Some(2));
    let mut all = [staying, again];
    for running in &mut all {
        send(keeper_of(running), Signal::SIGKILL);
        send(running.launcher(), Signal::SIGKILL);
        running.wait();
    }
    let swept = lab.netbox(&["gc"]).output().expect("netbox can be started");
    assert!(swept.status.success(), "{}", words(&swept));
    network(&lab, &["rm", "db"]);
}

/// The launcher's child.
pub(crate) fn keeper_of(running: &RunningBox) -> u32 {
    let launcher = running.launcher();
    let children =
        fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).expect("its children");
    children.split_whitespace().next().expect("a keeper").parse().expect("a process")
}

fn a_full_network_says_so() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "few", "--subnet", "10.9.0.0/29"]);
    let all: Vec<_> = (0..5).map(|_| member(&lab, "few", &["sleep"])).collect();
    let mut addresses: Vec<_> = all.iter().map(|one| one.address).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, (2..7).map(|last| Ipv4Addr::new(10, 9, 0, last)).collect::<Vec<_>>());
    refused(
        &lab,
        &["run", "--net", "few", "--", "true"],
        125,
        &["network few", "all of its addresses are taken"],
    );
    drop(all);
}

fn a_dry_run_shows_the_bridge() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "db", "--subnet", "10.9.0.0/24"]);
    let said = |options: &[&str]| {
        let arguments = [&["run", "--dry-run"], options, &["--", "true"]].concat();
        let output = lab.netbox(&arguments).output().expect("netbox can be started");
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = said(&["--net", "db:ip=10.9.0.7"]);
    for part in [
        "type bridge",
        "type bridge_slave learning off",
        "bridge -n GATEWAY fdb",
        "table bridge netbox",
        "10.9.0.7/24",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document: Value = serde_json::from_str(&said(&["--net", "db", "--json"])).expect("JSON");
    assert_eq!(
        (document["net"].as_str(), document["topology"]["gateway_ipv4"].as_str()),
        (Some("db"), Some("10.9.0.1"))
    );
    refused(
        &lab,
        &["run", "--dry-run", "--net", "unknown", "--", "true"],
        125,
        &["there is no network unknown"],
    );
}
