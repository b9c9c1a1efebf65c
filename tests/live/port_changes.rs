//! `netbox port add` and `port rm`: the published ports of a box that runs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use netbox::boxes::control;
use netbox::boxes::find::find;
use netbox::spec::BoxRef;
use nix::sys::signal::Signal;

use crate::lab::{
    HOST_LAN, HOST_LAN6, Lab, Shape, find_within, live_tests, nftables, peers, probe, send, wait_until, words,
};

live_tests![
    ports_come_and_go_while_others_are_in_use,
    connections_of_a_port_that_goes_are_cut_and_no_others,
    connections_of_a_members_port_are_cut_and_no_others,
    an_iperf3_flow_does_not_notice,
    udp_ports_come_and_go,
    a_box_without_ports_gets_some,
    chosen_ports_are_told,
    a_part_of_a_range_goes_and_comes_back,
    a_port_that_is_taken_changes_nothing,
    what_is_not_published_changes_nothing,
    boxes_without_a_link_have_no_ports_to_change,
    ports_change_where_somebody_removed_the_rules,
    a_relay_that_does_not_answer_keeps_no_port,
    a_change_survives_its_client,
    a_keeper_killed_amid_a_change_leaves_nothing,
    a_change_takes_less_than_five_milliseconds,
];
const SERVER: [&str; 3] = ["listen", "tcp", "[::]:80"];

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LOCAL6: Ipv6Addr = Ipv6Addr::LOCALHOST;

fn port(lab: &Lab, arguments: &[&str]) -> Output {
    lab.netbox(&[&["port"], arguments].concat()).output().expect("netbox can be started")
}

