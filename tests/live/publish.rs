//! Published ports: who reaches them, and who holds them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{
    HOST, HOST_LAN, HOST_LAN6, Lab, NETBOX, Outcome, Shape, WAN, links, live_tests, probe, words,
};

live_tests![
    a_published_port_is_reached_from_everywhere,
    a_published_port_is_reached_by_the_uplinks_neighbours,
    a_box_reaches_its_own_published_port,
    a_box_reaches_another_boxs_published_port,
    a_port_published_on_one_address_is_reached_there_alone,
    a_range_is_published_port_by_port,
    every_port_of_a_long_range_is_published_and_no_other,
    boxes_reach_a_long_range,
    each_of_thousands_of_ports_is_reached_by_loopback,
    more_ports_than_descriptors_are_refused,
    the_command_has_the_callers_limit_of_descriptors,
    an_ephemeral_port_is_published_and_listed,
    a_port_without_a_host_port_is_ephemeral_on_its_address,
    a_port_taken_by_a_process_is_an_error_that_names_it,
    a_port_taken_by_a_box_is_an_error_that_names_it,
    a_published_port_is_held_for_the_boxs_life,
    the_same_port_of_another_protocol_is_free,
];

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// N2 for one protocol: from the client, from wan, and from the host by each of its addresses.
fn assert_reached_from_everywhere(lab: &Lab, attempt: impl Fn(SocketAddr) -> Outcome + Sync, port: u16) {
    let client = lab.client(|| attempt(at(HOST_LAN, port)));
    assert_eq!(client.seen_as(), Some(IpAddr::V4(lab.client_address())), "from the client: {client}");
    lab.client(|| links::route(HOST.into(), 32, HOST_LAN.into()));
    let further = lab.client(|| attempt(at(HOST, port)));
    assert_eq!(further.seen_as(), Some(IpAddr::V4(lab.client_address())), "by the other address: {further}");
    let wan = lab.wan(|| attempt(at(HOST, port)));
    assert_eq!(wan.seen_as(), Some(IpAddr::V4(WAN)), "from wan: {wan}");
    for address in [HOST_LAN, HOST, Ipv4Addr::LOCALHOST] {
        let host = attempt(at(address, port));
        assert!(host.reached(), "from the host by {address}: {host}");
    }
}

/// N2: and remote clients keep their source address.
fn a_published_port_is_reached_from_everywhere() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "8080:80"], &SERVER);
    assert_reached_from_everywhere(&lab, probe::tcp, 8080);
}

/// N2: where client and uplink share a network.
fn a_published_port_is_reached_by_the_uplinks_neighbours() {
    let lab = Lab::new(Shape::SharedUplink);
    let _server = lab.start(&["-p", "8080:80"], &SERVER);
    let client = lab.client(|| probe::tcp(at(HOST, 8080)));
    assert_eq!(client.seen_as(), Some(IpAddr::V4(lab.client_address())), "{client}");
}

/// N2: by the host's addresses (hairpin).
fn a_box_reaches_its_own_published_port() {
    let lab = Lab::new(Shape::OwnLan);
    let server = lab.start(&["-p", "8080:80"], &SERVER);
    for address in [HOST, HOST_LAN] {
        let outcome = server.inside(|| probe::tcp(at(address, 8080)));
        assert!(outcome.reached(), "by {address}: {outcome}");
    }
}

/// N2: by the host's addresses.
fn a_box_reaches_another_boxs_published_port() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "8080:80"], &SERVER);
    let other = lab.start(&[], &["sleep"]);
    for address in [HOST, HOST_LAN] {
        let outcome = other.inside(|| probe::tcp(at(address, 8080)));
        assert_eq!(outcome.seen_as(), Some(IpAddr::V4(other.address)), "by {address}: {outcome}");
    }
}

