//! A box in several networks, from its start on or later: `--net` more than once, `netbox network connect` and `disconnect`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use netbox::boxes::control;
use netbox::boxes::find::find;
use netbox::spec::BoxRef;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{
    HOST, HOST_LAN, Lab, RunningBox, Shape, find_within, links, live_tests, probe, read_sysctl, send,
    wait_until, words,
};
use crate::names;
use crate::networks::{answers, ask, inspect, network, ps, refused, wan};
use crate::port_changes::probe_rules;

live_tests![
    a_box_in_two_networks_reaches_both_and_goes_out_by_the_first,
    a_network_stands_beside_nat,
    a_box_in_both_is_no_way_between_networks,
    connecting_and_disconnecting_disturbs_no_connection,
    connecting_and_disconnecting_disturbs_no_other_network,
    a_bridge_that_came_later_is_joined_as_it_is,
    names_come_and_go_with_the_network,
    what_cannot_be_connected_is_refused,
    a_box_whose_command_has_left_its_network_is_not_connected,
    what_nobody_waits_for_any_more_is_not_changed,
    nothing_is_left_of_a_box_killed_in_two_networks,
    a_keeper_killed_amid_a_change_of_networks_leaves_nothing,
];

const SERVER: [&str; 3] = ["listen", "tcp", "[::]:80"];

/// What a box may have in the second network.
const SIX: Ipv6Addr = Ipv6Addr::new(0xfd09, 1, 0, 0, 0, 0, 0, 7);

fn two_networks(lab: &Lab) {
    network(lab, &["create", "front", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64"]);
    network(lab, &["create", "back", "--ipv6", "--subnet", "10.9.1.0/24", "--subnet", "fd09:1::/64"]);
}

fn port(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 80)
}

/// The address of a box in one of its networks.
fn address_in(lab: &Lab, network: &str, name: &str) -> Ipv4Addr {
    let described = inspect(lab, network);
    let boxes = described["boxes"].as_array().expect("boxes");
    let own = boxes.iter().find(|one| one["name"] == name).expect("it is in it");
    own["ipv4"].as_str().expect("an address").parse().expect("an address")
}

fn described(lab: &Lab, name: &str) -> Value {
    let output = lab.netbox(&["inspect", name]).output().expect("netbox can be started");
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    all[0].clone()
}

/// N1, N2: by its own addresses in each; published ports from everywhere, also where it knows a shorter way back to who asks.
fn a_box_in_two_networks_reaches_both_and_goes_out_by_the_first() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let nets = [
        "--net",
        "front",
        "--net",
        "back:ip=10.9.1.7,ip6=fd09:1::7,ifname=lan0",
        "-p",
        "8080:80",
        "--name",
        "both",
    ];
    let both = lab.start(&nets, &SERVER);
    let [in_front, in_back] = [["--net", "front"], ["--net", "back"]].map(|net| lab.start(&net, &SERVER));
    for (asker, address) in [(&in_front, both.address), (&in_back, Ipv4Addr::new(10, 9, 1, 7))] {
        assert!(asker.inside(|| probe::tcp(port(address))).reached());
        let back = both.inside(|| probe::tcp(port(asker.address)));
        assert!(back.reached(), "{back}");
        if asker.address == in_back.address {
            let six = asker.inside(|| probe::tcp(port(SIX)));
            assert!(six.reached(), "{six}");
        }
        let published = asker.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))));
        assert!(published.reached(), "{}: {published}", asker.address);
    }
    let published = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080))));
    assert_eq!(published.seen_as(), Some(lab.client_address().into()), "{published}");
    let itself = both.inside(|| probe::tcp(SocketAddr::from((HOST, 8080))));
    assert!(itself.reached(), "{itself}");
    assert_eq!(both.inside(|| probe::tcp(wan())).seen_as(), Some(HOST.into()));
    let names = both.inside(links::names);
    assert_eq!(names, ["lo", "eth0", "lan0"]);
    assert_eq!(ps(&lab, &both)["net"], "front,back");
    let networks = described(&lab, "both")["networks"].clone();
    let of = |key: &str| {
        networks.as_array().expect("networks").iter().map(|one| one[key].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("name"), ["front", "back"]);
    assert_eq!(of("interface"), ["eth0", "lan0"]);
    assert_eq!(of("way_out"), [true, false]);
}