/// A change that works, and what it prints.
fn changed(lab: &Lab, arguments: &[&str]) -> String {
    let output = port(lab, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    assert!(output.stderr.is_empty(), "{arguments:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// What `netbox ps --json` says of ports.
fn listed(lab: &Lab) -> serde_json::Value {
    let output = lab.netbox(&["ps", "--json"]).output().expect("netbox can be started");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    list[0]["ports"].clone()
}

/// A connection that goes on: each line that is sent comes back.
struct Flow(BufReader<TcpStream>);

impl Flow {
    fn to(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
        let mut flow = Self(BufReader::new(stream));
        assert!(flow.line().is_ok_and(|line| !line.is_empty()), "a greeting by {to}");
        flow
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    fn goes_on(&mut self) -> bool {
        let said = self.0.get_mut().write_all(b"hello\n").and_then(|()| self.line());
        said.is_ok_and(|line| line == "hello\n")
    }
}

fn assert_free(port: u16) {
    for address in [IpAddr::V6(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()] {
        // std sets SO_REUSEADDR, which does not help against a socket that listens.
        TcpListener::bind((address, port)).unwrap_or_else(|error| panic!("TCP {address} {port}: {error}"));
        UdpSocket::bind((address, port)).unwrap_or_else(|error| panic!("UDP {address} {port}: {error}"));
    }
}

/// N2, N3: both ways to a box, and the port is anybody's as soon as it is given up.
fn ports_come_and_go_while_others_are_in_use() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    let mut flows =
        [lab.client(|| Flow::to(at(HOST_LAN, 8080))), Flow::to(at(LOCAL, 8080)), Flow::to(at(LOCAL6, 8080))];
    let before = listed(&lab);
    for round in 0..20 {
        let said = changed(&lab, &["add", "web", "9090:80", "127.0.0.1:7070:80"]);
        assert_eq!(said, "80/tcp -> 0.0.0.0:9090\n80/tcp -> 127.0.0.1:7070\n80/tcp -> [::]:9090\n");
        for (address, number) in [(IpAddr::V4(LOCAL), 7070), (LOCAL.into(), 9090), (LOCAL6.into(), 9090)] {
            assert!(probe::tcp(at(address, number)).reached(), "{round}: {address} {number}");
        }
        for address in [IpAddr::V4(HOST_LAN), HOST_LAN6.into()] {
            let outcome = lab.client(|| probe::tcp(at(address, 9090)));
            assert!(outcome.reached(), "{round}: {address}: {outcome}");
        }
        assert!(flows.iter_mut().all(Flow::goes_on), "{round}: while there is another port");
        assert_eq!(changed(&lab, &["rm", "web", "9090", "127.0.0.1:7070:80"]), "");
        assert_free(9090);
        assert_free(7070);
        assert!(lab.client(|| probe::tcp(at(HOST_LAN, 9090))).refused(), "{round}");
        assert!(flows.iter_mut().all(Flow::goes_on), "{round}: after it is gone");
        assert_eq!(listed(&lab), before);
    }
    // What was there from the start goes as well.
    changed(&lab, &["rm", "web", "8080"]);
    assert_free(8080);
    assert_eq!(listed(&lab), serde_json::json!([]));
}

/// N2: of a box in a network, which has another address there than the host knows. One without a way out gets no port.
fn connections_of_a_members_port_are_cut_and_no_others() {
    let lab = Lab::new(Shape::OwnLan);
    for options in [&["db", "--subnet", "10.9.0.0/24"][..], &["inner", "--internal"]] {
        let made = lab.netbox(&[&["network", "create"], options].concat()).output().expect("netbox");
        assert!(made.status.success(), "{}", words(&made));
    }
    let _one = lab.start(&["--name", "web", "--net", "db", "-p", "80:80"], &SERVER);
    let (member, other) = (lab.start(&["--net", "db"], &["sleep"]), lab.start(&[], &["sleep"]));
    let places = |number: u16| {
        vec![
            lab.client(|| Flow::to(at(HOST_LAN, number))),
            member.inside(|| Flow::to(at(HOST_LAN, number))),
            other.inside(|| Flow::to(at(HOST_LAN, number))),
            Flow::to(at(HOST_LAN, number)),
            Flow::to(at(LOCAL, number)),
        ]
    };
    changed(&lab, &["add", "web", "8080:80"]);
    let (mut doomed, mut others) = (places(8080), places(80));
    changed(&lab, &["rm", "web", "8080"]);
    for (place, flow) in doomed.iter_mut().enumerate() {
        assert!(!flow.goes_on(), "place {place} of the port that is gone");
    }
    for (place, flow) in others.iter_mut().enumerate() {
        assert!(flow.goes_on(), "place {place} of the other port");
    }
    let _inner = lab.start(&["--name", "inside", "--net", "inner"], &["sleep"]);
    let refused = port(&lab, &["add", "inside", "8080:80"]);
    assert!(
        refused.status.code() == Some(125) && words(&refused).contains("is internal"),
        "{}",
        words(&refused)
    );
    assert_free(8080);
}

/// N2: whether or not the box's port has the same number, and though another port of the host leads there.
fn connections_of_a_port_that_goes_are_cut_and_no_others() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "80:80", "-p", "8080:80"], &SERVER);
    let other = lab.start(&[], &["sleep"]);
    let places = |number: u16| {
        vec![
            lab.client(|| Flow::to(at(HOST_LAN, number))),
            lab.client(|| Flow::to(at(HOST_LAN6, number))),
            other.inside(|| Flow::to(at(HOST_LAN, number))),
            Flow::to(at(HOST_LAN, number)),
            Flow::to(at(LOCAL, number)),
            Flow::to(at(LOCAL6, number)),
        ]
    };
    for (gone, stays) in [(8080, 80), (80, 8080)] {
        let (mut doomed, mut others) = (places(gone), places(stays));
        changed(&lab, &["rm", "web", &gone.to_string()]);
        for (place, flow) in doomed.iter_mut().enumerate() {
            assert!(!flow.goes_on(), "{gone}: number {place} goes on");
        }
        for (place, flow) in others.iter_mut().enumerate() {
            assert!(flow.goes_on(), "{stays}: number {place} is cut");
        }
        assert_free(gone);
        changed(&lab, &["add", "web", &format!("{gone}:80")]);
    }
}

/// The bar: established connections of the others don't notice, neither translated nor relayed ones.
fn an_iperf3_flow_does_not_notice() {
    if !peers() {
        return;
    }
    let lab = Lab::new(Shape::OwnLan);
    let mut command = lab.netbox(&["run", "--name", "web", "-p", "5201:5201", "--", "iperf3", "-s"]);
    let mut one = command.stdout(Stdio::null()).spawn().expect("netbox can be started");
    let listens = || {
        let Ok(found) = find(&BoxRef::parse("web").expect("a name")) else { return false };
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp6", found.record.box_pid));
        sockets.is_ok_and(|text| text.contains(":1451 "))
    };
    wait_until("iperf3 listens", listens);
    let iperf3 = |to: Ipv4Addr| {
        let mut command = Command::new("iperf3");
        command.args(["-c", &to.to_string(), "-t", "1", "-J", "-b", "100M"]).stdout(Stdio::piped());
        command.spawn().expect("iperf3")
    };
    for translated in [false, true] {
        let mut client = if translated { lab.client(|| iperf3(HOST_LAN)) } else { iperf3(LOCAL) };
        let mut changes = 0;
        while client.try_wait().expect("our child").is_none() {
            changed(&lab, &["add", "web", "9090:80", "9091:80/udp"]);
            changed(&lab, &["rm", "web", "9090", "9091/udp"]);
            changes += 1;
        }
        let output = client.wait_with_output().expect("iperf3");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(said.get("error").is_none(), "{}", said["error"]);
        let bytes = said["end"]["sum_received"]["bytes"].as_u64();
        assert!(
            bytes.is_some_and(|bytes| bytes > 1 << 20) && changes > 2,
            "{changes} changes, {bytes:?} bytes"
        );
    }
    send(one.id(), Signal::SIGTERM);
    one.wait().expect("our child");
}

/// N2: a client that never pauses reaches the box by a port that comes, and no more by one that goes.
fn udp_ports_come_and_go() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "dns", "-p", "8080:53/udp"], &["listen", "udp", "[::]:53"]);
    let ask = |socket: &UdpSocket| {
        // An ICMP error for an earlier datagram comes first.
        let _ = socket.send(b"who am I?").or_else(|_| socket.send(b"who am I?"));
        socket.recv(&mut [0; 64]).is_ok()
    };
    let asking = |to: SocketAddr| {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).expect("to bind");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
        socket.connect(to).expect("to connect");
        socket
    };
    let stays = [lab.client(|| asking(at(HOST_LAN, 8080))), asking(at(LOCAL, 8080))];
    assert!(stays.iter().all(ask));
    let comes =
        [lab.client(|| asking(at(HOST_LAN, 9090))), asking(at(LOCAL, 9090)), asking(at(LOCAL6, 9090))];
    for round in 0..3 {
        assert!(!comes.iter().any(ask), "{round}: before");
        assert_eq!(
            changed(&lab, &["add", "dns", "9090:53/udp"]),
            "53/udp -> 0.0.0.0:9090\n53/udp -> [::]:9090\n"
        );
        for (place, socket) in comes.iter().enumerate() {
            assert!(ask(socket), "{round}: number {place}");
        }
        changed(&lab, &["rm", "dns", "9090:53/udp"]);
        assert_free(9090);
        assert!(stays.iter().all(ask), "{round}: the other port");
    }
}

