//! The host changes under running boxes: N, I and L go on holding.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{
    ECHO, HOST, HOST_LAN, HOST_LAN6, Lab, Place, RunningBox, Service, Shape, WAN, WAN6, let_pass, links,
    live_tests, nftables, probe, read_sysctl, send, settled, sysctl, wait_within,
};

live_tests![
    flushed_rules_are_back_within_a_second,
    deleted_tables_rules_and_elements_are_back_within_a_second,
    nothing_leaks_while_rules_are_flushed_and_put_back,
    a_box_with_a_port_starts_while_rules_are_flushed,
    the_next_keeper_puts_rules_back_when_the_first_was_killed,
    the_next_keeper_puts_rules_back_when_the_first_has_ended,
    the_first_keeper_killed_in_the_middle_of_a_repair,
    one_keeper_listens_for_all,
    a_resting_keeper_is_not_woken_by_other_boxes,
    an_address_that_comes_is_fenced_and_serves_published_ports,
    an_address_that_moves_to_the_host_is_fenced_from_who_talked_with_it,
    a_new_uplink_carries_boxes,
    interfaces_that_come_and_go_are_followed_without_a_word,
    what_is_of_ipv6_comes_back_as_well,
    ipv6_forwarding_switched_by_somebody,
    an_uplink_goes_down_and_up,
    a_renamed_uplink_makes_no_router,
    forwarding_switched_on_by_somebody_is_theirs,
    forwarding_switched_off_by_somebody_is_on_again_for_boxes_alone,
    removed_routing_rules_and_routes_are_back_within_a_second,
    a_removed_link_is_made_again,
    a_link_that_was_set_down_renamed_or_moved_is_back,
    a_lower_mtu_of_the_uplink_reaches_boxes,
];

/// Promise I6's.
const A_SECOND: Duration = Duration::from_secs(1);

/// Waits for something that has to come true. Three times the limit: tests run beside each other, and beside a harness that
/// keeps all processors busy.
fn within(limit: Duration, what: &str, is_true: impl FnMut() -> bool) {
    wait_within(3 * limit, what, is_true);
}

fn wan() -> SocketAddr {
    SocketAddr::from((WAN, ECHO))
}

/// A datagram there and back, with a shorter patience than the probes': what is lost is sent again.
fn answered(to: SocketAddr) -> Option<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
    // Refused is as good as not answered.
    socket.connect(to).ok()?;
    socket.send(b"who am I?").ok()?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..length]).parse().ok()
}

fn assert_egress(running: &RunningBox, when: &str) {
    running.inside(|| within(A_SECOND, &format!("egress {when}"), || answered(wan()).is_some()));
}

fn connects(to: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&to, Duration::from_millis(50)).is_ok()
}

/// The keeper of a box: the parent of its command.
fn keeper(running: &RunningBox) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).expect("the command");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("a number")
}

/// How many descriptors of a process are of that kind (`[eventpoll]`, `[pidfd]`).
fn descriptors(pid: u32, kind: &str) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process");
    let links = all.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().ends_with(kind)).count()
}

fn listens(running: &RunningBox) -> bool {
    descriptors(keeper(running), "[eventpoll]") > 0
}

/// The first keeper in the line listens; the others have the pidfd of the one before beside that of their command.
fn wait_until_watched(first: &RunningBox, others: &[&RunningBox]) {
    within(A_SECOND, "the first keeper listens", || listens(first));
    for other in others {
        within(A_SECOND, "the next stands in the line", || descriptors(keeper(other), "[pidfd]") == 2);
    }
}

const SERVER: [&str; 3] = ["listen", "tcp", "0.0.0.0:80"];

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// I6: egress and published ports.
fn flushed_rules_are_back_within_a_second() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    for round in ["once", "twice", "three times"] {
        nftables::flush();
        assert_egress(&running, &format!("after a flush, {round}"));
        lab.client(|| within(A_SECOND, "the published port", || connects(at(HOST_LAN, 8080))));
    }
}

