//! Ports of the host's that were opened to a box (`--host-port`).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::connections::limit;
use crate::lab::{
    DetachedBox, HOST, HOST_LAN, Lab, PROBE, Place, RunningBox, Service, links, live_tests, nftables,
    outcome, probe, send, wait_until, words,
};
use crate::names;

live_tests![
    a_box_reaches_a_port_of_the_host_by_name_and_by_number,
    no_other_port_of_the_host_is_reached,
    nobody_else_reaches_it,
    a_member_of_a_network_reaches_a_port_of_the_host,
    what_listens_on_the_host_may_come_and_go,
    the_relay_to_the_host_is_started_when_needed_and_has_no_privileges,
    connections_to_a_port_of_the_host_are_limited_as_others_are,
    a_port_of_the_host_is_closed_with_its_box,
    a_killed_box_leaves_no_way_to_the_host,
];

const NAME: &str = "host.netbox.internal";
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A lab in which questions for other names fail at once.
fn lab() -> Lab {
    names::lab("nameserver 198.51.100.99\noptions timeout:1 attempts:1\n")
}

fn on(lab: &Lab, address: Ipv4Addr, port: u16) -> Service {
    Service::tcp(lab.host_place(), SocketAddr::from((address, port)))
}

/// Where the box reaches the host's ports.
fn gate(running: &RunningBox, port: u16) -> SocketAddr {
    let resolver = names::resolver(running).ip();
    SocketAddr::new(resolver, port)
}

/// I1, N4: TCP and UDP, under its own number and another, by the C library's means too.
fn a_box_reaches_a_port_of_the_host_by_name_and_by_number() {
    let lab = lab();
    let tcp = on(&lab, LOOPBACK, 5432);
    let udp = Service::udp(lab.host_place(), SocketAddr::from((LOOPBACK, 123)));
    let options = ["--host-port", "5432", "--host-port", "5432:15432", "--host-port", "123:1123/udp"];
    let running = lab.start(&options, &["sleep"]);
    for port in [5432, 15432] {
        let seen = running.inside(|| probe::tcp(gate(&running, port)));
        assert_eq!(seen.seen_as(), Some(LOOPBACK.into()), "{port}: {seen}");
    }
    for _ in 0..2 {
        let seen = running.inside(|| probe::udp(gate(&running, 1123)));
        assert_eq!(seen.seen_as(), Some(LOOPBACK.into()), "{seen}");
    }
    assert_eq!((tcp.visits(), udp.visits()), (2, 2));

    let found = outcome(&lab.run(&options, &["resolve", NAME])).seen_as();
    assert!(matches!(found, Some(address) if address.to_string().starts_with("169.254.")), "{found:?}");
    // Whoever is asked otherwise.
    let dns = [&options[..], &["--dns", "198.51.100.98"]].concat();
    assert!(outcome(&lab.run(&dns, &["resolve", NAME])).reached());
    let without = outcome(&lab.run(&[], &["resolve", NAME]));
    assert!(without.refused(), "without the option nobody has the name: {without}");

    let listed = lab.listed();
    let [one] = &listed[..] else { panic!("{listed:?}") };
    let port = |protocol: &str, host: u16, inside: u16| serde_json::json!({ "protocol": protocol, "host_port": host, "box_port": inside });
    let expected = [port("tcp", 5432, 5432), port("tcp", 5432, 15432), port("udp", 123, 1123)];
    assert_eq!(one["host_ports"].as_array().expect("an array")[..], expected);
}

/// I1: neither another number or protocol, nor the same on another address of the host's.
fn no_other_port_of_the_host_is_reached() {
    let lab = lab();
    let opened = on(&lab, LOOPBACK, 5432);
    let others = [on(&lab, LOOPBACK, 5433), on(&lab, HOST, 5432), on(&lab, HOST_LAN, 5432)];
    let udp = Service::udp(lab.host_place(), SocketAddr::from((LOOPBACK, 5432)));
    let running = lab.start(&["--host-port", "5432:80"], &["sleep"]);
    assert!(running.inside(|| probe::tcp(gate(&running, 80))).reached());
    let closed = [
        gate(&running, 5432),
        gate(&running, 5433),
        SocketAddr::from((HOST, 5432)),
        SocketAddr::from((HOST_LAN, 5432)),
        SocketAddr::from((LOOPBACK, 5432)),
    ];
    for at in closed {
        let seen = running.inside(|| probe::tcp(at));
        assert!(seen.refused(), "{at}: {seen}");
    }
    let seen = running.inside(|| probe::udp(gate(&running, 80)));
    assert!(seen.refused(), "by UDP: {seen}");
    assert_eq!((others.each_ref().map(Service::visits), udp.visits()), ([0; 3], 0));
    assert_eq!(opened.visits(), 1);
}