/// The relay starts with what comes to the first of them.
fn a_box_without_ports_gets_some() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web"], &SERVER);
    changed(&lab, &["add", "web", "127.0.0.1:8080:80", "[::1]:8080:80"]);
    for address in [IpAddr::V4(LOCAL), LOCAL6.into()] {
        assert!(probe::tcp(at(address, 8080)).reached());
    }
    changed(&lab, &["add", "web", &format!("{HOST_LAN}:8080:80")]);
    assert!(lab.client(|| probe::tcp(at(HOST_LAN, 8080))).reached());
    // By its id, as by its name.
    let id = find(&BoxRef::parse("web").expect("a name")).expect("a box").record.id;
    changed(&lab, &["rm", &id, "127.0.0.1:8080->80/tcp", "[::1]:8080"]);
    assert!(!probe::tcp(at(LOCAL, 8080)).reached());
    assert!(lab.client(|| probe::tcp(at(HOST_LAN, 8080))).reached());
    // L1: what came later goes with the box too; the lab looks.
    assert_eq!(one.end().code(), Some(143));
    assert_free(8080);
}

/// N2: ephemeral ports, and the lowest free of a range.
fn chosen_ports_are_told() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web"], &SERVER);
    let said = changed(&lab, &["add", "web", "127.0.0.1::80"]);
    let chosen: u16 = said
        .trim()
        .strip_prefix("80/tcp -> 127.0.0.1:")
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{said:?}"));
    assert!(probe::tcp(at(LOCAL, chosen)).reached());
    let _taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).expect("a free port");
    let said = changed(&lab, &["add", "web", "0.0.0.0:9000-9005:80"]);
    assert_eq!(said, "80/tcp -> 0.0.0.0:9001\n");
    assert!(lab.client(|| probe::tcp(at(HOST_LAN, 9001))).reached());
    // They can be given up as they were told.
    changed(&lab, &["rm", "web", &format!("127.0.0.1:{chosen}"), "0.0.0.0:9001"]);
    assert_eq!(listed(&lab), serde_json::json!([]));
}

