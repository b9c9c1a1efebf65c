//! Names in the box (promise N4).

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use domain::base::message_builder::MessageBuilder;
use domain::base::name::Name;
use domain::base::{Message, Rtype};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::lab::name_server::{MANY, NameServer, read_framed, write_framed};
use crate::lab::{
    HOST, Lab, RunningBox, Shape, WAN, live_tests, outcome, probe, read_sysctl, send, wait_until, words,
};

live_tests![
    names_resolve_through_a_resolver_on_the_hosts_loopback,
    names_resolve_through_a_name_server_outside,
    names_resolve_through_a_link_local_name_server,
    names_resolve_in_a_box_that_is_a_name_server_itself,
    names_resolve_while_the_host_drops_what_comes_in,
    the_resolver_follows_the_host_and_the_boxs_file_stays,
    a_link_in_place_of_the_file_is_no_obstacle,
    without_a_file_there_is_a_warning_and_no_name,
    without_a_name_server_the_answer_comes_at_once,
    the_next_server_is_asked_when_one_is_silent_or_fails,
    a_long_answer_is_truncated_or_comes_by_tcp,
    what_is_malformed_is_refused_or_dropped,
    two_hundred_questions_at_once_are_answered,
    a_resolver_that_is_killed_is_started_again,
    a_box_can_neither_use_nor_exhaust_the_resolver_of_another,
    a_box_that_asks_for_names_uses_up_no_connections,
    helpers_have_no_privileges,
    the_name_servers_asked_for_are_asked_instead_of_the_hosts,
    domains_and_hosts_asked_for_are_in_the_boxs_files_alone,
    the_sockets_of_the_hosts_name_services_are_hidden,
    a_box_without_a_network_has_no_way_to_names,
];

/// What servers of the tests say.
const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Where systemd-resolved listens.
const STUB: &str = "127.0.0.53";

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The lab with an /etc of its own, in which resolv.conf says this.
pub(crate) fn lab(resolv_conf: &str) -> Lab {
    lab_with(|| fs::write(RESOLV_CONF, resolv_conf).expect("a file in the lab's own /etc"))
}

pub(crate) fn lab_with(prepare: impl FnOnce()) -> Lab {
    Lab::before(Shape::OwnLan, || {
        let kept =
            ["passwd", "group"].map(|name| (name, fs::read(format!("/etc/{name}")).unwrap_or_default()));
        let none: Option<&str> = None;
        mount(Some("tmpfs"), "/etc", Some("tmpfs"), MsFlags::empty(), none)
            .expect("an /etc of the lab's own");
        for (name, text) in kept {
            fs::write(format!("/etc/{name}"), text).expect("a file in it");
        }
        fs::write("/etc/nsswitch.conf", "hosts: files dns\n").expect("a file in it");
        fs::write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.99 known old.known\n").expect("a file in it");
        prepare();
    })
}

fn nameserver(address: impl std::fmt::Display) -> String {
    format!("nameserver {address}\n")
}

fn dns(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), 53)
}

/// The resolver on the host's loopback.
fn stub(lab: &Lab, says: Ipv4Addr) -> NameServer {
    NameServer::start(lab.host_place(), dns(STUB), says)
}

/// As NetworkManager and systemd-resolved replace it.
fn replace(resolv_conf: &str) {
    fs::write("/etc/resolv.conf.new", resolv_conf).expect("a file in the lab's own /etc");
    fs::rename("/etc/resolv.conf.new", RESOLV_CONF).expect("to rename it");
}

/// What the C library finds in a box of its own.
fn resolved(lab: &Lab, options: &[&str], name: &str) -> Option<IpAddr> {
    let outcome = outcome(&lab.run(options, &["resolve", name]));
    outcome.seen_as()
}

/// The box's resolver.
pub(crate) fn resolver(running: &RunningBox) -> SocketAddr {
    let slot = u32::from(running.address) & ((1 << 14) - 1);
    SocketAddr::from((Ipv4Addr::from(u32::from(Ipv4Addr::new(169, 254, 64, 0)) + slot), 53))
}

