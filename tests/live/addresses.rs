//! What of a box's addresses was asked for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{
    ECHO, HOST, HOST_LAN, HOST_LAN6, HOST6, Lab, NETBOX, RunningBox, Shape, WAN, WAN6, links, live_tests,
    nftables, outcome, probe, running, send, sysctl, words,
};

live_tests![
    a_box_has_the_addresses_asked_for,
    an_address_can_be_used_again_at_once,
    an_address_that_a_box_has_is_not_given_twice,
    a_pool_is_that_of_the_first_box,
    a_pool_that_is_full_says_so,
    a_range_that_the_host_uses_is_no_pool,
    an_ipv6_address_is_of_the_prefix_of_the_first_box,
    an_ipv6_address_is_refused_where_boxes_have_none,
    a_dry_run_says_who_has_the_address,
    a_box_sends_with_the_address_asked_for,
    a_box_sends_with_the_ipv6_address_asked_for,
    a_source_address_is_one_of_the_hosts,
    a_source_address_comes_back_with_the_rules,
    nothing_is_left_of_a_source_address_when_everything_was_killed,
    a_box_has_the_hardware_address_asked_for,
    a_box_without_ipv6_has_none,
];

const POOL: &str = "10.111.7.0/24";
const ADDRESS: &str = "10.111.7.20";
const ADDRESS6: &str = "fd11:22:33::14";

/// That a run is refused with these words, before the command.
fn refused(lab: &Lab, options: &[&str], expected: &[&str]) {
    let output = lab.run(options, &["tcp", "198.51.100.10:7"]);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(125), "{options:?}: {said}");
    assert!(expected.iter().all(|part| said.contains(part)), "{options:?}, {expected:?}: {said}");
}

fn assert_egress(running: &RunningBox) {
    let outcome = running.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "{outcome}");
}

fn assert_egress6(running: &RunningBox) {
    let outcome = running.inside(|| probe::tcp(SocketAddr::from((WAN6, ECHO))));
    assert!(outcome.reached(), "{outcome}");
}

/// N1: `--pool`, `--ip` and `--ip6`, and the outside answers.
fn a_box_has_the_addresses_asked_for() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["--pool", POOL, "--ip", ADDRESS, "--ip6", ADDRESS6], &["sleep"]);
    assert_eq!(running.address, ADDRESS.parse::<Ipv4Addr>().expect("an address"));
    assert_eq!(running.address6, ADDRESS6.parse().ok());
    assert_egress(&running);
    assert_egress6(&running);
    // Of one box: a port that is published leads to it by its address.
    drop(running);
    let running = lab
        .start(&["--pool", POOL, "--ip", "10.111.7.254", "-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    assert_eq!(running.address, Ipv4Addr::new(10, 111, 7, 254));
    let outcome = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080))));
    assert!(outcome.reached(), "{outcome}");
}

/// L1: the keeper of the box before still sees its link off, beside another box and as the last.
fn an_address_can_be_used_again_at_once() {
    let lab = Lab::new(Shape::OwnLan);
    let wan = SocketAddr::from((WAN, ECHO)).to_string();
    let options = ["--pool", POOL, "--ip", ADDRESS];
    for _ in 0..3 {
        assert!(outcome(&lab.run(&options, &["tcp", &wan])).reached());
    }
    let _other = lab.start(&["--pool", POOL], &["sleep"]);
    for _ in 0..3 {
        assert!(outcome(&lab.run(&options, &["tcp", &wan])).reached());
    }
}

/// N1: refused, naming the box or the pool, and the box that has it goes on.
fn an_address_that_a_box_has_is_not_given_twice() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&["--name", "first", "--pool", POOL, "--ip", ADDRESS], &["sleep"]);
    refused(&lab, &["--ip", ADDRESS], &[ADDRESS, "box first"]);
    refused(&lab, &["--ip", "10.111.8.20"], &[POOL]);
    refused(&lab, &["--ip", "10.111.7.1"], &["reserved", "10.111.7.16 to 10.111.7.254"]);
    refused(&lab, &["--pool", "10.112.0.0/18"], &["10.112.0.0/18", POOL, "first"]);
    let six = first.address6.expect("an IPv6 address");
    refused(&lab, &["--ip6", &six.to_string()], &["box first"]);
    refused(&lab, &["--ip", "10.111.7.21", "--ip6", &six.to_string()], &["10.111.7.21", &six.to_string()]);
    assert_egress(&first);
}

