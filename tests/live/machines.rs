//! Networks over several machines: whose boxes reach whom without translation, and what the hosts have because of it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::lab::{
    ECHO, HOST, HOST6, Lab, NETBOX, Outcome, RunningBox, SECOND, SecondHost, Shape, Snapshot, WAN, WAN6,
    links, live_tests, nftables, peers, probe, send, sysctl, try_within, wait_within, words,
};

live_tests![
    boxes_of_two_machines_reach_each_other_untranslated,
    nobody_else_reaches_a_network_of_two_machines,
    what_a_network_of_two_machines_needs_is_put_back,
    a_route_of_the_hosts_own_is_left_alone,
    networks_share_a_route_to_another_machine,
    a_dry_run_shows_what_the_host_gets,
    the_document_works_with_static_routes,
    the_document_works_with_ospf,
    the_document_works_with_bgp,
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
    let send_from = |source: &str| {
        let socket = UdpSocket::bind((source, 0)).expect("its address");
        socket.send_to(b"x", at(server.address, 80)).expect("sent");
    };
    let of_the_network = "10.1.10.77";
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
        lab.client(|| send_from(of_the_network));
    };
    attempts("with all rules");
    assert!(server.inside(|| probe::tcp(at(tcp2.address, 80))).reached());
    // Somebody who has the host forward everything takes it over.
    sysctl("net/ipv4/ip_forward", "1");
    attempts("on a host that forwards");
    assert_eq!(received(&server), 0, "a datagram with an address of the network's own came in");
    // Nobody is there to put back what is flushed: the gateway's fence alone.
    let keepers = [&server, &stranger, &plain].map(keeper);
    keepers.iter().for_each(|keeper| send(*keeper, Signal::SIGSTOP));
    nftables::flush();
    let own = lab.client_address().to_string();
    lab.client(|| {
        [&own, of_the_network].into_iter().for_each(send_from);
        // One that is let in, to show that the others had the time.
        links::address("c0", Ipv4Addr::new(10, 1, 99, 9).into(), 32);
        send_from("10.1.99.9");
    });
    eventually("a datagram of another machine's network arrives", || received(&server) > 0);
    assert_eq!(received(&server), 1, "with all rules of the host flushed");
    keepers.iter().for_each(|keeper| send(*keeper, Signal::SIGCONT));
    sysctl("net/ipv4/ip_forward", "0");
    drop((server, stranger, plain));
    second.run(move || drop((tcp2, plain2)));
    end(lab, &second);
}

/// The keeper of a box: its launcher's child.
fn keeper(running: &RunningBox) -> u32 {
    let launcher = running.launcher();
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
    children.expect("the launcher lives").trim().parse().expect("one child")
}

/// How many UDP datagrams have come to a box, for which nobody listens.
fn received(running: &RunningBox) -> u64 {
    let text = running.inside(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("counters"));
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut all = names.split(' ').zip(values.split(' '));
    all.find(|(name, _)| *name == "NoPorts").and_then(|(_, value)| value.parse().ok()).expect("a number")
}

fn eventually(what: &str, done: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(2), what, done);
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
    let limit = Duration::from_secs(2);
    let is_meant = |line: &&str| ![" file: ", " process: "].iter().any(|what| line.contains(what));
    let mut difference = String::new();
    let clean = try_within(limit, || {
        let all = before.difference(&Snapshot::take());
        difference = all.lines().filter(is_meant).collect::<Vec<_>>().join("\n");
        difference.is_empty().then_some(())
    });
    assert!(clean.is_some(), "the host is not as it was {limit:?} later:\n{difference}");
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