fn question(name: &str, room: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x4242);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((Name::<Vec<u8>>::from_str(name).expect("a name"), Rtype::A)).expect("room");
    let mut builder = builder.additional();
    if let Some(room) = room {
        let size = |opt: &mut domain::base::message_builder::OptBuilder<'_, _>| {
            opt.set_udp_payload_size(room);
            Ok(())
        };
        builder.opt(size).expect("room");
    }
    builder.finish()
}

/// The answer to a datagram, sent from where this thread is. `None`: there was none in time.
fn exchange(to: SocketAddr, message: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("to bind");
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(patience)).expect("a time-out");
    socket.send(message).ok()?;
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

const PATIENCE: Duration = Duration::from_secs(5);

/// Return code, whether it is truncated, and the number of records.
fn summary(answer: &[u8]) -> (Rcode, bool, u16) {
    let message = Message::from_slice(answer).expect("a message");
    assert_eq!(message.header().id(), 0x4242);
    (message.header().rcode(), message.header().tc(), message.header_counts().ancount())
}

fn ask(to: SocketAddr, name: &str, room: Option<u16>) -> (Rcode, bool, u16) {
    summary(&exchange(to, &question(name, room), PATIENCE).expect("an answer"))
}

/// The processes with this name.
pub(crate) fn processes(name: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("the processes").flatten();
    all.filter_map(|entry| {
        let own = fs::read_to_string(entry.path().join("comm")).ok()?;
        (own.trim() == name).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
    .collect()
}

/// N4: as with systemd-resolved's stub, which no packet of a box can reach.
fn names_resolve_through_a_resolver_on_the_hosts_loopback() {
    let lab = lab(&nameserver(STUB));
    let server = stub(&lab, FIRST);
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
    assert_eq!(resolved(&lab, &[], "gone.example.org"), None);
    assert!(server.datagrams() >= 2);
}

/// N4: as with a plain resolv.conf.
fn names_resolve_through_a_name_server_outside() {
    let lab = lab(&nameserver(WAN));
    let server = NameServer::start(lab.wan_place(), dns(&WAN.to_string()), FIRST);
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
    assert_eq!(resolved(&lab, &[], "forged.example.org"), Some(FIRST.into()), "a forged answer came first");
    assert!(server.datagrams() > 0);
    assert!(processes("netbox-resolver").is_empty(), "it is gone with its box");
}

/// N4: as a router announces itself (RFC 8106), though the box has no IPv6.
fn names_resolve_through_a_link_local_name_server() {
    let lab = lab("");
    let all = lab.wan(|| fs::read_to_string("/proc/thread-self/net/if_inet6").expect("its addresses"));
    let line =
        all.lines().find(|line| line.starts_with("fe80") && line.ends_with(" w0")).expect("a link-local one");
    let number = u128::from_str_radix(&line[..32], 16).expect("a number");
    let address = std::net::Ipv6Addr::from(number);
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 53));
    let _server = NameServer::start(lab.wan_place(), any, FIRST);
    fs::write(RESOLV_CONF, nameserver(format!("{address}%hw"))).expect("a file in the lab's own /etc");
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
    assert_eq!(resolved(&lab, &["--dns", &format!("{address}%hw")], "www.example.org"), Some(FIRST.into()));
}

/// N4: the resolver's port 53 is not the box's.
fn names_resolve_in_a_box_that_is_a_name_server_itself() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let running = lab.start(&[], &["listen", "udp", "0.0.0.0:53"]);
    let to = resolver(&running);
    assert_eq!(running.inside(|| ask(to, "www.example.org", None)), (Rcode::NOERROR, false, 1));
    let own = running.inside(|| probe::udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 53))));
    assert!(own.reached(), "{own}");
}

/// N4: the resolver's sockets are not behind the host's INPUT chain.
fn names_resolve_while_the_host_drops_what_comes_in() {
    if !crate::lab::peers() {
        return;
    }
    let rules = "table inet fw { chain input { type filter hook input priority 0; policy drop; iif lo accept; \
                 ct state established,related accept; }; chain output { type filter hook output priority 0; }; }";
    let lab = lab_with(|| {
        fs::write(RESOLV_CONF, nameserver(WAN)).expect("a file in the lab's own /etc");
        let done = Command::new("nft").arg(rules).status().expect("nft(8) is needed");
        assert!(done.success());
    });
    let _server = NameServer::start(lab.wan_place(), dns(&WAN.to_string()), FIRST);
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
}

