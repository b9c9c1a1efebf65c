//! Boxes that share the network of another one: `--net box:…`.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{
    ECHO, Lab, NETBOX, RunningBox, Shape, WAN, live_tests, outcome, probe, running, send, wait_until, words,
};

live_tests![
    a_box_that_joins_another_has_its_addresses_and_ports,
    a_box_that_joins_another_has_files_and_rights_of_its_own,
    a_box_goes_on_without_a_link_when_the_one_it_joined_ends,
    a_box_goes_on_when_the_one_it_joined_is_killed_with_all_of_netbox,
    a_box_that_is_not_there_or_has_the_hosts_network_is_not_joined,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

/// The links of a box.
fn links(in_box: &RunningBox) -> Vec<String> {
    in_box.inside(crate::lab::links::names)
}

/// I2, N2: what is published for the one is served by the other.
fn a_box_that_joins_another_has_its_addresses_and_ports() {
    let lab = lab();
    let first = lab.start(&["--name", "one", "-p", "8080:80"], &["listen", "tcp", "0.0.0.0:81"]);
    for word in ["box:one", "container:one"] {
        let joined = lab.start(&["--net", word], &["listen", "tcp", "0.0.0.0:80"]);
        assert_eq!((joined.address, joined.address6), (first.address, first.address6));
        let published = SocketAddr::from((lab.host_for_client(), 8080));
        assert!(lab.client(|| probe::tcp(published)).reached());
        let further = lab.run(&["--net", word], &["tcp", "127.0.0.1:81"]);
        assert!(outcome(&further).reached(), "{}", words(&further));
        let outside = lab.run(&["--net", word], &["tcp", &format!("{WAN}:{ECHO}")]);
        assert!(outcome(&outside).reached(), "{}", words(&outside));
        joined.end();
    }
    // Its neighbour's end took nothing from it.
    assert!(first.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO)))).reached());
    first.end();
}

/// I5, N4: mounts, name and record of its own; names are found as the other finds them.
fn a_box_that_joins_another_has_files_and_rights_of_its_own() {
    let lab = lab();
    let first = lab.start(&["--name", "one", "--cap-drop", "ALL"], &["sleep"]);
    let joined = lab.start(&["--name", "two", "--net", "box:one"], &["sleep"]);
    let ns = |in_box: &RunningBox, kind: &str| {
        fs::read_link(format!("/proc/{}/ns/{kind}", in_box.pid)).expect("one")
    };
    assert_eq!(ns(&first, "net"), ns(&joined, "net"));
    assert_ne!(ns(&first, "mnt"), ns(&joined, "mnt"));
    let of = |net: &[&str], words: &[&str]| String::from_utf8_lossy(&lab.run(net, words).stdout).into_owned();
    let capabilities =
        |status: String| status.lines().find(|line| line.starts_with("CapEff")).map(str::to_owned);
    assert_eq!(capabilities(of(&["--net", "box:one"], &["status"])), capabilities(of(&[], &["status"])));
    let resolv_conf = |name: &str| {
        let output = lab.netbox(&["exec", name, "--", "cat", "/etc/resolv.conf"]).output().expect("netbox");
        assert!(output.status.success(), "{}", words(&output));
        output.stdout
    };
    assert_eq!(resolv_conf("one"), resolv_conf("two"));
    let environment = of(&["--net", "box:one"], &["environment"]);
    let address = format!("NETBOX_IPV4={}", first.address);
    assert!(environment.split('\0').any(|entry| entry == address), "{environment:?}");
    assert!(!environment.contains("NETBOX_NAME=one"), "{environment:?}");
    // The link is the other's: so is its end.
    joined.end();
    assert_eq!(links(&first), ["lo", "eth0"]);
    first.end();
}

/// L1: what the other had can be used again at once, by boxes that the joined one does not hear of.
fn a_box_goes_on_without_a_link_when_the_one_it_joined_ends() {
    let lab = lab();
    for beside in [false, true] {
        let other = beside.then(|| lab.start(&[], &["sleep"]));
        let options = ["--name", "one", "-p", "8080:80"];
        let first = lab.start(&options, &["sleep"]);
        let address = first.address.to_string();
        let joined = lab.start(&["--net", "box:one"], &["listen", "tcp", "0.0.0.0:80"]);
        let start = Instant::now();
        assert_eq!(first.end().code(), Some(143));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        wait_until("the link is gone", || links(&joined) == ["lo"]);
        assert!(!joined.inside(|| probe::tcp(SocketAddr::from((WAN, ECHO)))).reached());
        let again =
            lab.start(&[&options[..], &["--ip", &address]].concat(), &["listen", "tcp", "0.0.0.0:80"]);
        assert_eq!(again.address.to_string(), address);
        let published = SocketAddr::from((lab.host_for_client(), 8080));
        assert!(lab.client(|| probe::tcp(published)).reached());
        assert_eq!(links(&joined), ["lo"]);
        again.end();
        // It lives, and ends as it would have.
        assert!(joined.inside(|| probe::tcp("127.0.0.1:80".parse().expect("an address"))).reached());
        assert_eq!(joined.end().code(), Some(143));
        other.map(RunningBox::end);
    }
}

/// L2: it is found by its own mounts, and was not the one that was killed.
fn a_box_goes_on_when_the_one_it_joined_is_killed_with_all_of_netbox() {
    let lab = lab();
    let mut first = lab.start(&["--name", "one"], &["sleep"]);
    let all = running(NETBOX);
    let joined = lab.start(&["--net", "box:one"], &["sleep"]);
    all.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    all.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    first.wait();
    assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
    wait_until("the link is gone", || links(&joined) == ["lo"]);
    assert_eq!(joined.end().code(), Some(143));
}

/// R2.
fn a_box_that_is_not_there_or_has_the_hosts_network_is_not_joined() {
    let lab = lab();
    let refused = |options: &[&str], because: &str| {
        let output = lab.run(options, &["exit", "0"]);
        assert_eq!(output.status.code(), Some(125), "{}", words(&output));
        assert!(words(&output).contains(because), "{}", words(&output));
    };
    refused(&["--net", "box:one"], "there is no box one");
    let on_host = lab.start(&["--name", "one", "--net", "host"], &["sleep"]);
    refused(&["--net", "box:one"], "it is the host's");
    on_host.end();
    let first = lab.start(&["--name", "one", "--net", "none"], &["sleep"]);
    refused(&["--net", "box:one", "--cap-add", "NET_ADMIN"], "cannot give the box these capabilities");
    first.end();
    let wrong = lab.run(&["--net", "box:one", "--ip", "10.0.0.16"], &["exit", "0"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", words(&wrong));
}