fn a_dry_run_shows_what_the_host_gets() {
    let lab = Lab::new(Shape::OwnLan);
    create(
        &lab,
        "front",
        &["--subnet", "10.1.10.0/24", "--route", "10.1.20.0/24=192.0.2.9", OUTSIDE[0], OUTSIDE[1]],
    );
    let output = lab.netbox(&["run", "--dry-run", "--net", "front", "--", "true"]).output().expect("started");
    assert!(output.status.success(), "{}", words(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "ip rule add priority 91 from all to 10.1.10.0/24 lookup 254 protocol 110",
        "ip route add unreachable 10.1.10.0/24 metric 4294967295 proto 110",
        "ip route add 10.1.20.0/24 via 192.0.2.9 proto 110",
        "nft 'add element inet netbox routed4 { 10.1.10.0/24 . 10.1.0.0/16 }'",
        "ip netns exec GATEWAY nft 'add element inet netbox routed4 { 10.1.10.0/24 . 10.1.0.0/16 }'",
    ] {
        assert!(said.lines().any(|step| step == line), "{line}: {said}");
    }
    let way_in = said.lines().find(|line| line.starts_with("ip route add 10.1.10.0/24 via 10."));
    assert!(way_in.is_some_and(|line| line.contains(" dev nb") && line.contains(" onlink")), "{said}");
    // In the rules themselves as well.
    assert_eq!(said.matches("elements = { 10.1.10.0/24 . 10.1.0.0/16 }").count(), 2, "{said}");
}

/// The blocks of docs/several-machines.md whose first line begins so: what is behind that in the line, and the other lines.
fn blocks(beginning: &str) -> Vec<(&'static str, &'static str)> {
    let document = include_str!("../../docs/several-machines.md");
    let blocks = document.split("```\n").skip(1).step_by(2);
    let found = blocks.filter_map(|block| block.strip_prefix(beginning)?.split_once('\n'));
    found.map(|(to, lines)| (to.trim(), lines)).collect()
}

/// Runs the lines of a block as they are, on the host that it is for.
fn run_block(second: &SecondHost, (on, lines): (&str, &str)) {
    let shows_log = lines.contains("netbox logs server");
    assert!(lines.lines().all(|line| line.starts_with("netbox ")), "{lines}");
    let script = format!("set -ex\nnetbox() {{ {NETBOX} \"$@\"; }}\n{lines}");
    let run = || {
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::null());
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(variable);
        }
        let output = command.output().expect("a shell");
        assert!(output.status.success(), "{}", words(&output));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(shows_log, printed.contains("Accepted connection from 10.1.20.2"), "{}", words(&output));
    };
    match on.parse() {
        Ok(HOST) => run(),
        Ok(SECOND) => second.run(run),
        _ => panic!("no machine {on:?}"),
    }
}

/// Waits until iperf3 listens in the box of the document.
fn await_server(lab: &Lab) {
    // Port 5201, listening (proc_pid_net(5)).
    let is_listening = |line: &str| line.contains(":1451 ") && line.contains(" 0A ");
    eventually("iperf3 listens", || {
        let mut exec =
            lab.netbox(&["exec", "server", "--", "cat", "/proc/self/net/tcp", "/proc/self/net/tcp6"]);
        let output = exec.stderr(Stdio::null()).output().expect("netbox can be started");
        String::from_utf8_lossy(&output.stdout).lines().any(is_listening)
    });
}

fn the_document_works_with_static_routes() {
    if !peers() {
        return;
    }
    let mut lab = Lab::new(Shape::SharedUplink);
    // They could not keep up with iperf3.
    lab.end_captures();
    let second = SecondHost::new(&lab);
    let blocks = blocks("# on ");
    assert_eq!(blocks.len(), 8, "{blocks:?}");
    for block in &blocks[..4] {
        run_block(&second, *block);
        if block.1.contains("iperf3 -s ") {
            await_server(&lab);
        }
    }
    end(lab, &second);
}

/// Daemons of FRR in the network of the thread that starts them; they end with this value.
struct Router {
    daemons: Vec<Child>,
    directory: String,
}