/// N4: the host changes networks while a box runs. What is mounted over a file goes with that, and comes back.
fn the_resolver_follows_the_host_and_the_boxs_file_stays() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let _other = NameServer::start(lab.wan_place(), dns(&WAN.to_string()), SECOND);
    let running = lab.start(&["--add-host", "db:192.0.2.7"], &["sleep"]);
    let (to, at) = (resolver(&running), format!("/proc/{}/root", running.pid));
    let own = fs::read_to_string(format!("{at}{RESOLV_CONF}")).expect("the box's file");
    assert!(own.contains(&nameserver(to.ip())), "{own}");
    let address = || {
        let answer = running.inside(|| exchange(to, &question("www.example.org", None), PATIENCE));
        answer.expect("an answer").last_chunk::<4>().copied()
    };
    assert_eq!(address(), Some(FIRST.octets()));
    for (round, says) in [(1, SECOND), (2, FIRST), (3, SECOND)] {
        let text = nameserver(if says == FIRST { STUB.to_owned() } else { WAN.to_string() });
        if round == 3 {
            // Not by rename, and with nothing there for a moment.
            fs::remove_file(RESOLV_CONF).expect("to remove it");
            wait_until("the box sees that", || !fs::exists(format!("{at}{RESOLV_CONF}")).unwrap_or(true));
            fs::write(RESOLV_CONF, &text).expect("a new one");
        } else {
            replace(&text);
        }
        assert_eq!(address(), Some(says.octets()), "the resolver, in round {round}");
        let is_own = || fs::read_to_string(format!("{at}{RESOLV_CONF}")).is_ok_and(|text| text == own);
        wait_until("the box has its own file again", is_own);
        assert_eq!(fs::read_to_string(RESOLV_CONF).expect("the host's file"), text);
    }
    fs::write("/etc/hosts.new", "127.0.0.1 localhost\n").expect("a file");
    fs::rename("/etc/hosts.new", "/etc/hosts").expect("to rename it");
    let has_own =
        || fs::read_to_string(format!("{at}/etc/hosts")).is_ok_and(|text| text.contains("192.0.2.7"));
    wait_until("the box has its own hosts again", has_own);
}

/// N4: /etc/resolv.conf as a link to a file of systemd-resolved's, and as one that leads nowhere.
fn a_link_in_place_of_the_file_is_no_obstacle() {
    let lab = lab_with(|| {
        fs::create_dir_all("/run/systemd/resolve").expect("a directory");
        fs::write("/run/systemd/resolve/stub-resolv.conf", nameserver(STUB)).expect("a file");
        std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", RESOLV_CONF).expect("a link");
    });
    let _server = stub(&lab, FIRST);
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
    let seen = lab.run(&[], &["cat", "/run/systemd/resolve/stub-resolv.conf"]);
    assert!(words(&seen).contains("nameserver 169.254."), "{}", words(&seen));
    // The link leads nowhere; the servers are found where systemd-resolved keeps them.
    fs::remove_file(RESOLV_CONF).expect("to remove it");
    std::os::unix::fs::symlink("/nowhere", RESOLV_CONF).expect("a link");
    assert_eq!(resolved(&lab, &[], "www.example.org"), Some(FIRST.into()));
}

