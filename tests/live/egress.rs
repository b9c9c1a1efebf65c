//! A box reaches the outside.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use crate::lab::{ECHO, HOST, Lab, Shape, WAN, links, live_tests, outcome, read_sysctl};

live_tests![
    a_box_reaches_the_outside_by_tcp,
    a_box_reaches_the_outside_by_udp,
    a_box_reaches_the_outside_by_icmp,
    a_box_in_a_crowd_may_ping,
    a_box_on_a_laptop_reaches_the_outside,
    the_global_forwarding_switch_stays_off,
    a_box_has_the_mtu_of_the_uplink,
    a_box_has_the_mtu_asked_for,
    a_box_without_a_network_reaches_nothing,
];

fn wan() -> String {
    format!("{WAN}:{ECHO}")
}

/// N1: by TCP, on a host whose `ip_forward` is 0, and with the host's address as source.
fn a_box_reaches_the_outside_by_tcp() {
    let lab = Lab::new(Shape::OwnLan);
    let outcome = lab.attempt(&["tcp", &wan()]);
    assert_eq!(outcome.seen_as(), Some(IpAddr::V4(HOST)), "{outcome}");
}

/// N1: by UDP.
fn a_box_reaches_the_outside_by_udp() {
    let lab = Lab::new(Shape::OwnLan);
    let outcome = lab.attempt(&["udp", &wan()]);
    assert_eq!(outcome.seen_as(), Some(IpAddr::V4(HOST)), "{outcome}");
}

/// N1, N5: by ICMP, without a capability.
fn a_box_reaches_the_outside_by_icmp() {
    let lab = Lab::new(Shape::OwnLan);
    let outcome = lab.attempt(&["icmp", &WAN.to_string()]);
    assert!(outcome.reached(), "{outcome}");
}

/// N5, C2: among a hundred boxes too, where the setting for it is written through a /proc that nobody else uses.
fn a_box_in_a_crowd_may_ping() {
    let lab = Lab::new(Shape::OwnLan);
    let alone = lab.start(&[], &["sleep"]);
    assert_eq!(own_procs(), 0);
    let state = fs::read_dir("/run/netbox/0").expect("the user's directory").next().expect("the host's");
    let boxes = state.expect("the host's").path().join("boxes");
    // How many directories there are is all that is looked at.
    let crowd: Vec<_> = (0..100).map(|number| boxes.join(format!("crowd{number}"))).collect();
    crowd.iter().for_each(|one| fs::create_dir(one).expect("a directory"));
    let among_many = lab.start(&[], &["sleep"]);
    let range = || read_sysctl("net/ipv4/ping_group_range");
    assert_eq!(among_many.inside(range), alone.inside(range));
    assert_eq!(own_procs(), 1, "the keeper has it, and nobody else");
    let outcome = lab.attempt(&["icmp", &WAN.to_string()]);
    assert!(outcome.reached(), "{outcome}");
    crowd.iter().for_each(|one| fs::remove_dir(one).expect("a directory"));
    drop(among_many);
    drop(alone);
}

/// How many descriptors all processes here have of a /proc that is mounted nowhere.
fn own_procs() -> usize {
    let mounted = fs::metadata("/proc").expect("/proc").dev();
    let is_own = |path: &Path| {
        statfs(path).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC)
            && fs::metadata(path).is_ok_and(|file| file.dev() != mounted)
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        fs::read_dir(entry.path().join("fd")).ok()
    });
    processes.flatten().flatten().filter(|entry| is_own(&entry.path())).count()
}

/// N1: also where the neighbours are on the uplink's own network.
fn a_box_on_a_laptop_reaches_the_outside() {
    let lab = Lab::new(Shape::SharedUplink);
    for protocol in ["tcp", "udp"] {
        let outcome = lab.attempt(&[protocol, &wan()]);
        assert_eq!(outcome.seen_as(), Some(IpAddr::V4(HOST)), "{protocol}: {outcome}");
    }
}

/// N1, I4: forwarding is switched on per interface.
fn the_global_forwarding_switch_stays_off() {
    let lab = Lab::new(Shape::OwnLan);
    let _running = lab.start(&[], &["sleep"]);
    assert_eq!(read_sysctl("net/ipv4/ip_forward"), "0");
    assert_eq!(read_sysctl("net/ipv4/conf/all/route_localnet"), "0");
}

/// N1: with the uplink's MTU.
fn a_box_has_the_mtu_of_the_uplink() {
    let lab = Lab::before(Shape::OwnLan, || links::set_mtu("hw", 1380));
    let running = lab.start(&[], &["sleep"]);
    assert_eq!(running.inside(|| links::mtu("eth0")), 1380);
}

/// N1: or the one asked for.
fn a_box_has_the_mtu_asked_for() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["--mtu", "1300"], &["sleep"]);
    assert_eq!(running.inside(|| links::mtu("eth0")), 1300);
}

/// N1, the other way round: `--net none` is no network.
fn a_box_without_a_network_reaches_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    let outcome = outcome(&lab.run(&["--net", "none"], &["udp", &wan()]));
    assert!(outcome.refused(), "{outcome}");
    assert_eq!(lab.wan_udp.visits(), 0);
}