/// A range is one element of the rules: a part of it is two others.
fn a_part_of_a_range_goes_and_comes_back() {
    let lab = Lab::new(Shape::OwnLan);
    let one = lab.start(&["--name", "web", "-p", "8000-8099:8000-8099"], &["listen", "tcp", "[::]:8050"]);
    let reached = |number: u16| lab.client(|| probe::tcp(at(HOST_LAN, number)));
    let mut flow = lab.client(|| Flow::to(at(HOST_LAN, 8050)));
    changed(&lab, &["rm", "web", "8040-8049", "8060-8069:8060-8069"]);
    assert!(flow.goes_on() && reached(8050).reached());
    assert_free(8049);
    assert_eq!(listed(&lab).as_array().map(Vec::len), Some(160));
    // Nobody listens at those: the box says so itself, and the host where there is no such port.
    for number in [8045, 8051] {
        assert!(reached(number).refused(), "{number}");
    }
    changed(&lab, &["rm", "web", "8050"]);
    assert!(!flow.goes_on() && reached(8050).refused());
    changed(&lab, &["add", "web", "8040-8050:8040-8050", "8060-8069:8060-8069"]);
    assert!(reached(8050).reached() && probe::tcp(at(LOCAL, 8050)).reached());
    assert_eq!(listed(&lab).as_array().map(Vec::len), Some(200));
    // As many as there may be at once.
    changed(&lab, &["add", "web", "20000-20511:20000-20511", "20000-20511:20000-20511/udp"]);
    changed(&lab, &["rm", "web", "20000-20511", "20000-20511/udp"]);
    assert_free(20_511);
    assert_eq!(one.end().code(), Some(143));
}

fn refusal(lab: &Lab, arguments: &[&str], status: i32, expected: &str) {
    let output = port(lab, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(said.contains(expected) && output.stdout.is_empty(), "{arguments:?}: {said}");
}

/// N3: naming who has it; all or nothing.
fn a_port_that_is_taken_changes_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    let _other = lab.start(&["--name", "other", "-p", "9090:80", "-p", "5353:53/udp"], &SERVER);
    let _taken = TcpListener::bind("127.0.0.1:7070").expect("a free port");
    let before = (listed(&lab), probe_rules(&lab));
    let own = format!("(pid {})", std::process::id());
    for (spec, holder) in [
        ("9090:80", "0.0.0.0:9090 is already taken by box other"),
        ("192.0.2.1:9090:80", "192.0.2.1:9090 is already taken by box other"),
        ("5353:53/udp", "is already taken by box other"),
        ("8080:80", "is already taken by box web"),
        ("127.0.0.1:7070:80", own.as_str()),
        ("203.0.113.7:80:80", "is not an address of this host"),
    ] {
        // What could be published before it is not.
        refusal(&lab, &["add", "web", "6060:80", spec], 125, holder);
        assert_free(6060);
    }
    refusal(&lab, &["add", "web", "80:80", "80:81"], 2, "cannot publish both");
    refusal(&lab, &["add", "web", "1-2000:1-2000"], 125, "cannot publish 2000 ports at once");
    assert_eq!((listed(&lab), probe_rules(&lab)), before);
    assert!(lab.client(|| probe::tcp(at(HOST_LAN, 8080))).reached());
}