/// N4, the other way round: nothing is put into the host's /etc.
fn without_a_file_there_is_a_warning_and_no_name() {
    let lab = lab_with(|| {});
    let output = lab.run(&[], &["exit", "0"]);
    assert!(output.status.success(), "{}", words(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the host has no /etc/resolv.conf"),
        "{}",
        words(&output)
    );
    for (option, value) in [("--dns", "192.0.2.53"), ("--dns-search", "example.org")] {
        let output = lab.run(&[option, value], &["exit", "0"]);
        assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    }
    assert!(!fs::exists(RESOLV_CONF).unwrap_or(true));
}

/// N4: SERVFAIL, and no time-out.
fn without_a_name_server_the_answer_comes_at_once() {
    let lab = lab("search example.org\n");
    let running = lab.start(&["--verbose"], &["sleep"]);
    let (to, began) = (resolver(&running), Instant::now());
    assert_eq!(running.inside(|| ask(to, "www.example.org", None)), (Rcode::SERVFAIL, false, 0));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

/// N4: `timeout` and the order of resolv.conf(5), within the patience of the box's program.
fn the_next_server_is_asked_when_one_is_silent_or_fails() {
    let lab = lab(&(nameserver("127.0.0.2") + &nameserver(STUB)));
    let _server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    let began = Instant::now();
    assert_eq!(running.inside(|| ask(to, "www.example.org", None)), (Rcode::NOERROR, false, 1));
    assert!(began.elapsed() < Duration::from_millis(500), "nobody is there: {:?}", began.elapsed());
    assert_eq!(running.inside(|| ask(to, "fails.example.org", None)), (Rcode::SERVFAIL, false, 0));
    let held = UdpSocket::bind("127.0.0.2:53").expect("to bind");
    assert_eq!(
        running.inside(|| ask(to, "www.example.org", None)),
        (Rcode::NOERROR, false, 1),
        "one is silent"
    );
    drop(held);
}

/// N4: EDNS as it came, truncation, and TCP.
fn a_long_answer_is_truncated_or_comes_by_tcp() {
    let lab = lab(&nameserver(STUB));
    let server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    running.inside(|| {
        assert_eq!(ask(to, "large.example.org", None), (Rcode::NOERROR, true, 0));
        assert_eq!(ask(to, "large.example.org", Some(4096)), (Rcode::NOERROR, false, MANY.into()));
        let mut stream = TcpStream::connect(to).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // Two at once, and the second in two parts.
        write_framed(&mut stream, &question("large.example.org", None)).expect("to send");
        let second = question("www.example.org", None);
        let framed = [&[0, u8::try_from(second.len()).expect("short")][..], &second].concat();
        stream.write_all(&framed[..5]).expect("to send");
        stream.write_all(&framed[5..]).expect("to send");
        let mut counts = [(); 2].map(|()| summary(&read_framed(&mut stream).expect("an answer")).2);
        counts.sort_unstable();
        assert_eq!(counts, [1, MANY.into()]);
        stream.shutdown(std::net::Shutdown::Write).expect("to close");
        assert!(read_framed(&mut stream).is_none(), "the end");
    });
    assert_eq!(server.streams(), 1, "what did not fit into a datagram was asked again by TCP");
}

/// N4: hostile bytes.
fn what_is_malformed_is_refused_or_dropped() {
    let lab = lab(&nameserver(STUB));
    let server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    running.inside(|| {
        let good = question("www.example.org", None);
        let (mut trailing, mut reply, mut two) = (good.clone(), good.clone(), good.clone());
        trailing.push(0);
        reply[2] |= 0x80;
        two[5] = 2;
        for bad in [&trailing[..], &two, &good[..20], &vec![0x42; 60_000]] {
            let mut bad = bad.to_vec();
            bad[..2].copy_from_slice(&[0x42, 0x42]);
            let said = exchange(to, &bad, PATIENCE).expect("an answer");
            assert!(matches!(summary(&said).0, Rcode::FORMERR | Rcode::NOTIMP), "{said:?}");
        }
        let brief = Duration::from_millis(100);
        for ignored in [&b""[..], b"x", &good[..11], &reply] {
            assert_eq!(exchange(to, ignored, brief), None, "{ignored:?}");
        }
        // By TCP: nothing, an empty message, one that is too long, and half of one.
        for bad in [&b""[..], &[0, 0], &[0xff, 0xff, 1, 2, 3], &[0, 20, 1, 2, 3]] {
            let mut stream = TcpStream::connect(to).expect("a connection");
            stream.write_all(bad).expect("to send");
        }
        assert_eq!(ask(to, "www.example.org", None), (Rcode::NOERROR, false, 1));
    });
    assert_eq!(server.datagrams(), 1, "nothing of that was passed on");
}

/// N4: at once, also beside questions that nobody answers.
fn two_hundred_questions_at_once_are_answered() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    running.inside(|| {
        let sockets: Vec<_> = (0..200)
            .map(|number| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("to bind");
                socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                let name = if number % 8 == 0 { "silent" } else { "www" };
                socket.send_to(&question(&format!("{name}.n{number}.test"), None), to).expect("to send");
                (number, socket)
            })
            .collect();
        let mut buffer = [0; 512];
        for (_, socket) in sockets.iter().filter(|(number, _)| number % 8 != 0) {
            let length = socket.recv(&mut buffer).expect("an answer");
            assert_eq!(summary(&buffer[..length]), (Rcode::NOERROR, false, 1));
        }
    });
}