/// N1, N2: its way out is as without the network.
fn a_network_stands_beside_nat() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "back", "--subnet", "10.9.1.0/24", "--internal"]);
    let both = lab.start(&["--net", "nat", "--net", "back:ip=10.9.1.7", "-p", "8080:80"], &SERVER);
    let other = lab.start(&["--net", "back"], &["sleep"]);
    assert!(other.inside(|| probe::tcp(port([10, 9, 1, 7]))).reached());
    assert!(!other.inside(|| probe::tcp(port(both.address))).reached(), "its address of the pool");
    assert_eq!(both.inside(|| probe::tcp(wan())).seen_as(), Some(HOST.into()));
    assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached());
    assert_eq!(ps(&lab, &both)["net"], "nat,back");
}

/// I2: neither as it is, where the host is a router, nor when the box itself becomes one: what it passes on is not its own.
fn a_box_in_both_is_no_way_between_networks() {
    let lab = Lab::before(Shape::OwnLan, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("to become a router");
    });
    two_networks(&lab);
    let both = lab.start(&["--net", "front", "--net", "back:ip=10.9.1.7"], &["sleep"]);
    let asker = lab.start(&["--net", "front"], &["sleep"]);
    let server = lab.start(&["--net", "back"], &SERVER);
    asker.inside(|| links::route([10, 9, 1, 0].into(), 24, both.address.into()));
    assert_eq!(both.inside(|| read_sysctl("net/ipv4/ip_forward")), "0");
    assert!(!asker.inside(|| probe::tcp(port(server.address))).reached());
    both.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("to become a router"));
    assert!(!asker.inside(|| probe::tcp(port(server.address))).reached());
    assert!(both.inside(|| probe::tcp(port(server.address))).reached());
}

/// A connection that was opened before, and still carries bytes.
fn is_open(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
}

/// What the gateway has of links, neighbours and rules.
fn gateway(lab: &Lab) -> Vec<String> {
    let of = |command: &[&str]| {
        let output = lab.netbox(&[&["gateway", "--"], command].concat()).output().expect("netbox");
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let [host, gateway] = probe_rules(lab);
    vec![host, gateway, of(&["ip", "-o", "-br", "link"]), of(&["ip", "neigh"]), of(&["bridge", "fdb"])]
}

/// What counts connections goes with the last of them.
fn assert_gateway_is(lab: &Lab, before: &[String]) {
    let changed = || -> Option<(String, String)> {
        let now = gateway(lab);
        now.into_iter().zip(before.iter().cloned()).find(|(now, before)| now != before)
    };
    let what = || changed().map(|(now, before)| format!("{now}\nbefore:\n{before}")).unwrap_or_default();
    find_within(Duration::from_secs(5), what, || changed().is_none().then_some(()));
}

/// A box joins a network and leaves it, and again; nothing is left of it, nor was anything else touched.
fn joins_and_leaves(net: &str) {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let other = lab.start(&["--net", "back"], &SERVER);
    let one = lab.start(&["--net", net, "--name", "one"], &SERVER);
    let mut stream = one.inside(|| TcpStream::connect(wan()).expect("a way out"));
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    assert!(is_open(&mut stream));
    let before = gateway(&lab);
    for round in 0..3 {
        assert!(!one.inside(|| probe::tcp(port(other.address))).reached(), "round {round}");
        network(
            &lab,
            &["connect", "--ip", "10.9.1.7", "--ip6", "fd09:1::7", "--ifname", "lan0", "back", "one"],
        );
        assert!(other.inside(|| probe::tcp(port([10, 9, 1, 7]))).reached(), "round {round}");
        assert!(other.inside(|| probe::tcp(port(SIX))).reached(), "round {round}");
        assert!(one.inside(|| probe::tcp(port(other.address))).reached(), "round {round}");
        assert!(is_open(&mut stream), "round {round}");
        assert_eq!(ps(&lab, &one)["net"], format!("{net},back"));
        assert_eq!(address_in(&lab, "back", "one"), Ipv4Addr::new(10, 9, 1, 7));
        assert_eq!(one.inside(links::names), ["lo", "eth0", "lan0"]);
        network(&lab, &["disconnect", "back", "one"]);
        assert!(is_open(&mut stream), "round {round}");
        assert_eq!(one.inside(links::names), ["lo", "eth0"]);
        assert_eq!(ps(&lab, &one)["net"], net);
    }
    assert_gateway_is(&lab, &before);
    // Its seat is free, and so is the network when the other box has ended.
    other.end();
    network(&lab, &["rm", "back"]);
}

/// I2, L3.
fn connecting_and_disconnecting_disturbs_no_connection() {
    joins_and_leaves("nat");
}

/// I2, L3.
fn connecting_and_disconnecting_disturbs_no_other_network() {
    joins_and_leaves("front");
}

/// A keeper knows the gateway as it was when its box started.
fn a_bridge_that_came_later_is_joined_as_it_is() {
    let lab = Lab::new(Shape::OwnLan);
    network(&lab, &["create", "back", "--subnet", "10.9.1.0/24"]);
    let one = lab.start(&["--name", "one"], &["sleep"]);
    let (asker, server) = (lab.start(&["--net", "back"], &["sleep"]), lab.start(&["--net", "back"], &SERVER));
    let mut streams = [wan(), port(server.address)]
        .map(|to| asker.inside(|| TcpStream::connect(to).expect("a connection")));
    network(&lab, &["connect", "back", "one"]);
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        assert!(is_open(stream));
    }
    assert!(one.inside(|| probe::tcp(port(server.address))).reached());
    assert!(asker.inside(|| probe::tcp(wan())).reached());
}