/// I1, I2, I3: not another box, on its own address or on that of the box that may; not a neighbour with a route to it.
fn nobody_else_reaches_it() {
    let lab = lab();
    let service = on(&lab, LOOPBACK, 5432);
    let running = lab.start(&["--host-port", "5432"], &["sleep"]);
    let other = lab.start(&["--host-port", "5433"], &["sleep"]);
    for to in [&running, &other] {
        let seen = other.inside(|| probe::tcp(gate(to, 5432)));
        assert!(seen.refused(), "another box: {seen}");
    }
    let neighbour = lab.client(|| {
        links::route(Ipv4Addr::new(169, 254, 64, 0).into(), 18, HOST_LAN.into());
        let seen = [probe::tcp(gate(&running, 5432)), probe::tcp(SocketAddr::from((HOST_LAN, 5432)))];
        links::remove_route(Ipv4Addr::new(169, 254, 64, 0).into(), 18, HOST_LAN.into());
        seen
    });
    assert!(neighbour.iter().all(|seen| !seen.reached()), "{neighbour:?}");
    let host = probe::tcp(gate(&running, 5432));
    assert!(!host.reached(), "the host by the box's way: {host}");
    assert_eq!(service.visits(), 0);
    assert!(running.inside(|| probe::tcp(gate(&running, 5432))).reached(), "the box itself");
}

