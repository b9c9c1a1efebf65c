//! Networks over several machines: whose boxes reach whom without translation, and what the hosts have because of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{
    ECHO, HOST, HOST6, Lab, Outcome, RunningBox, SECOND, SecondHost, Shape, Snapshot, WAN, WAN6, links,
    live_tests, nftables, probe, words,
};

live_tests![
    boxes_of_two_machines_reach_each_other_untranslated,
    nobody_else_reaches_a_network_of_two_machines,
    what_a_network_of_two_machines_needs_is_put_back,
    a_route_of_the_hosts_own_is_left_alone,
    networks_share_a_route_to_another_machine,
];

const OUTSIDE: [&str; 2] = ["--no-masquerade", "10.1.0.0/16"];
const TO_SECOND: [&str; 4] = ["--subnet", "10.1.10.0/24", "--route", "10.1.20.0/24=198.51.100.2"];
const TO_FIRST: [&str; 4] = ["--subnet", "10.1.20.0/24", "--route", "10.1.10.0/24=198.51.100.1"];
const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];
const UDP_SERVER: [&str; 3] = ["listen", "udp", "0.0.0.0:53"];

fn create(lab: &Lab, name: &str, options: &[&str]) {
    let mut command = lab.netbox(&[&["network", "create", name], options].concat());
    let output = command.output().expect("netbox can be started");
    assert!(output.status.success(), "{}", words(&output));
}