/// N4: of each network from the moment on that a box is in it, by its name and what it is called besides there; where two boxes have a
/// name, the one in the first network is meant.
fn names_come_and_go_with_the_network() {
    let lab = names::lab("nameserver 198.51.100.99\nsearch example.org\noptions timeout:1 attempts:1\n");
    two_networks(&lab);
    let _store = lab.start(&["--name", "store", "--net", "front:ip=10.9.0.7,alias=sql"], &["sleep"]);
    let _other = lab.start(&["--name", "other", "--net", "back:ip=10.9.1.8,alias=sql,alias=x"], &["sleep"]);
    let in_front = lab.start(&["--name", "asker", "--net", "front"], &["sleep"]);
    let plain = lab.start(&["--name", "plain"], &["sleep"]);
    let finds = |running: &RunningBox, name: &str, address: [u8; 4]| {
        let said = ask(running, &[name], 1);
        answers(&said) == (0, 1) && said.ends_with(&address)
    };
    let knows = |running: &RunningBox, name: &str| answers(&ask(running, &[name], 1)) == (0, 1);
    let reverse = ["8", "1", "9", "10", "in-addr", "arpa"];
    assert!(finds(&in_front, "store", [10, 9, 0, 7]) && finds(&in_front, "sql", [10, 9, 0, 7]));
    assert!(!knows(&in_front, "other") && !knows(&in_front, "x") && !knows(&plain, "other"));
    for running in ["asker", "plain"] {
        network(
            &lab,
            &["connect", "--alias", "also", "--alias", "Twice", "--ip", "10.9.1.9", "back", running],
        );
        let running = if running == "asker" { &in_front } else { &plain };
        assert!(finds(running, "other", [10, 9, 1, 8]) && finds(running, "x", [10, 9, 1, 8]));
        // The resolver of a box in the network was asked before.
        assert!(finds(&_other, "also", [10, 9, 1, 9]) && finds(&_other, "twice", [10, 9, 1, 9]));
        let said = ask(running, &reverse, 12);
        assert!(said.windows(6).any(|part| part == b"\x05other"), "{said:?}");
        if std::ptr::eq(running, &in_front) {
            assert!(finds(running, "sql", [10, 9, 0, 7]), "the first network's");
            let of_back = ask(running, &["sql", "back"], 1);
            assert!(of_back.ends_with(&[10, 9, 1, 8]), "{of_back:?}");
        }
        let name = if std::ptr::eq(running, &in_front) { "asker" } else { "plain" };
        network(&lab, &["disconnect", "back", name]);
        assert!(!knows(running, "other") && !knows(&_other, "also"), "{name}");
        assert_ne!(answers(&ask(running, &reverse, 12)), (0, 1));
    }
    assert!(finds(&in_front, "store", [10, 9, 0, 7]));
}