/// N2: `IP:HOSTPORT:BOXPORT`.
fn a_port_published_on_one_address_is_reached_there_alone() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "192.0.2.1:8080:80"], &SERVER);
    let client = lab.client(|| probe::tcp(at(HOST_LAN, 8080)));
    assert!(client.reached(), "{client}");
    let wan = lab.wan(|| probe::tcp(at(HOST, 8080)));
    assert!(!wan.reached(), "{wan}");
    let loopback = probe::tcp(at(Ipv4Addr::LOCALHOST, 8080));
    assert!(!loopback.reached(), "{loopback}");
}

/// N2: `HOSTPORT-END:BOXPORT-END`.
fn a_range_is_published_port_by_port() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "8000-8002:80-82"], &["listen", "tcp", "0.0.0.0:81"]);
    let outcomes =
        [8000, 8001, 8002, 8003].map(|port| lab.client(|| probe::tcp(at(HOST_LAN, port))).reached());
    assert_eq!(outcomes, [false, true, false, false]);
}

/// N2, I3: a range of which rules know the ends, and blocks of ports in the gateway.
fn every_port_of_a_long_range_is_published_and_no_other() {
    let lab = Lab::new(Shape::OwnLan);
    // Host ports, box ports, where the box listens, where that is; first and last of range and block among them.
    for (published, own, reached) in [
        ("8000-8099:8000-8099", 8000, Some(8000)),
        ("8000-8099:8000-8099", 8031, Some(8031)),
        ("8001-8099:8001-8099", 8031, Some(8031)),
        ("8000-8099:8000-8099", 8099, Some(8099)),
        ("8000-8099:8000-8099", 8100, None),
        ("8001-8099:8001-8099", 8000, None),
        ("192.0.2.1:8000-8099:8000-8099", 8064, Some(8064)),
        ("9000-9099:8000-8099", 8064, Some(9064)),
        ("9000-9099:8000-8099", 9064, None),
    ] {
        let listen = format!("[::]:{own}");
        let _server = lab.start(&["-p", published], &["listen", "tcp", &listen]);
        let port = reached.unwrap_or(own);
        let over4 = lab.client(|| probe::tcp(at(HOST_LAN, port)));
        let client = reached.map(|_| IpAddr::V4(lab.client_address()));
        assert_eq!(over4.seen_as(), client, "{published}, {own}: {over4}");
        let over6 = lab.client(|| probe::tcp((HOST_LAN6, port).into()));
        let with_ipv6 = reached.is_some() && !published.contains("192.");
        assert_eq!(over6.reached(), with_ipv6, "{published}, {own}: {over6}");
    }
    let _server = lab.start(&["-p", "8000-8099:8000-8099/udp"], &["listen", "udp", "0.0.0.0:8050"]);
    assert_reached_from_everywhere(&lab, probe::udp, 8050);
    let over_tcp = lab.client(|| probe::tcp(at(HOST_LAN, 8050)));
    assert!(!over_tcp.reached(), "{over_tcp}");
}

/// N2: the box itself and others, by the host's addresses (hairpin).
fn boxes_reach_a_long_range() {
    let lab = Lab::new(Shape::OwnLan);
    let server = lab.start(&["-p", "8000-8099:8000-8099"], &["listen", "tcp", "[::]:8050"]);
    let other = lab.start(&["-p", "8100-8199:8100-8199"], &["sleep"]);
    for one in [&server, &other] {
        for to in [at(HOST_LAN, 8050), (HOST_LAN6, 8050).into()] {
            let outcome = one.inside(|| probe::tcp(to));
            assert!(outcome.reached(), "{to}: {outcome}");
        }
    }
}

/// N2: more ports than the relay takes connections at a time.
fn each_of_thousands_of_ports_is_reached_by_loopback() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "20000-24199:20000-24199"], &["listen", "tcp", "0.0.0.0:24199"]);
    let outcome = probe::tcp(at(Ipv4Addr::LOCALHOST, 24199));
    assert!(outcome.reached(), "{outcome}");
}