/// I6: what a firewall's reload or an administrator's hand takes away of it.
fn deleted_tables_rules_and_elements_are_back_within_a_second() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    let other = lab.start(&["-p", "8081:80"], &SERVER);
    wait_until_watched(&running, &[&other]);
    let mut before = without_counts(nftables::ruleset());
    before.retain(|line| !counts(line));
    let deeds: [(&str, fn()); 6] = [
        ("without the table", || nftables::delete_table(1, "netbox")),
        ("without the guard", || nftables::delete_table(5, "netbox")),
        ("without the rules of a chain", || nftables::flush_chain("netbox", "postnat")),
        ("without the port maps", || nftables::flush_set("netbox", "t4w")),
        ("without the restricted interfaces", || nftables::flush_set("netbox", "switched")),
        ("beside another table", || nftables::add_table("another")),
    ];
    for (what, deed) in deeds {
        deed();
        within(A_SECOND, &format!("the rules are as before, {what}"), || {
            let mut now = without_counts(nftables::ruleset());
            now.retain(|line| !line.contains("another") && !counts(line));
            now == before
        });
        assert_egress(&running, what);
        lab.client(|| {
            within(A_SECOND, what, || [8080, 8081].iter().all(|port| connects(at(HOST_LAN, *port))))
        });
    }
    nftables::delete_table(1, "another");
}

/// Whether the line is a set in which the kernel counts connections, with how many elements it has, or one of those.
fn counts(line: &str) -> bool {
    (line.starts_with("set ") || line.starts_with("element ")) && line.contains("conns")
}

/// The rules without the handles that the kernel counts up with each table, chain, set and rule.
fn without_counts(lines: Vec<String>) -> Vec<String> {
    let mut names: Vec<_> = lines
        .into_iter()
        .map(|line| {
            let mut words: Vec<_> = line.split(' ').collect();
            // Handles and ids are numbers of 4 or 8 bytes in hexadecimal, and differ from one set-up to the next.
            words.retain(|word| {
                let value = word.split_once('=').map_or("", |(_, value)| value);
                !(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()))
            });
            words.join(" ")
        })
        .collect();
    names.sort_unstable();
    names
}

/// I1, I3, I4, I6: a box that keeps sending, a neighbour who keeps trying, and a firewall that is wiped again and again. (The
/// lab fails if a packet of the pool is ever seen outside.)
fn nothing_leaks_while_rules_are_flushed_and_put_back() {
    let lab = Lab::new(Shape::OwnLan);
    let any = |port| at(Ipv4Addr::UNSPECIFIED, port);
    let services = [Service::tcp(lab.host_place(), any(22)), Service::udp(lab.host_place(), any(5354))];
    lab.client(|| {
        links::route(Ipv4Addr::new(10, 0, 0, 0).into(), 8, HOST_LAN.into());
        links::route(Ipv4Addr::new(198, 51, 100, 0).into(), 24, HOST_LAN.into());
    });
    let running = lab.start(&["-p", "8080:80"], &["listen", "udp", "0.0.0.0:53"]);
    wait_until_watched(&running, &[]);
    for _ in 0..8 {
        nftables::flush();
        running.inside(|| {
            for address in [HOST, HOST_LAN] {
                let _ = connects(at(address, 22));
                assert_eq!(answered(at(address, 5354)), None, "{address}");
            }
            let seen = answered(wan());
            assert!(seen.is_none_or(|source| source.ip() == IpAddr::V4(HOST)), "{seen:?}");
        });
        lab.client(|| {
            assert_eq!(answered(at(running.address, 53)), None, "the neighbour reached the box");
            assert_eq!(answered(wan()), None, "the host is a router");
        });
    }
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);
    assert_egress(&running, "at the end");
}