/// All or nothing.
fn what_cannot_be_connected_is_refused() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let one = lab.start(&["--name", "one", "--net", "front"], &["sleep"]);
    let _other = lab.start(&["--name", "other", "--net", "back:ip=10.9.1.8,alias=store"], &["sleep"]);
    let _host = lab.start(&["--name", "bare", "--net", "none"], &["sleep"]);
    let before = (gateway(&lab), inspect(&lab, "back"));
    for (arguments, status, expected) in [
        (&["connect", "nothing", "one"][..], 125, "there is no network nothing"),
        (&["connect", "back", "nobody"], 125, "no box nobody"),
        (&["connect", "front", "one"], 125, "it is in it already"),
        (&["connect", "back", "bare"], 125, "--net none"),
        (&["connect", "nat", "one"], 2, "nat"),
        (&["connect", "back"], 2, "needs a network and a box"),
        (&["connect", "--ip", "10.9.1.8", "back", "one"], 125, "box other"),
        (&["connect", "--ip", "10.9.0.8", "back", "one"], 125, "10.9.1.0/24"),
        (&["connect", "--alias", "STORE", "back", "one"], 125, "large or small letters"),
        (&["connect", "--ifname", "eth0", "back", "one"], 125, "an interface eth0 already"),
        (&["connect", "--ifname", "lo", "back", "one"], 2, "loopback"),
        (&["disconnect", "back", "one"], 125, "it is not in it, but in front"),
        (&["disconnect", "front", "one"], 125, "its way out leads through that network"),
    ] {
        refused(&lab, &[&["network"], arguments].concat(), status, &[expected]);
    }
    // Where the kernel is the first to say no, what was done by then is undone.
    links_in(&one, |pid| links::dummy_at_process("lan0", pid).expect("a link"));
    refused(&lab, &["network", "connect", "--ifname", "lan0", "back", "one"], 125, &["cannot"]);
    assert_gateway_is(&lab, &before.0);
    assert_eq!(inspect(&lab, "back"), before.1);
    refused(
        &lab,
        &["run", "--net", "front", "--net", "none", "--", "true"],
        2,
        &["--net none", "--net front"],
    );
    refused(
        &lab,
        &["run", "--net", "front", "--net", "back:ip=10.9.1.8", "--", "true"],
        125,
        &["box other", "10.9.1.8"],
    );
    assert_eq!(inspect(&lab, "back"), before.1);
}

/// I2: the link would be in a network in which the command may do what no box may.
fn a_box_whose_command_has_left_its_network_is_not_connected() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let _other = lab.start(&["--net", "back"], &["sleep"]);
    let script = "exec unshare -Un sh -c 'echo ready $$ -; exec sleep 1000'";
    let options = ["run", "--name", "one", "--net", "front", "--", "sh", "-c", script];
    let one = lab.start_command(&mut lab.netbox(&options));
    let names = || -> Vec<String> {
        let links = gateway(&lab).swap_remove(0);
        links.lines().filter_map(|line| line.split([' ', '@']).next().map(str::to_owned)).collect()
    };
    let before = (names(), inspect(&lab, "back"));
    let cause = "its command is not in the one that it was started in";
    refused(&lab, &["network", "connect", "back", "one"], 125, &["network namespace", cause]);
    // Nobody is left in the network namespace: its link goes when the kernel comes to it.
    let now = names();
    assert!(now.iter().all(|name| before.0.contains(name)), "{now:?}, before {:?}", before.0);
    assert_eq!(inspect(&lab, "back"), before.1);
    one.end();
}

