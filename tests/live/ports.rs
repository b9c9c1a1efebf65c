//! Published ports of every kind: who reaches which, as whom, and which port is chosen.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use crate::lab::{
    HOST, HOST_LAN, HOST_LAN6, HOST6, Lab, Outcome, RunningBox, Shape, WAN, WAN6, links, live_tests, probe,
    sysctl, words,
};

live_tests![
    tcp_ports_are_reached_by_whom_they_are_published_for,
    udp_ports_are_reached_by_whom_they_are_published_for,
    tcp_ports_of_a_box_without_ipv6_are_reached_over_ipv6,
    udp_ports_of_a_box_without_ipv6_are_reached_over_ipv6,
    a_server_of_ipv4_alone_is_reached_by_either_loopback_address,
    a_udp_client_that_never_pauses_reaches_whoever_has_the_port,
    a_crowd_of_udp_clients_on_loopback_takes_a_bounded_number_of_descriptors,
    a_pool_takes_its_lowest_port_that_is_free_and_not_reserved,
    named_ports_are_taken_before_pools_choose,
    every_port_of_a_box_is_listed,
    sctp_is_published_where_the_kernel_has_it_and_refused_elsewhere,
    what_no_host_can_publish_is_refused_before_anything_is_changed,
];

/// What a port is published on, and under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    EveryAddress,
    EveryIpv4Address,
    EveryIpv6Address,
    OneAddress,
    OneIpv6Address,
    Loopback,
    Loopback6,
}

impl On {
    const ALL: [Self; 7] = [
        Self::EveryAddress,
        Self::EveryIpv4Address,
        Self::EveryIpv6Address,
        Self::OneAddress,
        Self::OneIpv6Address,
        Self::Loopback,
        Self::Loopback6,
    ];

    const fn port(self) -> u16 {
        8000 + self as u16
    }

    fn spec(self, protocol: &str) -> String {
        let port = self.port();
        match self {
            Self::EveryAddress => format!("{port}:80/{protocol}"),
            Self::EveryIpv4Address => format!("0.0.0.0:{port}:80/{protocol}"),
            Self::EveryIpv6Address => format!("[::]:{port}:80/{protocol}"),
            Self::OneAddress => format!("{HOST_LAN}:{port}:80/{protocol}"),
            Self::OneIpv6Address => format!("[{HOST_LAN6}]:{port}:80/{protocol}"),
            Self::Loopback => format!("127.0.0.1:{port}:80/{protocol}"),
            Self::Loopback6 => format!("[::1]:{port}:80/{protocol}"),
        }
    }

    /// Whether it is to be reached by this address of the host's.
    fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::EveryAddress => true,
            Self::EveryIpv4Address => address.is_ipv4(),
            Self::EveryIpv6Address => address.is_ipv6(),
            Self::OneAddress => address == HOST_LAN,
            Self::OneIpv6Address => address == HOST_LAN6,
            Self::Loopback => address == Ipv4Addr::LOCALHOST,
            Self::Loopback6 => address == Ipv6Addr::LOCALHOST,
        }
    }
}

/// The link-local address of a link of the caller's, as a place to connect to.
fn link_local(link: &str) -> SocketAddr {
    let all = nix::ifaddrs::getifaddrs().expect("the addresses");
    let of_link = all.filter(|found| found.interface_name == link);
    let mut six = of_link.filter_map(|found| Some(SocketAddrV6::from(*found.address?.as_sockaddr_in6()?)));
    SocketAddr::V6(six.find(|address| address.ip().is_unicast_link_local()).expect("a link-local address"))
}

