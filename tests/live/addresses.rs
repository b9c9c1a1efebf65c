//! What of a box's addresses was asked for.

use std::net::SocketAddr;

use crate::lab::{ECHO, Lab, RunningBox, Shape, WAN, WAN6, links, live_tests, probe, words};

live_tests![a_box_has_the_hardware_address_asked_for, a_box_without_ipv6_has_none];

fn assert_egress(running: &RunningBox) {
    let outcome = running.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO))));
    assert!(outcome.reached(), "{outcome}");
}

fn assert_egress6(running: &RunningBox) {
    let outcome = running.inside(|| probe::tcp(SocketAddr::from((WAN6, ECHO))));
    assert!(outcome.reached(), "{outcome}");
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