/// N1: a small pool serves all. A box without a network takes no address of it.
fn a_pool_is_that_of_the_first_box() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&["--pool", "10.111.7.32/27"], &["sleep"]);
    let _none = lab.start(&["--net", "none"], &["sleep"]);
    let second = lab.start(&[], &["sleep"]);
    let third = lab.start(&["--ip", "10.111.7.62"], &["sleep"]);
    for running in [&first, &second, &third] {
        let address = running.address;
        assert_eq!(u32::from(address) >> 5, u32::from(Ipv4Addr::new(10, 111, 7, 32)) >> 5, "{address}");
        assert_egress(running);
    }
}

/// N1: the sixteenth box of a /27.
fn a_pool_that_is_full_says_so() {
    let lab = Lab::new(Shape::OwnLan);
    let _none = lab.start(&["--net", "none"], &["sleep"]);
    let all: Vec<_> = (0..15).map(|_| lab.start(&["--pool", "10.111.7.32/27"], &["sleep"])).collect();
    refused(&lab, &[], &["all 15 addresses"]);
    drop(all);
}

/// N1: a pool would hide what is there.
fn a_range_that_the_host_uses_is_no_pool() {
    let net = Ipv4Addr::new(10, 111, 0, 0);
    let lab = Lab::before(Shape::OwnLan, || links::route(net.into(), 16, WAN.into()));
    refused(&lab, &["--pool", POOL], &[POOL, "a route to 10.111.0.0/16"]);
    // Were there a pool, its route would be in a table of netbox's.
    assert_eq!(links::owned_by(110), (Vec::new(), Vec::new()));
}

/// N1: `--ip6` of the first box chooses the prefix; later ones have to be of it.
fn an_ipv6_address_is_of_the_prefix_of_the_first_box() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&["--ip6", ADDRESS6], &["sleep"]);
    assert_eq!(first.address6, ADDRESS6.parse().ok());
    let second = lab.start(&["--ip6", "fd11:22:33::3ffe"], &["sleep"]);
    assert_eq!(second.address6, "fd11:22:33::3ffe".parse().ok());
    assert_egress6(&second);
    refused(&lab, &["--ip6", "fd11:22:34::14"], &["fd11:22:34::14", "fd11:22:33::/64"]);
    refused(&lab, &["--ip6", "fd11:22:33::3fff"], &["reserved", "fd11:22:33::10 to fd11:22:33::3ffe"]);
    let third = lab.start(&[], &["sleep"]);
    let prefix = |address: Ipv6Addr| u128::from(address) >> 64;
    assert_eq!(third.address6.map(prefix), first.address6.map(prefix));
}

/// N1: the reason is told, by the first box and by a later one.
fn an_ipv6_address_is_refused_where_boxes_have_none() {
    // All but its link-local addresses.
    let lab = Lab::before(Shape::OwnLan, || {
        for (link, address) in [("hw", HOST6), ("hc", HOST_LAN6)] {
            links::remove_address(link, IpAddr::V6(address), 64);
        }
    });
    refused(&lab, &["--ip6", ADDRESS6], &["boxes have no IPv6", "the host has no IPv6"]);
    let _first = lab.start(&[], &["sleep"]);
    refused(&lab, &["--ip6", ADDRESS6], &[ADDRESS6, "boxes have no IPv6", "the host has no IPv6"]);
}