/// N2, I3: every place by every address of the host's that it knows, for every way to publish. `options`: those of the box
/// that publishes.
fn assert_matrix(
    lab: &Lab,
    protocol: &str,
    options: &[&str],
    attempt: impl Fn(SocketAddr) -> Outcome + Sync,
) {
    let publish: Vec<String> = On::ALL.iter().flat_map(|on| ["-p".to_owned(), on.spec(protocol)]).collect();
    let options: Vec<&str> = publish.iter().map(String::as_str).chain(options.iter().copied()).collect();
    let server = lab.start(&options, &["listen", protocol, "[::]:80"]);
    let other = lab.start(&[], &["sleep"]);
    lab.client(|| {
        links::route(HOST.into(), 32, HOST_LAN.into());
        links::route(HOST6.into(), 128, HOST_LAN6.into());
    });
    let gateway = IpAddr::V4(Ipv4Addr::from(u32::from(server.address) & !0x3fff | 1));
    let gateway6 = server
        .address6
        .map(|address| IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64 | 1)))
        .unwrap_or(gateway);

    let inside = |one: &RunningBox, to| one.inside(|| attempt(to));
    let client = |to| lab.client(|| attempt(to));
    let wan = |to| lab.wan(|| attempt(to));
    let (own, another) = (|to| inside(&server, to), |to| inside(&other, to));
    let host: &dyn Fn(SocketAddr) -> Outcome = &attempt;
    let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), 0);
    let ip = |address: IpAddr| SocketAddr::new(address, 0);
    let (lan, up, lan6, up6) = (ip(HOST_LAN.into()), ip(HOST.into()), ip(HOST_LAN6.into()), ip(HOST6.into()));
    let (client4, client6) = (IpAddr::V4(lab.client_address()), at("2001:db8:1::10").ip());
    let other6 = other.address6.map(IpAddr::V6);
    let near = link_local("hc");
    let mut far = near;
    if let SocketAddr::V6(far) = &mut far {
        far.set_scope_id(lab.client(|| nix::net::if_::if_nametoindex("c0").expect("the client's link")));
    }
    // What is translated, with the address that is seen.
    type Row<'a> = (&'a str, &'a dyn Fn(SocketAddr) -> Outcome, SocketAddr, Option<IpAddr>);
    let six = |seen: Option<IpAddr>| if server.address6.is_some() { seen } else { Some(gateway) };
    let rows: Vec<Row<'_>> = vec![
        ("the client", &client, lan, Some(client4)),
        ("the client", &client, up, Some(client4)),
        ("the client", &client, lan6, six(Some(client6))),
        ("the client", &client, up6, six(Some(client6))),
        ("the client", &client, far, Some(gateway6)),
        ("wan", &wan, up, Some(WAN.into())),
        ("wan", &wan, up6, six(Some(WAN6.into()))),
        ("the host", host, lan, Some(lan.ip())),
        ("the host", host, up, Some(up.ip())),
        ("the host", host, lan6, six(Some(lan6.ip()))),
        ("the host", host, up6, six(Some(up6.ip()))),
        ("the host", host, near, Some(gateway6)),
        ("the host", host, at("127.0.0.1"), Some(gateway)),
        ("the host", host, at("127.0.0.77"), Some(gateway)),
        ("the host", host, at("::1"), Some(gateway6)),
        ("the box itself", &own, lan, Some(gateway)),
        ("the box itself", &own, up, Some(gateway)),
        ("the box itself", &own, lan6, server.address6.map(|_| gateway6)),
        ("the box itself", &own, up6, server.address6.map(|_| gateway6)),
        ("another box", &another, lan, Some(other.address.into())),
        ("another box", &another, up, Some(other.address.into())),
        // Boxes are kept off the host's own addresses, where a relay is no way around.
        ("another box", &another, lan6, server.address6.and(other6)),
        ("another box", &another, up6, server.address6.and(other6)),
    ];
    let mut wrong = String::new();
    for (who, try_it, address, seen) in rows {
        for on in On::ALL {
            let expected = seen.filter(|_| on.includes(address.ip()));
            let mut to = address;
            to.set_port(on.port());
            let outcome = try_it(to);
            if outcome.seen_as() != expected || outcome.reached() != expected.is_some() {
                let _ = writeln!(wrong, "{who} at {to}, {on:?}: {outcome}, not {expected:?}");
            }
        }
    }
    assert_eq!(wrong, "", "{protocol}");
}

/// N2, I3.
fn tcp_ports_are_reached_by_whom_they_are_published_for() {
    assert_matrix(&Lab::new(Shape::OwnLan), "tcp", &[], probe::tcp);
}

/// N2, I3.
fn udp_ports_are_reached_by_whom_they_are_published_for() {
    assert_matrix(&Lab::new(Shape::OwnLan), "udp", &[], probe::udp);
}

/// A link with so small an MTU has no IPv6.
const WITHOUT_IPV6: [&str; 2] = ["--mtu", "1200"];

/// N2, I3: relayed.
fn tcp_ports_of_a_box_without_ipv6_are_reached_over_ipv6() {
    assert_matrix(&Lab::new(Shape::OwnLan), "tcp", &WITHOUT_IPV6, probe::tcp);
}

/// N2, I3: relayed.
fn udp_ports_of_a_box_without_ipv6_are_reached_over_ipv6() {
    assert_matrix(&Lab::new(Shape::OwnLan), "udp", &WITHOUT_IPV6, probe::udp);
}

/// N2: `localhost` is ::1 first, and many a server listens on IPv4 alone.
fn a_server_of_ipv4_alone_is_reached_by_either_loopback_address() {
    let lab = Lab::new(Shape::OwnLan);
    for (protocol, attempt) in [("tcp", probe::tcp as fn(SocketAddr) -> Outcome), ("udp", probe::udp)] {
        let server = lab.start(&["-p", &format!("8080:80/{protocol}")], &["listen", protocol, "0.0.0.0:80"]);
        assert!(server.address6.is_some());
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let outcome = attempt(SocketAddr::new(address, 8080));
            assert!(outcome.reached(), "{protocol} by {address}: {outcome}");
        }
        server.end();
    }
}