/// I6.
fn a_box_with_a_port_starts_while_rules_are_flushed() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&[], &["sleep"]);
    // Before anybody listens, or after: it must work either way.
    nftables::flush();
    let server = lab.start(&["-p", "8080:80"], &SERVER);
    lab.client(|| assert!(connects(at(HOST_LAN, 8080)), "the published port"));
    assert_egress(&first, "of the box before");
    assert_egress(&server, "of the new box");
}

/// L2, I6: the rules go at the same moment as the keeper that would have put them back.
fn the_next_keeper_puts_rules_back_when_the_first_was_killed() {
    let lab = Lab::new(Shape::OwnLan);
    let mut first = lab.start(&["-p", "8081:80"], &SERVER);
    wait_until_watched(&first, &[]);
    let second = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&first, &[&second]);
    let third = lab.start(&[], &["sleep"]);
    wait_until_watched(&first, &[&second, &third]);
    // Stopped, so that it cannot be quicker than the next line.
    send(keeper(&first), Signal::SIGSTOP);
    nftables::flush();
    send(keeper(&first), Signal::SIGKILL);
    assert_egress(&second, "after the death of the first keeper");
    lab.client(|| within(A_SECOND, "the published port", || connects(at(HOST_LAN, 8080))));
    assert_eq!(first.wait().code(), Some(125));
    within(A_SECOND, "the second listens", || listens(&second));
    assert!(!listens(&third));
}

/// I6, L1.
fn the_next_keeper_puts_rules_back_when_the_first_has_ended() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&[], &["sleep"]);
    wait_until_watched(&first, &[]);
    let (second, third) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    wait_until_watched(&first, &[&second, &third]);
    assert_eq!(first.end().code(), Some(143));
    // While the keeper of the first still lingers, nobody listens.
    nftables::flush();
    assert_egress(&second, "after the end of the first box");
    assert_egress(&third, "after the end of the first box");
}

/// L2, I4, I6: at many moments of a repair of everything, from before its beginning until after its end.
fn the_first_keeper_killed_in_the_middle_of_a_repair() {
    let lab = Lab::new(Shape::OwnLan);
    lab.client(|| links::route(Ipv4Addr::new(198, 51, 100, 0).into(), 24, HOST_LAN.into()));
    let mut first = lab.start(&[], &["sleep"]);
    wait_until_watched(&first, &[]);
    for round in 0..16 {
        let second = lab.start(&["-p", "8080:80"], &SERVER);
        wait_until_watched(&first, &[&second]);
        let victim = keeper(&first);
        nftables::flush();
        links::remove_rules(90..=92);
        if round % 2 == 0 {
            links::remove(&own_link());
        }
        // Not to wait for anything: to strike elsewhere in each round.
        let_pass(Duration::from_micros(round * 250));
        send(victim, Signal::SIGKILL);
        assert_eq!(first.wait().code(), Some(125));
        assert_egress(&second, &format!("after round {round}"));
        lab.client(|| {
            within(A_SECOND, "the published port", || connects(at(HOST_LAN, 8080)));
            assert_eq!(answered(wan()), None, "the host is a router, round {round}");
        });
        within(A_SECOND, "rules and routes are whole", || {
            let (rules, routes) = routing();
            (rules.len(), routes.len()) == (4, 3)
        });
        second.signal(Signal::SIGTERM);
        first = lab.start(&[], &["sleep"]);
        // Its predecessor still lingers, or is gone.
        within(A_SECOND, "the next listens", || listens(&first));
        drop(second);
    }
}

/// Who is a member of a multicast group of nf_tables' in this namespace: each makes every change slower.
fn rule_listeners() -> usize {
    const NETFILTER: &str = "12";
    let table = fs::read_to_string("/proc/net/netlink").expect("the netlink sockets");
    // sk Eth Pid Groups …
    let words = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|of| of[1] == NETFILTER && of[3] != "00000000").count()
}