/// The elements of the host's maps and the gateway's, as text.
pub(crate) fn probe_rules(lab: &Lab) -> [String; 2] {
    if !peers() {
        return Default::default();
    }
    let list = |command: &mut Command| {
        let output = command.output().expect("nft");
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let host = list(Command::new("nft").args(["-s", "list", "ruleset"]));
    let gateway = list(&mut lab.netbox(&["gateway", "--", "nft", "-s", "list", "ruleset"]));
    // Counted connections come and go.
    [host, gateway]
        .map(|text| text.lines().filter(|line| !line.contains("ct count")).collect::<Vec<_>>().join("\n"))
}

/// All or nothing.
fn what_is_not_published_changes_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    let _one =
        lab.start(&["--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "53:53/udp"], &SERVER);
    let before = (listed(&lab), probe_rules(&lab));
    for (spec, words) in [
        ("9090", "cannot give up port 9090/tcp: it is not published by this box"),
        ("53", "cannot give up port 53/tcp"),
        ("8080:81", "it is not published, to 81 in the box,"),
        ("192.0.2.1:8081", "cannot give up 192.0.2.1:8081/tcp"),
        ("8079-8081", "cannot give up port 8079/tcp"),
        ("0.0.0.0:8080", "the port is published on every address of both families, as one"),
    ] {
        refusal(&lab, &["rm", "web", "8081", spec], 125, words);
    }
    refusal(&lab, &["rm", "nobody", "8080"], 125, "there is no box nobody");
    refusal(&lab, &["add", "nobody", "8080:80"], 125, "there is no box nobody");
    for usage in [&["add"][..], &["add", "web"], &["rm", "web"], &["rm", "web", "0"], &["add", "web", "http"]]
    {
        refusal(&lab, usage, 2, "");
    }
    assert_eq!((listed(&lab), probe_rules(&lab)), before);
}

fn boxes_without_a_link_have_no_ports_to_change() {
    let lab = Lab::new(Shape::OwnLan);
    for net in ["none", "host"] {
        let _one = lab.start(&["--name", "web", "--net", net], &["sleep"]);
        for command in ["add", "rm"] {
            let output = port(&lab, &[command, "web", "8080"]);
            assert_eq!(output.status.code(), Some(125));
            let words = words(&output);
            assert!(
                words.contains(&format!("cannot change the ports of box web: it runs with --net {net}")),
                "{words}"
            );
        }
    }
}

/// I6: what is put back is what there is now.
fn ports_change_where_somebody_removed_the_rules() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    changed(&lab, &["add", "web", "9090:80"]);
    changed(&lab, &["rm", "web", "8080"]);
    nftables::flush();
    let end = Instant::now() + Duration::from_secs(5);
    while !lab.client(|| probe::tcp(at(HOST_LAN, 9090))).reached() {
        assert!(Instant::now() < end, "the port that was added is not back");
    }
    assert!(!lab.client(|| probe::tcp(at(HOST_LAN, 8080))).reached(), "one that was given up is back");
    // At once: whether they are back by now or not.
    nftables::flush();
    changed(&lab, &["add", "web", "7070:80"]);
    let outcome = lab.client(|| probe::tcp(at(HOST_LAN, 7070)));
    assert!(outcome.reached(), "{outcome}");
    nftables::flush();
    changed(&lab, &["rm", "web", "7070"]);
    assert!(!lab.client(|| probe::tcp(at(HOST_LAN, 7070))).reached());
    let end = Instant::now() + Duration::from_secs(5);
    while !lab.client(|| probe::tcp(at(HOST_LAN, 9090))).reached() {
        assert!(Instant::now() < end, "the other port is not back");
    }
}

/// N3: the keeper does not wait for it for long.
fn a_relay_that_does_not_answer_keeps_no_port() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80", "-p", "8081:80"], &SERVER);
    assert!(probe::tcp(at(LOCAL, 8080)).reached());
    let keeper = find(&BoxRef::parse("web").expect("a name")).expect("a box").record.keeper_pid;
    let relay = || -> u32 {
        let children =
            fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("the keeper");
        let is_relay = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "netbox-relay")
        };
        children.split_whitespace().find(is_relay).expect("a relay").parse().expect("a number")
    };
    send(relay(), Signal::SIGSTOP);
    let begin = Instant::now();
    changed(&lab, &["rm", "web", "8080"]);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_free(8080);
    // Another one serves the rest, and what comes.
    let end = Instant::now() + Duration::from_secs(2);
    while !probe::tcp(at(LOCAL, 8081)).reached() {
        assert!(Instant::now() < end, "no relay");
    }
    send(relay(), Signal::SIGKILL);
    changed(&lab, &["add", "web", "8080:80"]);
    while !probe::tcp(at(LOCAL, 8080)).reached() {
        assert!(Instant::now() < end, "no relay");
    }
}