/// N4, L2: it is nothing that the box depends on for longer than a question.
fn a_resolver_that_is_killed_is_started_again() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    assert!(processes("netbox-resolver").is_empty(), "nobody has asked yet");
    for _ in 0..3 {
        assert_eq!(running.inside(|| ask(to, "www.example.org", None)), (Rcode::NOERROR, false, 1));
        let [own] = processes("netbox-resolver")[..] else { panic!("one resolver") };
        send(own, Signal::SIGKILL);
        wait_until("it is gone", || processes("netbox-resolver").is_empty());
    }
    assert!(running.end().code().is_some());
    assert!(processes("netbox-resolver").is_empty());
}

/// N4, I2: one for each box.
fn a_box_can_neither_use_nor_exhaust_the_resolver_of_another() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let (one, other) = (lab.start(&[], &["sleep"]), lab.start(&[], &["sleep"]));
    let (own, others) = (resolver(&one), resolver(&other));
    one.inside(|| {
        assert_eq!(exchange(others, &question("www.test", None), Duration::from_millis(300)), None);
        let refused = TcpStream::connect_timeout(&others, Duration::from_secs(1));
        assert!(refused.is_err(), "a connection to another box's resolver");
        let closed = TcpStream::connect_timeout(&SocketAddr::new(own.ip(), 54), Duration::from_secs(1));
        assert!(closed.is_err(), "another port");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("to bind");
        for number in 0..5000 {
            // The queue may be full.
            let _ = socket.send_to(&question(&format!("silent.n{number}.test"), None), own);
        }
        let connections: Vec<_> = (0..100).map(|_| TcpStream::connect(own).expect("a connection")).collect();
        let began = Instant::now();
        assert_eq!(other.inside(|| ask(others, "www.example.org", None)), (Rcode::NOERROR, false, 1));
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        drop(connections);
    });
}

/// I2: the host's connection tracking table and its ports, which the questions take although the box's own are not tracked.
fn a_box_that_asks_for_names_uses_up_no_connections() {
    let lab = lab(&nameserver(STUB));
    let server = stub(&lab, FIRST);
    let running = lab.start(&[], &["sleep"]);
    let to = resolver(&running);
    running.inside(|| {
        for number in 0..4000 {
            assert_eq!(ask(to, &format!("n{number}.test"), None), (Rcode::NOERROR, false, 1));
        }
    });
    assert!(server.datagrams() >= 4000);
    let tracked: u32 = read_sysctl("net/netfilter/nf_conntrack_count").parse().expect("a number");
    // 1024, as src/serve/resolver/ports.rs has it, but for ports that chance gave twice, and what time gave back meanwhile.
    assert!((900..2500).contains(&tracked), "{tracked} connections");
}

/// N4, I5: what reads hostile bytes may nothing.
fn helpers_have_no_privileges() {
    let lab = lab(&nameserver(STUB));
    let _server = stub(&lab, FIRST);
    let running = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    let to = resolver(&running);
    assert_eq!(running.inside(|| ask(to, "www.example.org", None)), (Rcode::NOERROR, false, 1));
    let relayed = probe::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    assert!(relayed.reached(), "{relayed}");
    for name in ["netbox-resolver", "netbox-relay"] {
        let [pid] = processes(name)[..] else { panic!("one {name}") };
        assert_without_privileges(name, pid);
    }
}

/// Of a helper with this name.
pub(crate) fn assert_without_privileges(name: &str, pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{name}: {set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()), "{name}");
    if nix::unistd::geteuid().is_root()
        && fs::read_to_string("/proc/self/setgroups").is_ok_and(|t| t == "allow\n")
    {
        assert!(!field("Uid").split_whitespace().any(|id| id == "0"), "{name}: {}", field("Uid"));
        assert_eq!(field("Groups"), "", "{name}");
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        let harmless =
            ["socket:", "anon_inode:[event", "/dev/null"].iter().any(|kind| target.starts_with(kind));
        assert!(harmless, "{name} has {target}");
    }
}