/// N3: before anything is changed. Who may raise the limit does.
fn more_ports_than_descriptors_are_refused() {
    let lab = Lab::new(Shape::OwnLan);
    let script = format!("ulimit -n 4096; exec {NETBOX} run -p 1-65535:1-65535 -- true");
    let output = Command::new("sh").args(["-c", &script]).output().expect("netbox can be started");
    let said = words(&output);
    let refused = "cannot publish 65535 ports: that takes 131134 file descriptors, and the limit is 4096";
    assert!(output.status.success() || said.contains(refused), "{said}");
    drop(lab);
}

/// R1: many ports take the keeper many descriptors, and the command none.
fn the_command_has_the_callers_limit_of_descriptors() {
    let lab = Lab::new(Shape::OwnLan);
    let limits = |netbox: &mut Command| words(&netbox.output().expect("a program"));
    let bare = limits(Command::new("sh").args(["-c", "ulimit -Sn 300; ulimit -Sn; ulimit -Hn"]));
    let script =
        format!("ulimit -Sn 300; exec {NETBOX} run -p 8000-8999:8000-8999 -- sh -c 'ulimit -Sn; ulimit -Hn'");
    assert_eq!(limits(Command::new("sh").args(["-c", &script])), bare);
    drop(lab);
}

/// The only published port that `netbox ps` lists.
fn listed_port(lab: &Lab) -> (String, u16) {
    let output = lab.netbox(&["ps", "--json"]).output().expect("netbox can be started");
    assert!(output.status.success(), "{}", words(&output));
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", words(&output)));
    let port = &list[0]["ports"][0];
    let number = port["host_port"].as_u64().and_then(|number| u16::try_from(number).ok());
    let address = port["host_address"].as_str().unwrap_or("").to_owned();
    (address, number.unwrap_or_else(|| panic!("no host port in {list}")))
}

/// N2: `BOXPORT` alone; `ps --json` tells which.
fn an_ephemeral_port_is_published_and_listed() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "80"], &SERVER);
    let (_, port) = listed_port(&lab);
    let client = lab.client(|| probe::tcp(at(HOST_LAN, port)));
    assert!(client.reached(), "port {port}: {client}");
}

/// N2: `IP::BOXPORT`.
fn a_port_without_a_host_port_is_ephemeral_on_its_address() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "127.0.0.1::80"], &SERVER);
    let (address, port) = listed_port(&lab);
    assert_eq!(address, "127.0.0.1");
    assert!(probe::tcp(at(Ipv4Addr::LOCALHOST, port)).reached());
    assert!(!lab.client(|| probe::tcp(at(HOST_LAN, port))).reached());
}