fn member(lab: &Lab, network: &str, words: &[&str]) -> RunningBox {
    lab.start(&["--net", network], words)
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Two hosts, a network on each with a route to the other's.
fn two_machines() -> (Lab, SecondHost) {
    let lab = Lab::new(Shape::SharedUplink);
    let second = SecondHost::new(&lab);
    create(&lab, "front", &[&TO_SECOND[..], &OUTSIDE].concat());
    second.run(|| create(&lab, "back", &[&TO_FIRST[..], &OUTSIDE].concat()));
    (lab, second)
}

/// Ends the second host, and lets nothing have been seen outside but packets of the networks.
fn end(mut lab: Lab, second: &SecondHost) {
    second.assert_clean();
    let of_networks = |from| matches!(from, IpAddr::V4(from) if from.octets()[..2] == [10, 1]);
    lab.stop_captures_but(of_networks).unwrap_or_else(|error| panic!("{error}"));
}

/// What reaches `to`, which listens on both protocols' ports, from a box; each with the box's own address.
fn reach_each_other(from: &RunningBox, tcp: &RunningBox, udp: &RunningBox) {
    let own = Some(IpAddr::V4(from.address));
    let [by_tcp, by_udp, ping] = from.inside(|| {
        [probe::tcp(at(tcp.address, 80)), probe::udp(at(udp.address, 53)), probe::icmp(tcp.address)]
    });
    assert_eq!(by_tcp.seen_as(), own, "{by_tcp}");
    assert_eq!(by_udp.seen_as(), own, "{by_udp}");
    assert!(ping.reached(), "{ping}");
}

/// N1, I4: in both directions, and the rest of the world still sees the host's address.
fn boxes_of_two_machines_reach_each_other_untranslated() {
    let (lab, second) = two_machines();
    let (tcp, udp) = (member(&lab, "front", &SERVER), member(&lab, "front", &UDP_SERVER));
    let [tcp2, udp2] = second.run(|| [&SERVER, &UDP_SERVER].map(|words| member(&lab, "back", words)));
    assert_eq!((tcp.address.octets()[2], tcp2.address.octets()[2]), (10, 20));
    reach_each_other(&tcp, &tcp2, &udp2);
    reach_each_other(&udp2, &tcp, &udp);
    for (running, host) in [(&tcp, HOST), (&tcp2, SECOND)] {
        let [by_tcp, by_udp] = running.inside(|| [probe::tcp(at(WAN, ECHO)), probe::udp(at(WAN, ECHO))]);
        assert_eq!((by_tcp.seen_as(), by_udp.seen_as()), (Some(host.into()), Some(host.into())), "{by_tcp}");
    }
    // A host may look at its own.
    let outcome = probe::tcp(at(tcp.address, 80));
    assert!(outcome.reached(), "{outcome}");
    drop((tcp, udp));
    second.run(move || drop((tcp2, udp2)));
    end(lab, &second);
}

/// I2, I3: by the addresses that boxes have, whatever route one makes to them; with netbox's rules and without, and on a host that
/// forwards everything.
fn nobody_else_reaches_a_network_of_two_machines() {
    let (lab, second) = two_machines();
    create(&lab, "other", &["--subnet", "10.1.11.0/24"]);
    let server = member(&lab, "front", &SERVER);
    let [stranger, plain] = [&["--net", "other"][..], &[]].map(|options| lab.start(options, &["sleep"]));
    let (tcp2, plain2) = second.run(|| (member(&lab, "back", &SERVER), lab.start(&[], &["sleep"])));
    lab.client(|| {
        links::route([10, 1, 10, 0].into(), 24, HOST.into());
        // Passes for a box of the network itself.
        links::address("c0", Ipv4Addr::new(10, 1, 10, 77).into(), 32);
    });
    lab.wan(|| links::route([10, 1, 10, 0].into(), 24, HOST.into()));
    let spoofed = || {
        let socket = std::net::UdpSocket::bind("10.1.10.77:0").expect("its address");
        socket.send_to(b"x", at(server.address, 80)).expect("sent");
    };
    let attempts = |where_: &str| {
        let of = |attempt: &dyn Fn() -> [Outcome; 2]| attempt();
        let to_first = || of(&|| [probe::tcp(at(server.address, 80)), probe::icmp(server.address)]);
        let to_second = || of(&|| [probe::tcp(at(tcp2.address, 80)), probe::icmp(tcp2.address)]);
        let all = [
            ("a neighbour", lab.client(to_first)),
            ("whoever else is there", lab.wan(to_first)),
            ("a box of another network", stranger.inside(to_first)),
            ("a box of none", plain.inside(to_first)),
            ("one of another network, elsewhere", stranger.inside(to_second)),
            ("one of none, elsewhere", plain.inside(to_second)),
            ("a box of none of the other host", plain2.inside(to_first)),
        ];
        for (who, outcomes) in all {
            for outcome in outcomes {
                assert!(!outcome.reached(), "{where_}: {who}: {outcome}");
            }
        }
        lab.client(spoofed);
    };
    attempts("with all rules");
    assert!(server.inside(|| probe::tcp(at(tcp2.address, 80))).reached());
    // Somebody who has the host forward everything takes it over.
    crate::lab::sysctl("net/ipv4/ip_forward", "1");
    attempts("on a host that forwards");
    crate::lab::sysctl("net/ipv4/ip_forward", "0");
    assert_eq!(received(&server), 0, "a datagram with an address of the network's own came in");
    drop((server, stranger, plain));
    second.run(move || drop((tcp2, plain2)));
    end(lab, &second);
}

/// How many UDP datagrams have come to a box, for which nobody listens.
fn received(running: &RunningBox) -> u64 {
    let text = running.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters"));
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut all = names.split(' ').zip(values.split(' '));
    all.find(|(name, _)| *name == "NoPorts").and_then(|(_, value)| value.parse().ok()).expect("a number")
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(2);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// I6: rules, routing rules and routes, and those that go by themselves with a link.
fn what_a_network_of_two_machines_needs_is_put_back() {
    let (lab, second) = two_machines();
    let tcp = member(&lab, "front", &SERVER);
    let tcp2 = second.run(|| member(&lab, "back", &SERVER));
    let all_reached = || {
        let there = tcp.inside(|| probe::tcp(at(tcp2.address, 80))).seen_as() == Some(tcp.address.into());
        there && tcp2.inside(|| probe::tcp(at(tcp.address, 80))).seen_as() == Some(tcp2.address.into())
    };
    eventually("both are reached at first", all_reached);
    let before = links::owned_by(110);
    nftables::flush();
    eventually("after the rules were flushed", all_reached);
    links::remove_rules(90..=91);
    links::remove_routes_of(110);
    eventually("after rules and routes were removed", || links::owned_by(110) == before);
    assert!(all_reached());
    links::down("hw");
    links::up("hw");
    links::route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
    links::address("hw", HOST6.into(), 64);
    links::route(Ipv6Addr::UNSPECIFIED.into(), 0, WAN6.into());
    eventually("after the uplink was down", || links::owned_by(110) == before);
    eventually("after the uplink was down", all_reached);
    drop(tcp);
    second.run(move || drop(tcp2));
    end(lab, &second);
}

/// Waits until the host is as it was, but for files and processes.
fn comes_back_to(before: &Snapshot) {
    let mut difference = String::new();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let all = before.difference(&Snapshot::take());
        difference = all
            .lines()
            .filter(|line| ![" file: ", " process: "].iter().any(|what| line.contains(what)))
            .collect::<Vec<_>>()
            .join("\n");
        if difference.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the host is not as it was:\n{difference}");
}

fn refused(lab: &Lab, arguments: &[&str], expected: &[&str]) {
    let output = lab.netbox(arguments).output().expect("netbox can be started");
    let said = words(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(expected.iter().all(|part| said.contains(part)), "{expected:?}: {said}");
}

/// L3.
fn a_route_of_the_hosts_own_is_left_alone() {
    let lab = Lab::before(Shape::OwnLan, || {
        links::route([10, 1, 20, 0].into(), 24, Ipv4Addr::new(192, 0, 2, 10).into());
    });
    let to = |via| format!("10.1.20.0/24={via}");
    let own = ["--subnet", "10.1.10.0/24"];
    refused(
        &lab,
        &[&["network", "create", "front"], &own[..], &["--route", &to("192.0.2.9")]].concat(),
        &["--route 10.1.20.0/24=192.0.2.9", "the host has a route to 10.1.20.0/24"],
    );
    let network = ["--subnet", "10.1.10.0/24", "--route", "10.1.20.0/24=192.0.2.9"];
    // As if it had come since.
    let via = Ipv4Addr::new(192, 0, 2, 10).into();
    links::remove_route([10, 1, 20, 0].into(), 24, via);
    create(&lab, "front", &network);
    links::route([10, 1, 20, 0].into(), 24, via);
    let other = lab.start(&[], &["sleep"]);
    let before = Snapshot::take();
    let run = ["run", "--net", "front", "--", "true"];
    refused(&lab, &run, &["network front", "a route of its own to 10.1.20.0/24 by way of 192.0.2.10"]);
    // A next hop that no link leads to is told of, and nothing is left either.
    create(&lab, "far", &["--subnet", "10.1.12.0/24", "--route", "10.1.30.0/24=10.9.9.9"]);
    links::remove_route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
    let without = Snapshot::take();
    refused(&lab, &["run", "--net", "far", "--", "true"], &["10.1.30.0/24", "unreachable"]);
    comes_back_to(&without);
    links::route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
    comes_back_to(&before);
    drop(other);
}

/// L1: a route goes with the last network that has it, while the gateway lives.
fn networks_share_a_route_to_another_machine() {
    let lab = Lab::new(Shape::OwnLan);
    let route = ["--route", "10.1.20.0/24=192.0.2.9"];
    create(&lab, "one", &[&["--subnet", "10.1.10.0/24"], &route[..], &OUTSIDE].concat());
    create(&lab, "two", &[&["--subnet", "10.1.11.0/24"], &route[..]].concat());
    let other = lab.start(&[], &["sleep"]);
    let before = Snapshot::take();
    let counts = || links::owned_by(110).1.len();
    let without = counts();
    for name in ["one", "two"] {
        let output = lab.run(&["--net", name], &["there", "/"]);
        assert!(output.status.success(), "{}", words(&output));
    }
    // Two to the one network, and the one that both have.
    assert_eq!(counts(), without + 3);
    for (name, left) in [("one", 1), ("two", 0)] {
        let output = lab.netbox(&["network", "rm", name]).output().expect("netbox can be started");
        assert!(output.status.success(), "{}", words(&output));
        assert_eq!(counts(), without + left, "after network {name} was removed");
    }
    comes_back_to(&before);
    drop(other);
}