/// N2: connection tracking remembers where a port led before.
fn a_udp_client_that_never_pauses_reaches_whoever_has_the_port() {
    let lab = Lab::new(Shape::OwnLan);
    // With it the host's rules are there all the time: a connection that began without any is translated later all the same.
    let _other = lab.start(&[], &["sleep"]);
    let client = lab.client(|| UdpSocket::bind("0.0.0.0:4000").expect("a port of the client's"));
    client.connect((HOST_LAN, 5353)).expect("a route to the host");
    client.set_read_timeout(Some(Duration::from_millis(2))).expect("a time-out");
    let answered = |wanted: bool| {
        // Nothing that is still on its way is taken for an answer.
        while client.recv(&mut [0; 64]).is_ok() {}
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            // Refused by an ICMP message for an earlier one, it is sent all the same.
            let _ = client.send(b"who am I?").or_else(|_| client.send(b"who am I?"));
            if client.recv(&mut [0; 64]).is_ok() == wanted {
                return true;
            }
        }
        false
    };
    assert!(answered(false), "nobody has the port");
    let options = ["-p", "5353:53/udp"];
    for name in ["first", "second"] {
        let server = lab.start(&options, &["listen", "udp", "0.0.0.0:53"]);
        assert!(answered(true), "the {name} box");
        server.end();
    }
    let host = crate::lab::Service::udp(lab.host_place(), SocketAddr::from((HOST_LAN, 5353)));
    assert!(answered(true), "a process of the host's, afterwards");
    assert!(host.visits() > 0);
}

/// C3: flows end when they are idle, and are so many at most.
fn a_crowd_of_udp_clients_on_loopback_takes_a_bounded_number_of_descriptors() {
    let lab = Lab::new(Shape::OwnLan);
    let _server = lab.start(&["-p", "127.0.0.1:5353:53/udp"], &["listen", "udp", "0.0.0.0:53"]);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 5353));
    let patient = UdpSocket::bind("127.0.0.1:0").expect("a port");
    patient.connect(to).expect("a route to loopback");
    patient.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let exchange = || {
        patient.send(b"who am I?").expect("to send");
        patient.recv(&mut [0; 64]).expect("an answer")
    };
    exchange();
    for attempt in 0..1100 {
        let outcome = probe::udp(to);
        assert!(outcome.reached(), "attempt {attempt}: {outcome}");
    }
    // Its flow had to go for another's; it gets a new one.
    exchange();
    let relays: Vec<_> = fs::read_dir("/proc")
        .expect("the processes")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "netbox-relay\n"))
        .collect();
    let [relay] = &relays[..] else { panic!("relays: {relays:?}") };
    let open = fs::read_dir(relay.join("fd")).expect("the relay's descriptors").count();
    assert!(open < 1024 + 64, "{open} descriptors");
}

/// What `netbox ps --json` lists as the ports of the only box.
fn listed_ports(lab: &Lab) -> Vec<Value> {
    let output = lab.netbox(&["ps", "--json"]).output().expect("netbox can be started");
    assert!(output.status.success(), "{}", words(&output));
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", words(&output)));
    list[0]["ports"].as_array().expect("an array").clone()
}

fn host_ports(lab: &Lab) -> Vec<u64> {
    listed_ports(lab).iter().map(|port| port["host_port"].as_u64().expect("a number")).collect()
}