/// N1: `--dry-run` has a run's refusals, and says a run's addresses.
fn a_dry_run_says_who_has_the_address() {
    let lab = Lab::new(Shape::OwnLan);
    let planned = |options: &[&str]| lab.run(&[&["--dry-run"], options].concat(), &["sleep"]);
    let alone = words(&planned(&["--pool", POOL, "--ip", ADDRESS, "--ip6", ADDRESS6]));
    let _first =
        lab.start(&["--name", "first", "--pool", POOL, "--ip", ADDRESS, "--ip6", ADDRESS6], &["sleep"]);
    let beside = words(&planned(&["--ip6", "fd11:22:33::15"]));
    for (said, expected) in [
        (&alone, ["address add 10.111.7.20/32", "address add fd11:22:33::14/128", "10.111.7.0/24"]),
        (&beside, ["address add 10.111.7.21/32", "address add fd11:22:33::15/128", "10.111.7.0/24"]),
    ] {
        assert!(expected.iter().all(|part| said.contains(part)), "{expected:?}: {said}");
    }
    refused(&lab, &["--dry-run", "--ip", ADDRESS], &["box first"]);
    refused(&lab, &["--dry-run", "--pool", "10.112.0.0/18"], &["first"]);
}

const SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);

/// A host with two further addresses, to which the outside knows the way.
fn with_sources() -> Lab {
    let lab = Lab::before(Shape::OwnLan, || {
        links::address("lo", SOURCE.into(), 32);
        links::address("lo", SOURCE6.into(), 128);
    });
    lab.wan(|| {
        links::route(SOURCE.into(), 32, HOST.into());
        links::route(SOURCE6.into(), 128, HOST6.into());
    });
    lab
}

/// As whom a box with these options is seen outside, over each family.
fn seen_as(lab: &Lab, options: &[&str]) -> [Option<IpAddr>; 2] {
    let running = lab.start(options, &["sleep"]);
    [IpAddr::V4(WAN), IpAddr::V6(WAN6)].map(|wan| running.inside(|| probe::tcp((wan, ECHO).into()).seen_as()))
}

/// The elements of the host's maps of source addresses.
fn sources() -> Vec<String> {
    let hex = |octets: &[u8]| octets.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let both = [hex(&SOURCE.octets()), hex(&SOURCE6.octets())];
    let named = |line: &String| both.iter().any(|address| line.contains(address));
    nftables::ruleset().into_iter().filter(named).collect()
}

/// N1, L1: `--snat` is seen outside, for its family; another box is seen as ever; and nothing of it stays.
fn a_box_sends_with_the_address_asked_for() {
    let lab = with_sources();
    let _other = lab.start(&[], &["sleep"]);
    let running = lab.start(&["--snat", &SOURCE.to_string()], &["sleep"]);
    assert_eq!(sources().len(), 1, "{:?}", sources());
    for (protocol, outcome) in [
        ("tcp", running.inside(|| probe::tcp((WAN, ECHO).into()))),
        ("udp", running.inside(|| probe::udp((WAN, ECHO).into()))),
    ] {
        assert_eq!(outcome.seen_as(), Some(SOURCE.into()), "{protocol} {outcome}");
    }
    assert!(running.inside(|| probe::icmp(WAN)).reached());
    assert_eq!(running.end().code(), Some(143));
    assert_eq!(sources(), Vec::<String>::new());
    assert_eq!(seen_as(&lab, &["--snat", &SOURCE.to_string()]), [Some(SOURCE.into()), Some(HOST6.into())]);
    assert_eq!(seen_as(&lab, &[]), [Some(HOST.into()), Some(HOST6.into())]);
}

/// N1, L1: the same over IPv6.
fn a_box_sends_with_the_ipv6_address_asked_for() {
    let lab = with_sources();
    assert_eq!(seen_as(&lab, &["--snat", &SOURCE6.to_string()]), [Some(HOST.into()), Some(SOURCE6.into())]);
    let _other = lab.start(&[], &["sleep"]);
    assert_eq!(seen_as(&lab, &["--snat", &SOURCE6.to_string()]), [Some(HOST.into()), Some(SOURCE6.into())]);
    assert_eq!(sources(), Vec::<String>::new());
    assert_eq!(seen_as(&lab, &[]), [Some(HOST.into()), Some(HOST6.into())]);
}

/// N1: refused before anything is made, by a dry run too.
fn a_source_address_is_one_of_the_hosts() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv6/conf/hw/disable_ipv6", "1"));
    for options in [&["--snat", "203.0.113.78"][..], &["--dry-run", "--snat", "203.0.113.78"]] {
        refused(&lab, options, &["203.0.113.78", "not an address of this host"]);
        assert_eq!(links::owned_by(110), (Vec::new(), Vec::new()));
    }
    // It is one, but boxes have no IPv6 here: the uplink has none.
    for options in [&["--snat", "2001:db8:1::1"][..], &["--dry-run", "--snat", "2001:db8:1::1"]] {
        refused(&lab, options, &["2001:db8:1::1", "the box has no IPv6"]);
    }
}