/// C2: nf_tables listeners make every change slower.
fn one_keeper_listens_for_all() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&[], &["sleep"]);
    wait_until_watched(&first, &[]);
    let others: Vec<_> = (0..5).map(|_| lab.start(&[], &["sleep"])).collect();
    wait_until_watched(&first, &others.iter().collect::<Vec<_>>());
    assert_eq!(rule_listeners(), 1);
}

/// How often a process has gone to sleep.
fn sleeps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("a count").trim().parse().expect("a number")
}

/// C3: not by their ports, which change the host's rules; nor does the end of a box wake all others.
fn a_resting_keeper_is_not_woken_by_other_boxes() {
    let lab = Lab::new(Shape::OwnLan);
    let first = lab.start(&["-p", "8079:80"], &["sleep"]);
    wait_until_watched(&first, &[]);
    let second = lab.start(&[], &["sleep"]);
    wait_until_watched(&first, &[&second]);
    let keepers = [keeper(&first), keeper(&second)];
    let resting = || keepers.map(sleeps);
    // The kernel may take a second to notice that both ends of a link are up.
    within(2 * A_SECOND, "the links have settled", links::all_running);
    let stay_at_rest = || {
        // They have a last look.
        let before = settled(Duration::from_millis(250), 6 * A_SECOND, resting);
        for _ in 0..5 {
            assert!(lab.run(&["-p", "8080:80"], &["exit", "0"]).status.success());
        }
        // One that stands in the line itself, behind both.
        let third = lab.start(&["-p", "8080:80"], &["sleep"]);
        wait_until_watched(&first, &[&third]);
        third.end();
        resting() == before
    };
    // The kernel's own late news of the host's links may come at any time; other boxes would wake them every time.
    assert!((0..3).any(|_| stay_at_rest()), "woken each time");
}

/// N2, I1.
fn an_address_that_comes_is_fenced_and_serves_published_ports() {
    let lab = Lab::new(Shape::OwnLan);
    let service = Service::tcp(lab.host_place(), at(Ipv4Addr::UNSPECIFIED, 22));
    let _server = lab.start(&["-p", "8080:80"], &SERVER);
    let running = lab.start(&[], &["sleep"]);
    let new = Ipv4Addr::new(203, 0, 113, 1);
    links::address("hw", new.into(), 24);
    running.inside(|| {
        within(A_SECOND, "the port is reached at the new address", || {
            assert!(!connects(at(new, 22)), "a service of the host");
            connects(at(new, 8080))
        });
        assert!(!connects(at(new, 22)), "a service of the host");
    });
    assert_eq!(service.visits(), 0);
    links::remove_address("hw", new.into(), 24);
    running.inside(|| within(A_SECOND, "the port is not there any more", || !connects(at(new, 8080))));
}

/// I1: as a virtual address does that moves from one machine to another.
fn an_address_that_moves_to_the_host_is_fenced_from_who_talked_with_it() {
    let lab = Lab::new(Shape::OwnLan);
    let moving = Ipv4Addr::new(203, 0, 113, 1);
    lab.wan(|| links::address("w0", moving.into(), 32));
    let _outside = Service::udp(lab.wan_place(), at(moving, 4007));
    let running = lab.start(&[], &["sleep"]);
    let socket = running.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind"));
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    socket.connect(at(moving, 4007)).expect("a route");
    let ask = || socket.send(b"who am I?").and_then(|_| socket.recv(&mut [0; 64]));
    ask().expect("an answer from outside");
    lab.wan(|| links::remove_address("w0", moving.into(), 32));
    links::address("hw", moving.into(), 32);
    let service = Service::udp(lab.host_place(), at(moving, 4007));
    // Each time anew: an error that was told once is not told with the next.
    for _ in 0..3 {
        assert!(ask().is_err(), "a service of the host");
    }
    assert_eq!(service.visits(), 0);
    links::remove_address("hw", moving.into(), 32);
}

