//! The lab itself: that its internet works, and that each of its checks can fail.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::lab::{
    Capture, ECHO, HOST, HOST6, Lab, PROBE, Packet, Service, Shape, WAN, WAN6, links, live_tests, nftables,
    probe, sysctl,
};

live_tests![
    the_host_reaches_the_outside,
    the_client_reaches_the_host,
    the_host_routes_for_nobody_unless_told,
    an_untouched_host_is_clean,
    a_left_link_is_noticed,
    a_left_address_is_noticed,
    a_left_route_is_noticed,
    a_left_rule_is_noticed,
    a_left_table_is_noticed_until_flushed,
    a_left_sysctl_is_noticed,
    a_left_file_is_noticed,
    a_left_process_is_noticed,
    a_packet_from_the_pool_is_noticed,
];

const POOL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 16);

fn wan() -> SocketAddr {
    SocketAddr::from((WAN, ECHO))
}

fn the_host_reaches_the_outside() {
    let lab = Lab::new(Shape::OwnLan);
    assert_eq!(probe::tcp(wan()).seen_as(), Some(IpAddr::V4(HOST)));
    assert_eq!(probe::udp(wan()).seen_as(), Some(IpAddr::V4(HOST)));
    assert_eq!(probe::tcp(SocketAddr::from((WAN6, ECHO))).seen_as(), Some(IpAddr::V6(HOST6)));
    assert_eq!(lab.wan_udp.visits(), 1);
}

fn the_client_reaches_the_host() {
    let lab = Lab::new(Shape::SharedUplink);
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 22));
    let service = Service::tcp(lab.host_place(), at);
    let target = SocketAddr::from((lab.host_for_client(), 22));
    assert_eq!(lab.client(|| probe::tcp(target)).seen_as(), Some(IpAddr::V4(lab.client_address())));
    assert_eq!(service.visits(), 1);
    assert!(lab.client(|| probe::udp(wan())).reached(), "the client is on the uplink's network");
}

fn the_host_routes_for_nobody_unless_told() {
    let lab = Lab::new(Shape::OwnLan);
    let (wan_net, by) = (Ipv4Addr::new(198, 51, 100, 0), lab.host_for_client());
    lab.client(|| links::route(wan_net.into(), 24, by.into()));
    assert!(!lab.client(|| probe::udp(wan())).reached());
    assert_eq!(lab.wan_udp.visits(), 0);
    sysctl("net/ipv4/ip_forward", "1");
    assert!(lab.client(|| probe::udp(wan())).reached(), "the test is able to fail");
    sysctl("net/ipv4/ip_forward", "0");
}

fn an_untouched_host_is_clean() {
    let lab = Lab::new(Shape::OwnLan);
    assert_eq!(lab.difference(), "");
}

fn a_left_link_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    links::bridge("nb0");
    lab.expect_difference("+ link: bridge");
}

fn a_left_address_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    links::address("hw", POOL.into(), 32);
    lab.expect_difference("+ address: family 2 /32 scope 0 dev hw peer 10.99.0.16");
}

fn a_left_route_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    links::route(POOL.into(), 32, WAN.into());
    lab.expect_difference("to 10.99.0.16 via 198.51.100.10 dev hw");
}

fn a_left_rule_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    links::rule(90);
    lab.expect_difference("+ rule: family 2");
}

fn a_left_table_is_noticed_until_flushed() {
    let lab = Lab::new(Shape::OwnLan);
    nftables::add_table("netbox");
    assert!(lab.difference().contains("+ nft: table family 1 1=netbox"), "{}", lab.difference());
    nftables::flush();
    assert_eq!(nftables::tables(), Vec::<String>::new());
}

fn a_left_sysctl_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    sysctl("net/ipv4/conf/hw/forwarding", "1");
    lab.expect_difference("+ sysctl: net/ipv4/conf/hw/forwarding = 1");
}

fn a_left_file_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    fs::create_dir_all("/run/netbox/0").expect("a directory");
    assert_eq!(lab.difference(), "", "empty directories may stay");
    fs::create_dir_all("/run/netbox/0/abcd2345").expect("a directory");
    lab.expect_difference("+ file: /run/netbox/0/abcd2345");
}

fn a_left_process_is_noticed() {
    let lab = Lab::new(Shape::OwnLan);
    let mut child =
        Command::new(PROBE).arg0(PROBE).arg("sleep").stdout(Stdio::null()).spawn().expect("a probe");
    assert!(lab.difference().contains("+ process"), "{}", lab.difference());
    child.kill().expect("a child");
    child.wait().expect("a child");
}

fn a_packet_from_the_pool_is_noticed() {
    let mut lab = Lab::new(Shape::OwnLan);
    let mut own = Capture::start(lab.wan_place());
    links::address("hw", POOL.into(), 32);
    let socket = std::net::UdpSocket::bind((POOL, 0)).expect("an address of the host");
    socket.send_to(b"leak", wan()).expect("to send");
    let seen = |packet: Packet| packet.source() == Some(POOL.into());
    assert!(own.stop().expect("a whole capture").into_iter().any(seen));
    assert!(lab.stop_captures().expect_err("a leak").contains("10.99.0.16"));
    lab.expect_difference("10.99.0.16");
}