impl Router {
    /// `zebra`, and `daemon` with this configuration; `name` tells its files from the other host's.
    fn start(name: &str, daemon: &str, configuration: &str) -> Self {
        let directory = format!("/tmp/{name}");
        fs::create_dir(&directory).expect("a directory");
        let start = |daemon: &str, configuration: &str| {
            let at = |end: &str| format!("{directory}/{daemon}.{end}");
            fs::write(at("conf"), configuration).expect("a configuration");
            let log = fs::File::create(at("log")).expect("a log");
            let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
            command.args(["-f", &at("conf"), "-i", &at("pid"), "--vty_socket", &directory]);
            command.args(["-z", &format!("{directory}/zserv.api"), "-u", "root", "-g", "root", "-P", "0"]);
            command.args(["--log", "stdout"]);
            let stderr = log.try_clone().expect("another descriptor");
            let child = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
            child.expect("FRR: Debian's package frr has it")
        };
        let mut router = Self { daemons: vec![start("zebra", "")], directory: directory.clone() };
        eventually("zebra serves", || fs::exists(format!("{directory}/zserv.api")).unwrap_or(false));
        router.daemons.push(start(daemon, configuration));
        router
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // The one that tells zebra of routes first; what it has put into the kernel goes with it.
        for child in self.daemons.iter_mut().rev() {
            send(child.id(), Signal::SIGTERM);
            let _ = child.wait();
        }
        if thread::panicking() {
            let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
            for log in files.filter(|file| file.path().extension().is_some_and(|end| end == "log")) {
                eprintln!("{:?}: {}", log.path(), fs::read_to_string(log.path()).unwrap_or_default());
            }
        }
        // The second of it may be gone with the first host's.
        for directory in [&self.directory, "/run/frr"] {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// N1: routes are told and learnt by a real routing daemon, and forgotten when the network is not used any more.
fn with_daemon(daemon: &str, configurations: [&str; 2]) {
    // FRR wants its user to be in the group of its terminals, and leaves traces in /var/tmp.
    let mut lab = Lab::before(Shape::SharedUplink, || {
        fs::write("/tmp/group", "root:x:0:\nfrrvty:x:108:root\n").expect("a file of groups");
        let none: Option<&str> = None;
        mount(Some("/tmp/group"), "/etc/group", none, MsFlags::MS_BIND, none).expect("a bind mount");
        mount(Some("tmpfs"), "/var/tmp", Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
    });
    lab.end_captures();
    let second = SecondHost::new(&lab);
    let [first_router, second_router] = configurations;
    let routers = (
        Router::start("first", daemon, first_router),
        second.run(|| Router::start("second", daemon, second_router)),
    );
    let blocks = &blocks("# on ")[4..];
    run_block(&second, blocks[0]);
    await_server(&lab);
    run_block(&second, blocks[1]);
    let learnt = |to: [u8; 3]| links::has_route([to[0], to[1], to[2], 0].into(), 24);
    let both = || learnt([10, 1, 20]) && second.run(|| learnt([10, 1, 10]));
    wait_within(Duration::from_secs(40), "routes are learnt", both);
    for block in &blocks[2..] {
        run_block(&second, *block);
    }
    let neither = || !learnt([10, 1, 20]) && !second.run(|| learnt([10, 1, 10]));
    wait_within(Duration::from_secs(20), "routes are forgotten", neither);
    drop(routers);
    end(lab, &second);
}

fn the_document_works_with_ospf() {
    if !peers() {
        return;
    }
    let all = blocks("! /etc/frr/frr.conf on each");
    // The same sooner than a daemon does it by itself.
    let hasty = |configuration: &str| {
        format!(
            "{configuration}router ospf\n timers throttle spf 0 50 100\n timers throttle lsa all 0\nexit\n\
             interface hw\n ip ospf network point-to-point\n ip ospf hello-interval 1\n ip ospf dead-interval 4\nexit\n"
        )
    };
    let configuration = hasty(all[0].1);
    with_daemon("ospfd", [&configuration, &configuration]);
}

fn the_document_works_with_bgp() {
    if !peers() {
        return;
    }
    let all = blocks("! /etc/frr/frr.conf on 198");
    let hasty = |own: &str, other: &str, configuration: &str| {
        let begun = configuration.lines().find(|line| line.starts_with("router bgp")).expect(own);
        format!(
            "{configuration}{begun}\n neighbor {other} timers connect 1\n neighbor {other} advertisement-interval 0\nexit\n"
        )
    };
    let first = hasty("the first's", "198.51.100.2", all[0].1);
    let second = hasty("the second's", "198.51.100.1", all[1].1);
    with_daemon("bgpd", [&first, &second]);
}