/// `--dns`: asked from the host's network, where the box itself could not go.
fn the_name_servers_asked_for_are_asked_instead_of_the_hosts() {
    let lab = lab(&nameserver(STUB));
    let hosts = stub(&lab, FIRST);
    let at = HOST.to_string();
    let _asked = NameServer::start(lab.host_place(), dns(&at), SECOND);
    assert_eq!(resolved(&lab, &["--dns", &at], "www.example.org"), Some(SECOND.into()));
    assert_eq!(resolved(&lab, &["--dns", "127.0.0.9", "--dns", &at], "www.example.org"), Some(SECOND.into()));
    assert_eq!(hosts.datagrams(), 0);
}

/// `--dns-search`, `--add-host`.
fn domains_and_hosts_asked_for_are_in_the_boxs_files_alone() {
    let lab = lab("nameserver 127.0.0.53\nsearch host.test\noptions ndots:2\n");
    let _server = stub(&lab, FIRST);
    let file =
        |options: &[&str], path| String::from_utf8(lab.run(options, &["cat", path]).stdout).expect("text");
    let as_host = file(&[], RESOLV_CONF);
    assert!(as_host.contains("\nsearch host.test\noptions ndots:2\n"), "{as_host}");
    let asked = file(&["--dns-search", "a.test", "--dns-search", "b.test"], RESOLV_CONF);
    assert!(asked.contains("\nsearch a.test b.test\n") && !asked.contains("host.test"), "{asked}");
    assert!(!file(&["--dns-search", "."], RESOLV_CONF).contains("search"));
    let add = ["--add-host", "db:192.0.2.7", "--add-host", "known=[2001:db8::7]"];
    let hosts = file(&add, "/etc/hosts");
    assert_eq!(hosts, "192.0.2.7\tdb\n2001:db8::7\tknown\n127.0.0.1 localhost\n192.0.2.99\told.known\n");
    let named = file(&["--hostname", "own", "--add-host", "db:192.0.2.7"], "/etc/hosts");
    assert!(named.starts_with("192.0.2.7\tdb\n127.0.1.1\town\n"), "{named}");
    // In a user namespace of the box's, and under an init.
    for options in [&["--cap-add", "NET_ADMIN"][..], &["--unshare-pid"]] {
        let options = [options, &["--add-host", "db:192.0.2.7"]].concat();
        assert_eq!(resolved(&lab, &options, "db"), Some(Ipv4Addr::new(192, 0, 2, 7).into()), "{options:?}");
        assert_eq!(resolved(&lab, &options, "www.example.org"), Some(FIRST.into()), "{options:?}");
    }
    assert_eq!(resolved(&lab, &add, "db"), Some(Ipv4Addr::new(192, 0, 2, 7).into()));
    let lonely = outcome(&lab.run(&["--net", "none", "--add-host", "db:192.0.2.7"], &["resolve", "db"]));
    assert_eq!(lonely.seen_as(), Some(Ipv4Addr::new(192, 0, 2, 7).into()));
    assert_eq!(file(&[], "/etc/hosts"), fs::read_to_string("/etc/hosts").expect("the host's file"));
}

/// N4: the C library would ask there first (nscd, nss-resolve), and be answered with what the box must not see.
fn the_sockets_of_the_hosts_name_services_are_hidden() {
    let sockets = ["/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"];
    let lab = lab_with(|| {
        fs::write(RESOLV_CONF, nameserver(STUB)).expect("a file in the lab's own /etc");
        for socket in sockets {
            let directory = std::path::Path::new(socket).parent().expect("a directory");
            fs::create_dir_all(directory).expect("a directory");
            drop(UnixListener::bind(socket).expect("a socket"));
        }
    });
    for options in [&[][..], &["--net", "none"]] {
        for socket in sockets {
            let output = lab.run(options, &["there", socket]);
            assert_eq!(output.stdout, b"false\n", "{socket}: {}", words(&output));
        }
    }
    for socket in sockets {
        assert!(fs::exists(socket).expect("the host's socket"));
    }
}

/// `--net none`.
fn a_box_without_a_network_has_no_way_to_names() {
    let lab = lab(&nameserver(STUB));
    let server = stub(&lab, FIRST);
    assert_eq!(resolved(&lab, &["--net", "none"], "www.example.org"), None);
    assert_eq!(server.datagrams(), 0);
}