/// A command that was interrupted, or lost patience, while the keeper was stopped leaves everything as it was.
fn what_nobody_waits_for_any_more_is_not_changed() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let _one = lab.start(&["--name", "one", "--net", "front"], &["sleep"]);
    let found = find(&BoxRef::parse("one").expect("a name")).expect("a living box");
    let keeper = found.record.keeper_pid.cast_unsigned();
    let given_up = control::connect(&found).expect("its keeper");
    send(keeper, Signal::SIGSTOP);
    given_up.say(control::Request::Connect("back".to_owned()), &[]).expect("to be heard later");
    drop(given_up);
    send(keeper, Signal::SIGCONT);
    // Heard after it.
    refused(&lab, &["network", "disconnect", "back", "one"], 125, &["it is not in it"]);
}

fn links_in(running: &RunningBox, work: impl FnOnce(u32)) {
    work(running.pid);
}

/// L2: after the next command; with a seat in each.
fn nothing_is_left_of_a_box_killed_in_two_networks() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    let _other = lab.start(&["--net", "back"], &["sleep"]);
    let before = gateway(&lab);
    let nets = ["--name", "both", "--net", "front:ip=10.9.0.7", "--net", "back:ip=10.9.1.7,alias=store"];
    for _ in 0..2 {
        let mut both = lab.start(&nets, &["sleep"]);
        let keeper = find(&BoxRef::parse("both").expect("a name")).expect("a box").record.keeper_pid;
        send(keeper.cast_unsigned(), Signal::SIGKILL);
        send(both.launcher(), Signal::SIGKILL);
        both.wait();
        // Its addresses and names are free for the next.
        lab.start(&nets, &["sleep"]).end();
    }
    wait_until("all is as it was", || {
        let mut now = gateway(&lab);
        // The bridge of the network that nobody else is in stays.
        now[2] =
            now[2].lines().filter(|line| before[2].contains(*line)).map(|line| format!("{line}\n")).collect();
        now[1..4] == before[1..4]
    });
}

/// L2: the box dies, and with it goes its place in the network that it was just joining or leaving.
fn a_keeper_killed_amid_a_change_of_networks_leaves_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    two_networks(&lab);
    // Keeps the gateway, in which something could be left.
    let _other = lab.start(&["--net", "back"], &["sleep"]);
    let before = gateway(&lab);
    let (boxes, one) = (inspect(&lab, "back")["boxes"].clone(), BoxRef::parse("one").expect("a name"));
    for round in 0..40u64 {
        let mut running = lab.start(&["--name", "one", "-p", "7000:80"], &["sleep"]);
        let found = find(&one).expect("a living box");
        drop(control::connect(&found).expect("its keeper"));
        let join = [
            "network",
            "connect",
            "--ip",
            "10.9.1.7",
            "--ip6",
            "fd09:1::7",
            "--alias",
            "store",
            "back",
            "one",
        ];
        let leaves = round % 2 == 1;
        if leaves {
            assert!(lab.netbox(&join).status().expect("netbox").success());
        }
        let arguments: &[&str] = if leaves { &["network", "disconnect", "back", "one"] } else { &join };
        let mut client = lab.netbox(arguments);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("netbox");
        let until = Instant::now() + Duration::from_micros(1000 * (round / 2));
        while Instant::now() < until {}
        send(found.record.keeper_pid.cast_unsigned(), Signal::SIGKILL);
        assert_eq!(running.wait().code(), Some(125));
        client.wait().expect("our child");
        assert_gateway_is(&lab, &before);
        assert_eq!(inspect(&lab, "back")["boxes"], boxes, "round {round}");
        drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).expect("its port is free"));
    }
    // Its address and its name are free.
    let next = lab.start(&["--net", "back:ip=10.9.1.7,alias=store"], &["sleep"]);
    assert_eq!(next.address, Ipv4Addr::new(10, 9, 1, 7));
}