/// I6: never with another one, once it leaves at all.
fn a_source_address_comes_back_with_the_rules() {
    let lab = with_sources();
    let running = lab.start(&["--snat", &SOURCE.to_string()], &["sleep"]);
    let six = lab.start(&["--snat", &SOURCE6.to_string()], &["sleep"]);
    for (running, wan, source) in
        [(&running, IpAddr::V4(WAN), IpAddr::V4(SOURCE)), (&six, IpAddr::V6(WAN6), IpAddr::V6(SOURCE6))]
    {
        let first_answer = || {
            running.inside(|| {
                let end = Instant::now() + Duration::from_secs(3);
                loop {
                    let outcome = probe::udp((wan, ECHO).into());
                    if outcome.reached() || Instant::now() > end {
                        break outcome;
                    }
                }
            })
        };
        assert_eq!(first_answer().seen_as(), Some(source));
        for round in ["once", "twice"] {
            nftables::flush();
            let outcome = first_answer();
            assert_eq!(outcome.seen_as(), Some(source), "after a flush, {round}: {outcome}");
        }
    }
    assert_eq!(sources().len(), 2, "{:?}", sources());
}

/// L2: beside a box that goes on, whose gateway stays; the next netbox command takes it back.
fn nothing_is_left_of_a_source_address_when_everything_was_killed() {
    let lab = with_sources();
    let other = lab.start(&[], &["sleep"]);
    let before: HashSet<_> = running(NETBOX).into_iter().collect();
    let mut chosen = lab.start(&["--snat", &SOURCE.to_string()], &["sleep"]);
    let address = chosen.address.to_string();
    assert_eq!(sources().len(), 1);
    let own: Vec<_> = running(NETBOX).into_iter().filter(|pid| !before.contains(pid)).collect();
    assert!(own.len() >= 2, "launcher and keeper: {own:?}");
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        own.iter().for_each(|pid| send(*pid, signal));
    }
    chosen.wait();
    assert_eq!(sources().len(), 1, "what was killed takes nothing back");
    // The address is free again with the same command that sweeps, and is the host's of old.
    let wan = SocketAddr::from((WAN, ECHO)).to_string();
    let output = lab.run(&["--ip", &address], &["tcp", &wan]);
    assert_eq!(outcome(&output).seen_as(), Some(HOST.into()), "{}", words(&output));
    assert_eq!(sources(), Vec::<String>::new());
    assert_egress(&other);
}

/// N1: `--mac`, over both families; two boxes may have the same, each on its own link.
fn a_box_has_the_hardware_address_asked_for() {
    let lab = Lab::new(Shape::OwnLan);
    let options = ["--mac", "02:00:5e:10:00:01"];
    for running in [lab.start(&options, &["sleep"]), lab.start(&options, &["sleep"])] {
        assert_eq!(running.inside(|| links::mac("eth0")), [2, 0, 0x5e, 0x10, 0, 1]);
        assert_egress(&running);
        assert_egress6(&running);
    }
    // The gateway's own, on the other end of the same link.
    let output = lab.run(&["--mac", "02:6e:62:ff:ff:01"], &["sleep"]);
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    assert!(words(&output).contains("that of the gateway"), "{}", words(&output));
}

/// N1: `--no-ipv6`, beside a box with.
fn a_box_without_ipv6_has_none() {
    let lab = Lab::new(Shape::OwnLan);
    let with = lab.start(&[], &["sleep"]);
    let without = lab.start(&["--no-ipv6"], &["sleep"]);
    assert_eq!(without.address6, None);
    let own = without.inside(probe::own_address6);
    let outcome = without.inside(|| probe::tcp(SocketAddr::from((WAN6, ECHO))));
    assert!(own.is_none() && !outcome.reached(), "{own:?} {outcome}");
    assert_egress(&without);
    assert_egress6(&with);
}