/// N3: before anything is changed, and without starting the command.
fn a_port_taken_by_a_process_is_an_error_that_names_it() {
    let lab = Lab::new(Shape::OwnLan);
    let _tcp = TcpListener::bind("0.0.0.0:8080").expect("a free port");
    let _udp = UdpSocket::bind("127.0.0.1:8081").expect("a free port");
    let _udp6 = UdpSocket::bind("[2001:db8:2::1]:8082").expect("a free port");
    // The host's own connections keep their ports too.
    let connection = TcpStream::connect("127.0.0.1:8080").expect("a listener");
    let local = connection.local_addr().expect("an address");
    let (connected, at) = (format!("{}:80", local.port()), format!("0.0.0.0:{}", local.port()));
    for (spec, place) in [
        ("8080:80", "0.0.0.0:8080"),
        ("8081:80/udp", "0.0.0.0:8081"),
        ("8082:80/udp", "[::]:8082"),
        ("127.0.0.1:8081:80/udp", "127.0.0.1:8081"),
        ("[::]:8082:80/udp", "[::]:8082"),
        ("8080-8080:80", "0.0.0.0:8080"),
        (&connected, &at),
    ] {
        let output = lab.run(&["-p", spec], &["exit", "0"]);
        assert_eq!(output.status.code(), Some(125), "{spec}: {}", words(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        let holder = format!("{place} is already taken by ");
        assert!(said.contains(&holder), "{spec}: {said}");
        assert!(said.contains(&format!("(pid {})", std::process::id())), "{spec}: {said}");
        assert!(said.contains("hint: "), "{spec}: {said}");
        // The keeper goes after its launcher.
        lab.assert_clean_within(Duration::from_millis(100));
    }
}

/// What is otherwise than before, whether a process is just awake or not.
fn seen(lab: &Lab) -> String {
    let state = |line: &str| match line.split_once('/').filter(|_| line.starts_with("+ process: ")) {
        Some((process, command)) => {
            let pid = process.split(' ').nth(2).unwrap_or_default();
            format!("process {pid}: /{command}\n")
        }
        None => format!("{line}\n"),
    };
    lab.difference().lines().map(state).collect()
}

/// N3: a box is named by its name.
fn a_port_taken_by_a_box_is_an_error_that_names_it() {
    let lab = Lab::new(Shape::OwnLan);
    let server = lab.start(&["--name", "first", "-p", "8080:80", "-p", "5353:53/udp"], &SERVER);
    // With its control socket, which comes late.
    let mut before = seen(&lab);
    while !before.contains("/control") {
        before = seen(&lab);
    }
    let specs = ["8080:80", "192.0.2.1:8080:80", "127.0.0.1:8080:80", "[::1]:8080:80"];
    for spec in specs.into_iter().chain(["5353:53/udp", "127.0.0.1:5353:53/udp", "[::]:5353:53/udp"]) {
        let output = lab.run(&["-p", spec], &["exit", "0"]);
        assert_eq!(output.status.code(), Some(125), "{spec}: {}", words(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("first"), "{spec}: {said}");
    }
    // The keepers go after their launchers.
    let end = std::time::Instant::now() + Duration::from_secs(1);
    let mut after = seen(&lab);
    while after != before && std::time::Instant::now() < end {
        after = seen(&lab);
    }
    assert_eq!(after, before, "nothing may have been changed");
    assert!(lab.client(|| probe::tcp(at(HOST_LAN, 8080))).reached(), "the first box goes on");
    drop(server);
}

/// N3, L1: nobody else can bind it while the box lives; anybody can once netbox has returned.
fn a_published_port_is_held_for_the_boxs_life() {
    let lab = Lab::new(Shape::OwnLan);
    let options = ["8080:80", "192.0.2.1:9090:80", "8080:80/udp", "[::1]:7070:80", "0.0.0.0:6060:80/udp"];
    let server = lab.start(&options.map(|spec| ["-p", spec]).concat(), &SERVER);
    let tcp = |address: &str| TcpListener::bind(address).map(drop);
    let udp = |address: &str| UdpSocket::bind(address).map(drop);
    let taken = |result: std::io::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    for address in ["0.0.0.0:8080", "127.0.0.1:8080", "198.51.100.1:8080", "[::]:8080", "[::1]:8080"] {
        assert!(taken(tcp(address)), "TCP {address} could be bound");
        assert!(taken(udp(address)), "UDP {address} could be bound");
    }
    for address in ["192.0.2.1:9090", "[::1]:7070"] {
        assert!(taken(tcp(address)), "TCP {address} could be bound");
    }
    assert!(taken(udp("0.0.0.0:6060")));
    udp("[2001:db8:2::1]:6060").expect("the other family's port");
    server.end();
    for address in ["0.0.0.0:8080", "[2001:db8:2::1]:8080", "192.0.2.1:9090", "[::1]:7070"] {
        tcp(address).unwrap_or_else(|error| panic!("TCP {address} after the box's end: {error}"));
    }
    for address in ["0.0.0.0:8080", "[2001:db8:2::1]:8080", "0.0.0.0:6060"] {
        udp(address).unwrap_or_else(|error| panic!("UDP {address} after the box's end: {error}"));
    }
}

/// N3: a port is taken for one protocol.
fn the_same_port_of_another_protocol_is_free() {
    let lab = Lab::new(Shape::OwnLan);
    let _tcp = lab.start(&["-p", "8080:80"], &SERVER);
    UdpSocket::bind("0.0.0.0:8080").expect("the UDP port of that number");
}