/// Another outside, by a link `h2` of the host's.
fn second_outside() -> (Place, Service) {
    let outside = Place::new();
    links::veth("h2", "o0", outside.file());
    outside.run(|| {
        links::up("o0");
        links::address("o0", SECOND_WAN.into(), 24);
        links::route(Ipv4Addr::UNSPECIFIED.into(), 0, SECOND_HOST.into());
    });
    let service = Service::udp(&outside, at(Ipv4Addr::UNSPECIFIED, ECHO));
    (outside, service)
}

const SECOND_WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SECOND_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// N1, I4: from Wi-Fi to cable, or a VPN: the box's packets take it, and it makes the host no router for others.
fn a_new_uplink_carries_boxes() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    let (outside, service) = second_outside();
    lab.client(|| links::route(Ipv4Addr::new(203, 0, 113, 0).into(), 24, HOST_LAN.into()));
    links::up("h2");
    links::address("h2", SECOND_HOST.into(), 24);
    let there = at(SECOND_WAN, ECHO);
    running.inside(|| {
        within(A_SECOND, "egress by the new uplink", || {
            answered(there).is_some_and(|source| source.ip() == IpAddr::V4(SECOND_HOST))
        });
    });
    outside.run(|| within(A_SECOND, "the published port", || connects(at(SECOND_HOST, 8080))));
    let visits = service.visits();
    lab.client(|| assert_eq!(answered(there), None, "the host is a router for the neighbour"));
    let neighbour = Service::udp(lab.client_place(), at(Ipv4Addr::UNSPECIFIED, 5354));
    for flushed in [false, true] {
        if flushed {
            nftables::flush();
        }
        outside.run(|| assert_eq!(answered(at(lab.client_address(), 5354)), None, "flushed {flushed}"));
    }
    assert_eq!((service.visits(), neighbour.visits()), (visits, 0));
    assert_egress(&running, "by the old uplink");
    links::remove("h2");
    assert_egress(&running, "when the new uplink is gone");
    assert_eq!(running.end().code(), Some(143));
}

fn wan6() -> SocketAddr {
    SocketAddr::from((WAN6, ECHO))
}

/// N1, I1, I6: rules, routing rules, routes and the link; and an address that comes.
fn what_is_of_ipv6_comes_back_as_well() {
    let lab = Lab::new(Shape::OwnLan);
    let service = Service::tcp(lab.host_place(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 22)));
    let running = lab.start(&[], &["sleep"]);
    wait_until_watched(&running, &[]);
    let reached = || running.inside(|| probe::udp(wan6()).reached());
    assert!(reached(), "to begin with");
    let deeds: [(&str, fn()); 3] = [
        ("a flush of the rules", nftables::flush),
        ("the end of the routing rules", || links::remove_rules6(90..=92)),
        ("the end of the link", || links::remove(&own_link())),
    ];
    for (what, deed) in deeds {
        deed();
        within(2 * A_SECOND, &format!("egress over IPv6 after {what}"), reached);
    }
    let new = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x77);
    links::address("hw", new.into(), 64);
    running.inside(|| assert!(!probe::tcp(SocketAddr::from((new, 22))).reached()));
    assert_eq!(service.visits(), 0);
    links::remove_address("hw", new.into(), 64);
}

/// N1, I4: `net.ipv6.conf.all.forwarding` resets what netbox has switched.
fn ipv6_forwarding_switched_by_somebody() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    wait_until_watched(&running, &[]);
    let reached = || running.inside(|| probe::udp(wan6()).reached());
    for value in ["1", "0"] {
        sysctl("net/ipv6/conf/all/forwarding", value);
        within(2 * A_SECOND, &format!("egress over IPv6 on a host with forwarding {value}"), reached);
    }
    // Nobody but boxes.
    lab.client(|| links::route(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0).into(), 64, HOST_LAN6.into()));
    lab.client(|| assert!(!probe::udp(wan6()).reached(), "a router"));
}

/// N1.
const SAID: &str = "/run/lab/said";