/// L2: whenever the client is killed, there is the old set or the new one.
fn a_change_survives_its_client() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    let old = listed(&lab);
    let (mut seen_old, mut seen_new) = (0, 0);
    for round in 0..60u64 {
        let mut client =
            lab.netbox(&["port", "add", "web", "9090:80"]).stdout(Stdio::null()).spawn().expect("netbox");
        let until = Instant::now() + Duration::from_micros(200 * round);
        while Instant::now() < until {}
        // It may have ended.
        let _ = client.kill();
        client.wait().expect("our child");
        // Whoever asks after it is answered after it.
        let output = port(&lab, &["rm", "web", "9090"]);
        match output.status.code() {
            Some(0) => seen_new += 1,
            Some(125) => seen_old += 1,
            _ => panic!("{}", words(&output)),
        }
        assert_free(9090);
        assert_eq!(listed(&lab), old, "round {round}");
    }
    assert!(seen_old > 0 && seen_new > 0, "{seen_old} killed before, {seen_new} after");
}

/// L2: the box dies, and with it go the ports that it had and those that it was to have, ranges too.
fn a_keeper_killed_amid_a_change_leaves_nothing() {
    let lab = Lab::new(Shape::OwnLan);
    // Keeps the gateway, in which something could be left.
    let _other = lab.start(&["-p", "9090:80"], &SERVER);
    let before = probe_rules(&lab);
    let web = BoxRef::parse("web").expect("a name");
    for round in 0..24u64 {
        let mut one =
            lab.start(&["--name", "web", "-p", "8000-8039:8000-8039", "-p", "7000:80/udp"], &["sleep"]);
        let found = find(&web).expect("a living box");
        drop(control::connect(&found).expect("its keeper"));
        // Each makes other elements of the range that there is.
        let arguments = if round % 2 == 0 {
            ["port", "add", "web", "8040-8079:8040-8079"]
        } else {
            ["port", "rm", "web", "8004-8007"]
        };
        let mut client = lab.netbox(&arguments);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("netbox");
        let until = Instant::now() + Duration::from_micros(400 * (round / 2));
        while Instant::now() < until {}
        send(found.record.keeper_pid.cast_unsigned(), Signal::SIGKILL);
        assert_eq!(one.wait().code(), Some(125));
        client.wait().expect("our child");
        let what = || format!("round {round}:\n{:#?}\nbefore:\n{before:#?}", probe_rules(&lab));
        find_within(Duration::from_secs(5), what, || (probe_rules(&lab) == before).then_some(()));
        for port in [7000, 8000, 8005, 8039, 8040, 8079] {
            assert_free(port);
        }
    }
}

/// The bar.
fn a_change_takes_less_than_five_milliseconds() {
    let lab = Lab::new(Shape::OwnLan);
    let _one = lab.start(&["--name", "web", "-p", "8080:80"], &SERVER);
    assert!(probe::tcp(at(LOCAL, 8080)).reached(), "the relay runs");
    let median = |arguments: &[&[&str]; 2]| {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..25 {
            for (arguments, times) in arguments.iter().zip(&mut times) {
                let begin = Instant::now();
                changed(&lab, arguments);
                times.push(begin.elapsed());
            }
        }
        times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        })
    };
    let [add, rm] = median(&[&["add", "web", "9090:80"], &["rm", "web", "9090"]]);
    println!("port add {add:?}, port rm {rm:?}, the program's start included");
    // A debug build on a machine that does other things too: what would wait for the kernel takes longer.
    assert!(add < Duration::from_millis(15) && rm < Duration::from_millis(15), "add {add:?}, rm {rm:?}");
}