/// N2, N3: `net.ipv4.ip_local_reserved_ports` binds choices alone.
fn a_pool_takes_its_lowest_port_that_is_free_and_not_reserved() {
    let lab = Lab::before(Shape::OwnLan, || {
        sysctl("net/ipv4/ip_local_reserved_ports", "8001-8002,8010-8011,8013");
        sysctl("net/ipv4/ip_local_port_range", "8010 8013");
    });
    let _tcp = TcpListener::bind("192.0.2.1:8000").expect("a free port");
    let _tcp6 = TcpListener::bind("[2001:db8:2::1]:8003").expect("a free port");
    let _udp = UdpSocket::bind("0.0.0.0:8004").expect("a free port");
    for (spec, expected) in [
        ("8000-8010:80", 8004),
        ("0.0.0.0:8000-8010:80", 8003),
        ("8000-8010:80/udp", 8000),
        ("127.0.0.1:8000-8010:80/tcp", 8000),
        ("8001:80", 8001),
        // The kernel's own choice.
        ("80", 8012),
        ("80/udp", 8012),
    ] {
        let server = lab.start(&["-p", spec], &["sleep"]);
        assert!(host_ports(&lab).iter().all(|port| *port == expected), "{spec}: {:?}", host_ports(&lab));
        server.end();
    }
    for (spec, reason) in [
        ("8001-8002:80", "all of its ports are in net.ipv4.ip_local_reserved_ports"),
        ("8003-8003:80", "[::]:8003 is already taken by "),
        ("8002-8003:80", "all of its ports are taken; [::]:8003 by "),
    ] {
        let output = lab.run(&["-p", spec], &["exit", "0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{spec}: {said}");
        assert!(said.contains(reason) && said.contains("hint: "), "{spec}: {said}");
    }
    let _last = TcpListener::bind("0.0.0.0:8012").expect("a free port");
    let output = lab.run(&["-p", "80"], &["exit", "0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no port of net.ipv4.ip_local_port_range is free"), "{said}");
}

/// N2: a choice takes no port that is asked for by name, in whatever order.
fn named_ports_are_taken_before_pools_choose() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv4/ip_local_port_range", "8000 8003"));
    let options = ["-p", "90", "-p", "8000-8003:80", "-p", "8000:81", "-p", "8001:82"];
    let _server = lab.start(&options, &["sleep"]);
    let mut ports: Vec<_> = listed_ports(&lab)
        .iter()
        .filter(|port| port["host_address"] == "0.0.0.0")
        .map(|port| (port["box_port"].as_u64(), port["host_port"].as_u64()))
        .collect();
    ports.sort_unstable();
    let expected = [(80, 8002), (81, 8000), (82, 8001), (90, 8003)];
    assert_eq!(ports, expected.map(|(inside, outside)| (Some(inside), Some(outside))));
}

/// N2: with protocol and address, for people and for programs.
fn every_port_of_a_box_is_listed() {
    let lab = Lab::new(Shape::OwnLan);
    let options = ["53:53/udp", "127.0.0.1:8000-8002:80-82", "[::1]:9000:90/udp"];
    let _server = lab.start(&options.map(|spec| ["-p", spec]).concat(), &["sleep"]);
    let listed: Vec<_> = listed_ports(&lab)
        .iter()
        .map(|port| {
            let text = |key: &str| port[key].as_str().unwrap_or("?").to_owned();
            let (address, protocol) = (text("host_address"), text("protocol"));
            format!("{address} {} {} {protocol}", port["host_port"], port["box_port"])
        })
        .collect();
    assert_eq!(
        listed,
        [
            "0.0.0.0 53 53 udp",
            ":: 53 53 udp",
            "127.0.0.1 8000 80 tcp",
            "127.0.0.1 8001 81 tcp",
            "127.0.0.1 8002 82 tcp",
            "::1 9000 90 udp",
        ]
    );
    let output = lab.netbox(&["ps"]).output().expect("netbox can be started");
    let table = String::from_utf8_lossy(&output.stdout);
    let wanted = "127.0.0.1:8000-8002->80-82/tcp,0.0.0.0:53->53/udp,[::]:53->53/udp,[::1]:9000->90/udp";
    assert!(table.contains(wanted), "{table}");
}

/// N2, and a clear refusal.
fn sctp_is_published_where_the_kernel_has_it_and_refused_elsewhere() {
    let lab = Lab::new(Shape::OwnLan);
    let sctp = socket2::Protocol::from(132);
    let has_it = match socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(sctp)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(Errno::EPROTONOSUPPORT as i32), "{error}");
            false
        }
    };
    let output = lab.run(&["-p", "9000:9000/sctp"], &["exit", "3"]);
    let said = String::from_utf8_lossy(&output.stderr);
    if has_it {
        assert_eq!(output.status.code(), Some(3), "{said}");
    } else {
        println!("not tested: SCTP ports at work, which this kernel does not have");
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains("this kernel has no SCTP") && said.contains("hint: "), "{said}");
        lab.assert_clean_within(Duration::from_millis(100));
    }
}

/// Exit 125, with a hint.
fn what_no_host_can_publish_is_refused_before_anything_is_changed() {
    let lab = Lab::new(Shape::OwnLan);
    for (spec, reason) in [
        ("203.0.113.9:80:80", "203.0.113.9 is not an address of this host"),
        ("[2001:db8:9::9]:80:80/udp", "2001:db8:9::9 is not an address of this host"),
        ("[fe80::1]:80:80", "fe80::1 is a link-local address"),
        ("224.0.0.251:5353:5353/udp", "224.0.0.251 is no address that one host has"),
        ("127.0.0.1:9000:9000/sctp", "not done for SCTP"),
    ] {
        let output = lab.run(&["-p", spec], &["exit", "0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{spec}: {said}");
        assert!(said.contains(reason) && said.contains("hint: "), "{spec}: {said}");
        lab.assert_clean_within(Duration::from_millis(100));
    }
}