/// What Docker does all day. Only what somebody takes away from netbox is a fight.
fn interfaces_that_come_and_go_are_followed_without_a_word() {
    let lab = Lab::new(Shape::OwnLan);
    let elsewhere = Place::new();
    let mut command = lab.run_command(&[], &SERVER);
    let log = fs::File::create(SAID).expect("a file for what netbox says");
    let running = lab.start_command(command.stderr(log));
    wait_until_watched(&running, &[]);
    // More often than netbox puts things back without a word.
    for round in 0..20 {
        let name = format!("f{round}");
        links::veth(&name, "o0", elsewhere.file());
        elsewhere.run(|| links::up("o0"));
        links::up(&name);
        links::address(&name, SECOND_HOST.into(), 24);
        let forwarding = format!("net/ipv4/conf/{name}/forwarding");
        within(A_SECOND, &name, || read_sysctl(&forwarding) == "1");
        links::remove(&name);
    }
    assert_eq!(running.end().code(), Some(143));
    assert_eq!(fs::read_to_string(SAID).expect("what netbox said"), "");
}

fn an_uplink_goes_down_and_up() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&[], &["sleep"]);
    links::down("hw");
    running.inside(|| assert_eq!(answered(wan()), None));
    links::up("hw");
    links::route(Ipv4Addr::UNSPECIFIED.into(), 0, WAN.into());
    // The kernel may take a second to notice.
    within(2 * A_SECOND, "the link has its carrier", links::all_running);
    assert_egress(&running, "when the uplink is up again");
    // IPv6 loses its addresses with the link, whoever set it down.
    drop(running);
    links::address("hw", crate::lab::HOST6.into(), 64);
    links::route(std::net::Ipv6Addr::UNSPECIFIED.into(), 0, crate::lab::WAN6.into());
}

/// I4: the switch goes with the interface to its new name, and so must the restriction.
fn a_renamed_uplink_makes_no_router() {
    let lab = Lab::new(Shape::OwnLan);
    let neighbour = Service::udp(lab.client_place(), at(Ipv4Addr::UNSPECIFIED, 5354));
    let running = lab.start(&[], &["sleep"]);
    wait_until_watched(&running, &[]);
    links::rename("hw", "uplink");
    let restricted = || nftables::ruleset().iter().any(|line| line.contains(&hex("uplink")));
    within(A_SECOND, "the new name is restricted", restricted);
    lab.wan(|| assert_eq!(answered(at(lab.client_address(), 5354)), None));
    assert_eq!(neighbour.visits(), 0);
    assert_egress(&running, "by the renamed uplink");
    assert_eq!(running.end().code(), Some(143));
    assert_eq!(read_sysctl("net/ipv4/conf/uplink/forwarding"), "0");
    links::rename("uplink", "hw");
}

fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// I4: Docker, started while a box runs, makes the host a router: netbox restricts it no longer, and leaves it so.
fn forwarding_switched_on_by_somebody_is_theirs() {
    let lab = Lab::new(Shape::OwnLan);
    lab.client(|| links::route(Ipv4Addr::new(198, 51, 100, 0).into(), 24, HOST_LAN.into()));
    let running = lab.start(&[], &["sleep"]);
    wait_until_watched(&running, &[]);
    lab.client(|| assert_eq!(answered(wan()), None, "a router before anybody asked for it"));
    sysctl("net/ipv4/ip_forward", "1");
    lab.client(|| within(A_SECOND, "the host is a router", || answered(wan()).is_some()));
    assert_egress(&running, "on a router");
    assert_eq!(running.end().code(), Some(143));
    assert_eq!(read_sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(read_sysctl("net/ipv4/conf/hw/forwarding"), "1", "it is theirs");
    sysctl("net/ipv4/ip_forward", "0");
}

/// N1, I4.
fn forwarding_switched_off_by_somebody_is_on_again_for_boxes_alone() {
    let lab = Lab::before(Shape::OwnLan, || sysctl("net/ipv4/ip_forward", "1"));
    lab.client(|| links::route(Ipv4Addr::new(198, 51, 100, 0).into(), 24, HOST_LAN.into()));
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    lab.client(|| within(A_SECOND, "the host is a router", || answered(wan()).is_some()));
    sysctl("net/ipv4/ip_forward", "0");
    assert_egress(&running, "when forwarding was switched off");
    lab.client(|| {
        assert_eq!(answered(wan()), None, "still a router");
        within(A_SECOND, "the published port", || connects(at(HOST_LAN, 8080)));
    });
    assert_eq!(read_sysctl("net/ipv4/ip_forward"), "0");
    assert_eq!(running.end().code(), Some(143));
    for link in ["hw", "hc"] {
        assert_eq!(read_sysctl(&format!("net/ipv4/conf/{link}/forwarding")), "0");
    }
    sysctl("net/ipv4/ip_forward", "1");
}

/// N2, I3: by a network manager, or `ip rule flush`.
fn removed_routing_rules_and_routes_are_back_within_a_second() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    let before = routing();
    assert_eq!(before.0.len(), 4, "{before:?}");
    let deeds: [(&str, fn()); 4] = [
        ("rules", || links::remove_rules(90..=92)),
        ("the pool's route", || links::remove_routes(|table, _| table == 0x6e62)),
        ("the blackhole", || links::remove_routes(|table, _| table == 0x6e63)),
        ("the unreachable route", || links::remove_routes(|table, kind| table == 254 && kind == 7)),
    ];
    for (what, deed) in deeds {
        deed();
        within(A_SECOND, &format!("{what} are as before"), || routing() == before);
        assert_egress(&running, what);
        lab.client(|| within(A_SECOND, what, || connects(at(HOST_LAN, 8080))));
    }
}

/// netbox's routing rules and routes.
fn routing() -> (Vec<String>, Vec<String>) {
    links::owned_by(0x6e)
}

fn own_link() -> String {
    links::names().into_iter().find(|name| name.starts_with("nb")).expect("the gateway's link")
}

/// N1, N2: connections of the box go on.
fn a_removed_link_is_made_again() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    links::remove(&own_link());
    assert_egress(&running, "by a new link");
    lab.client(|| within(A_SECOND, "the published port", || connects(at(HOST_LAN, 8080))));
    assert!(!running.inside(|| connects(at(HOST, 22))));
}

/// N1.
fn a_link_that_was_set_down_renamed_or_moved_is_back() {
    let lab = Lab::new(Shape::OwnLan);
    let running = lab.start(&["-p", "8080:80"], &SERVER);
    wait_until_watched(&running, &[]);
    let name = own_link();
    let elsewhere = Place::new();
    for what in ["down", "renamed", "moved"] {
        match what {
            "down" => links::down(&name),
            "renamed" => links::rename(&name, "stolen"),
            _ => links::move_to(&name, elsewhere.file()),
        }
        assert_egress(&running, &format!("after the link was {what}"));
        lab.client(|| within(A_SECOND, what, || connects(at(HOST_LAN, 8080))));
        assert_eq!(own_link(), name);
    }
    assert!(!links::names().contains(&"stolen".to_owned()));
    assert_eq!(elsewhere.run(links::names), ["lo"]);
}

/// N1: a tunnel, or a mobile network: what is too large is answered, as on the host itself.
fn a_lower_mtu_of_the_uplink_reaches_boxes() {
    let lab = Lab::before(Shape::OwnLan, || {});
    let running = lab.start(&[], &["sleep"]);
    links::set_mtu("hw", 1300);
    let known = running.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("to bind");
        socket.connect(wan()).expect("to connect");
        within(A_SECOND, "the path's MTU is known", || {
            // EMSGSIZE, once it is known.
            let _ = socket.send(&[0; 1400]);
            probe::path_mtu(&socket) == 1300
        });
        probe::path_mtu(&socket)
    });
    assert_eq!(known, 1300);
    links::set_mtu("hw", 1500);
}