/// I1: with its own name for it, which no member takes, and for itself alone.
fn a_member_of_a_network_reaches_a_port_of_the_host() {
    let lab = lab();
    let service = on(&lab, LOOPBACK, 5432);
    for arguments in [&["create", "db", "--subnet", "10.9.0.0/24"][..], &["create", "shut", "--internal"]] {
        let made = lab.netbox(&[&["network"], arguments].concat()).output().expect("netbox");
        assert!(made.status.success(), "{}", words(&made));
    }
    let other = lab.start(&["--net", "db", "--name", NAME, "--host-port", "9"], &["sleep"]);
    let running = lab.start(&["--net", "db", "--host-port", "5432"], &["sleep"]);
    let resolver = lab.netbox(&["inspect", "--format", "/0/resolver", NAME]).output().expect("netbox");
    let resolver = String::from_utf8(resolver.stdout).expect("text");
    let of_other = SocketAddr::new(resolver.trim().parse().expect("an address"), 5432);
    let listed = lab.listed();
    let id = listed.iter().find(|one| one["name"] != NAME).and_then(|one| one["id"].as_str());
    let resolver = lab.netbox(&["inspect", "--format", "/0/resolver", id.expect("an id")]).output();
    let resolver = String::from_utf8(resolver.expect("netbox").stdout).expect("text");
    let own = SocketAddr::new(resolver.trim().parse().expect("an address"), 5432);
    for to in [own, of_other] {
        let seen = other.inside(|| probe::tcp(to));
        assert!(!seen.reached(), "another member at {to}: {seen}");
    }
    assert!(!running.inside(|| probe::tcp(of_other)).reached(), "at the other's");
    assert_eq!(service.visits(), 0);
    let seen = running.inside(|| probe::tcp(own));
    assert_eq!(seen.seen_as(), Some(LOOPBACK.into()), "{seen}");
    let exec = lab.netbox(&["exec", id.expect("an id"), "--", PROBE, "resolve", NAME]).output();
    assert_eq!(outcome(&exec.expect("netbox")).seen_as(), Some(own.ip()));

    let refused = lab.run(&["--net", "shut", "--host-port", "5432"], &["sleep"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(["--host-port", "shut", "internal"].iter().all(|part| words(&refused).contains(part)));
    drop((running, other));
    for name in ["db", "shut"] {
        let removed = lab.netbox(&["network", "rm", name]).output().expect("netbox");
        assert!(removed.status.success(), "{}", words(&removed));
    }
}

/// A connection that nobody takes on the host is reset, and the next one is looked at anew.
fn what_listens_on_the_host_may_come_and_go() {
    let lab = lab();
    let running = lab.start(&["--host-port", "5432", "--host-port", "123/udp"], &["sleep"]);
    let start = Instant::now();
    let seen = running.inside(|| probe::tcp(gate(&running, 5432)));
    assert!(seen.refused() && start.elapsed() < Duration::from_millis(500), "{seen}");
    let lost = running.inside(|| probe::udp(gate(&running, 123)));
    assert!(!lost.reached(), "{lost}");
    let _tcp = on(&lab, LOOPBACK, 5432);
    let _udp = Service::udp(lab.host_place(), SocketAddr::from((LOOPBACK, 123)));
    assert!(running.inside(|| probe::tcp(gate(&running, 5432))).reached());
    assert!(running.inside(|| probe::udp(gate(&running, 123))).reached());
}

/// I5, C3: nothing runs before somebody comes; what was killed is started again.
fn the_relay_to_the_host_is_started_when_needed_and_has_no_privileges() {
    const RELAY: &str = "netbox-hostport";
    let lab = lab();
    let _service = on(&lab, LOOPBACK, 5432);
    let running = lab.start(&["--host-port", "5432"], &["sleep"]);
    assert!(names::processes(RELAY).is_empty(), "nobody has come yet");
    for _ in 0..2 {
        assert!(running.inside(|| probe::tcp(gate(&running, 5432))).reached());
        let [own] = names::processes(RELAY)[..] else { panic!("one relay") };
        names::assert_without_privileges(RELAY, own);
        send(own, Signal::SIGKILL);
        wait_until("it is gone", || names::processes(RELAY).is_empty());
    }
    running.end();
    assert!(names::processes(RELAY).is_empty());
}

/// I2: neither the host's connection tracking nor its ports are used up by them.
fn connections_to_a_port_of_the_host_are_limited_as_others_are() {
    let lab = lab();
    let _udp = Service::udp(lab.host_place(), SocketAddr::from((LOOPBACK, 123)));
    let _tcp = on(&lab, LOOPBACK, 5432);
    let running = lab.start(&["--host-port", "123/udp", "--host-port", "5432"], &["sleep"]);
    let (to, by_tcp) = (gate(&running, 123), gate(&running, 5432));
    assert!(running.inside(|| probe::udp(to)).reached());
    assert!(running.inside(|| probe::tcp(by_tcp)).reached());
    running.inside(|| {
        let most = u16::try_from(limit() + 500).expect("no more than there are ports");
        for port in (0..most).map(|number| 10_000 + number) {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port of the box's own");
            // Refused, past the limit.
            let _ = socket.send_to(b"who am I?", to);
        }
    });
    // Denied by the rules, where the socket would take it at once, however busy the relay is.
    let seen = running.inside(|| probe::tcp(by_tcp));
    assert!(seen.refused(), "one more: {seen}");
}

/// How many of the host's ports the gateway opens, to all boxes together.
fn opened(lab: &Lab) -> usize {
    let mut inside = lab.netbox(&["gateway", "--", PROBE, "sleep"]);
    let mut child = inside.stdout(std::process::Stdio::piped()).spawn().expect("netbox gateway");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("its first line");
    let rules = Place::of(child.id()).run(nftables::ruleset);
    child.kill().expect("to end it");
    child.wait().expect("its end");
    rules.iter().filter(|line| line.starts_with("element of netbox opened4:")).count()
}

/// L1: beside a box that goes on; a detached one likewise, which goes on without its caller.
fn a_port_of_the_host_is_closed_with_its_box() {
    let lab = lab();
    let _service = on(&lab, LOOPBACK, 5432);
    let other = lab.start(&[], &["sleep"]);
    assert_eq!(opened(&lab), 0);
    let running = lab.start(&["--host-port", "5432", "--host-port", "123/udp"], &["sleep"]);
    assert!(running.inside(|| probe::tcp(gate(&running, 5432))).reached());
    assert_eq!(opened(&lab), 2);
    let was = gate(&running, 5432);
    running.end();
    let seen = other.inside(|| probe::tcp(was));
    assert!(!seen.reached(), "{seen}");
    assert_eq!(opened(&lab), 0, "as soon as netbox has returned");

    let detached: DetachedBox<'_> = lab.detach(&["--rm", "--host-port", "5432"], &[PROBE, "sleep"]);
    let reached = lab.netbox(&["exec", &detached.id, "--", PROBE, "resolve", NAME]).output().expect("netbox");
    assert!(outcome(&reached).reached());
    let stopped = lab.netbox(&["kill", &detached.id]).output().expect("netbox");
    assert!(stopped.status.success(), "{}", words(&stopped));
    wait_until("nothing of them is left in the gateway", || opened(&lab) == 0);
}

/// L2: SIGKILL of all of its processes; the next netbox command takes it back.
fn a_killed_box_leaves_no_way_to_the_host() {
    let lab = lab();
    let _other = lab.start(&[], &["sleep"]);
    let mut running = lab.start(&["--host-port", "5432", "--host-port", "123/udp"], &["sleep"]);
    let listed = lab.listed();
    let one = listed.iter().find(|one| one["host_ports"] != serde_json::json!([])).expect("the box");
    let id = one["id"].as_str().expect("an id");
    let keeper = lab.netbox(&["inspect", "--format", "/0/pids/keeper", id]).output().expect("netbox");
    let keeper = String::from_utf8(keeper.stdout).expect("text").trim().parse().expect("a process");
    assert_eq!(opened(&lab), 2);
    // Neither can undo anything then.
    send(running.launcher(), Signal::SIGSTOP);
    send(keeper, Signal::SIGKILL);
    send(running.launcher(), Signal::SIGKILL);
    running.wait();
    let swept = lab.netbox(&["gc"]).output().expect("netbox");
    assert!(swept.status.success(), "{}", words(&swept));
    wait_until("nothing of it is left in the gateway", || opened(&lab) == 0);
}
