//! `-P`: what listens in a box is published.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{HOST_LAN, Lab, PROBE, RunningBox, Shape, find_within, live_tests, words};

live_tests![
    what_listens_is_published_until_it_is_closed,
    a_connection_outlives_the_listener_that_took_it,
    a_listener_on_the_boxs_loopback_is_not_published,
    a_port_that_is_published_already_stays_as_it_is,
    a_port_that_was_given_up_stays_so_until_its_listener_is_closed,
    a_box_gets_no_more_ports_than_there_is_room_for,
    a_listener_of_a_child_is_published_and_withdrawn_when_that_is_killed,
    a_box_that_keeps_opening_and_closing_goes_on,
    what_a_further_command_listens_on_is_published_until_that_ends,
];

/// "as soon as": a scan comes a millisecond after the call; the rest is for a machine that does something else besides.
const SOON: Duration = Duration::from_secs(2);

fn start(lab: &Lab, options: &[&str]) -> RunningBox {
    lab.start_command(
        lab.run_command(&[&["-P"], options].concat(), &["listen-as-told"]).stdin(Stdio::piped()),
    )
}

fn tell(running: &mut RunningBox, line: &str) {
    assert_eq!(running.tell(line), "done\n");
}

/// What the only box has published: a port on every address is there for each family.
fn maps(lab: &Lab) -> Vec<Value> {
    let output = lab.netbox(&["ps", "--json"]).output().expect("netbox can be started");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    list[0]["ports"].as_array().expect("ports").clone()
}

/// The host ports that lead to a port of the box.
fn published(lab: &Lab, protocol: &str, inside: u16) -> Vec<u16> {
    let ports = maps(lab).into_iter();
    let ours = ports.filter(|port| port["protocol"] == protocol && port["box_port"] == inside);
    let ours = ours.filter(|port| port["host_address"] == "0.0.0.0");
    ours.filter_map(|port| port["host_port"].as_u64()?.try_into().ok()).collect()
}

fn soon<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    find_within(SOON, || what.to_owned(), look)
}

fn soon_published(lab: &Lab, protocol: &str, inside: u16) -> u16 {
    soon(&format!("{inside}/{protocol}"), || published(lab, protocol, inside).first().copied())
}

fn soon_withdrawn(lab: &Lab, protocol: &str, inside: u16) {
    soon(&format!("no {inside}/{protocol}"), || published(lab, protocol, inside).is_empty().then_some(()));
}

fn connects(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// N2, N3: as with `-p`, and free again at once.
fn what_listens_is_published_until_it_is_closed() {
    let lab = Lab::new(Shape::OwnLan);
    for options in [&[][..], &["--unshare-pid"], &["--allow-new-privs"], &["--cap-add", "NET_ADMIN"]] {
        let mut running = start(&lab, options);
        assert_eq!(published(&lab, "tcp", 80), [0; 0], "{options:?}");
        tell(&mut running, "tcp 0.0.0.0:80");
        let port = soon_published(&lab, "tcp", 80);
        assert!(lab.client(|| connects(at(HOST_LAN, port))), "{options:?}");
        assert!(connects(at(Ipv4Addr::LOCALHOST, port)), "{options:?}");
        assert!(TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port)).is_err(), "{options:?}");
        tell(&mut running, "udp [::]:53");
        let udp = soon_published(&lab, "udp", 53);
        tell(&mut running, "close");
        soon_withdrawn(&lab, "tcp", 80);
        soon_withdrawn(&lab, "udp", 53);
        // The relay's connection, which was not cut, ends by itself.
        soon("a free port", || TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port)).ok());
        UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, udp)).expect("a free port");
        assert!(!lab.client(|| connects(at(HOST_LAN, port))), "{options:?}");
    }
}

/// A server that lets its clients finish.
fn a_connection_outlives_the_listener_that_took_it() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &[]);
    tell(&mut running, "tcp 0.0.0.0:80");
    let port = soon_published(&lab, "tcp", 80);
    let connect = |to| TcpStream::connect_timeout(&to, SOON).expect("a connection");
    let mut clients = [lab.client(|| connect(at(HOST_LAN, port))), connect(at(Ipv4Addr::LOCALHOST, port))];
    for line in ["accept", "accept", "close"] {
        tell(&mut running, line);
    }
    soon_withdrawn(&lab, "tcp", 80);
    tell(&mut running, "answer");
    for client in &mut clients {
        client.set_read_timeout(Some(SOON)).expect("a time-out");
        let mut answer = [0; 10];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"still here");
    }
}

fn a_listener_on_the_boxs_loopback_is_not_published() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &[]);
    let own = format!("tcp {}:81", running.address);
    for line in ["tcp 127.0.0.1:80", "tcp [::1]:80", "udp 127.0.0.53:53", "udp 0.0.0.0:40000", &own] {
        tell(&mut running, line);
    }
    // The last is seen with all that was there before.
    soon_published(&lab, "tcp", 81);
    for (protocol, port) in [("tcp", 80), ("udp", 53), ("udp", 40000)] {
        assert_eq!(published(&lab, protocol, port), [0; 0], "{port}/{protocol}");
    }
}

fn a_port_that_is_published_already_stays_as_it_is() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &["-p", "8080:80"]);
    tell(&mut running, "tcp 0.0.0.0:80");
    tell(&mut running, "tcp 0.0.0.0:81");
    soon_published(&lab, "tcp", 81);
    assert_eq!(published(&lab, "tcp", 80), [8080]);
    tell(&mut running, "close");
    soon_withdrawn(&lab, "tcp", 81);
    assert_eq!(published(&lab, "tcp", 80), [8080]);
}

fn a_port_that_was_given_up_stays_so_until_its_listener_is_closed() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &["--name", "web"]);
    tell(&mut running, "tcp 0.0.0.0:80");
    let port = soon_published(&lab, "tcp", 80).to_string();
    let output = lab.netbox(&["port", "rm", "web", &port]).output().expect("netbox can be started");
    assert!(output.status.success(), "{}", words(&output));
    tell(&mut running, "tcp 0.0.0.0:81");
    soon_published(&lab, "tcp", 81);
    assert_eq!(published(&lab, "tcp", 80), [0; 0]);
    tell(&mut running, "close");
    soon_withdrawn(&lab, "tcp", 81);
    tell(&mut running, "tcp 0.0.0.0:80");
    soon_published(&lab, "tcp", 80);
}

/// One box exhausts the ports of the host for nobody.
fn a_box_gets_no_more_ports_than_there_is_room_for() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &["-q"]);
    for port in 1001..=1300 {
        tell(&mut running, &format!("tcp 0.0.0.0:{port}"));
    }
    soon("as many as there is room for", || (maps(&lab).len() == 2 * 256).then_some(()));
    tell(&mut running, "close");
    soon("none", || maps(&lab).is_empty().then_some(()));
}

fn a_listener_of_a_child_is_published_and_withdrawn_when_that_is_killed() {
    let lab = Lab::new(Shape::OwnLan);
    let script =
        "exec 3>&1; $PROBE listen tcp [::]:80 >&2 & echo ready $$ - -; read x; kill -9 $!; echo done; read x";
    let mut command = lab.netbox(&["run", "-P", "-e", &format!("PROBE={}", PROBE)]);
    let mut running = lab.start_command(command.args(["--", "sh", "-c", script]).stdin(Stdio::piped()));
    let port = soon_published(&lab, "tcp", 80);
    assert!(lab.client(|| connects(at(HOST_LAN, port))));
    tell(&mut running, "kill it");
    soon_withdrawn(&lab, "tcp", 80);
}

/// The keeper looks fifty times in a second, whatever the box does, and the box is not held up.
fn a_box_that_keeps_opening_and_closing_goes_on() {
    let lab = Lab::new(Shape::OwnLan);
    let mut running = start(&lab, &[]);
    for round in 0..500 {
        tell(&mut running, &format!("tcp 0.0.0.0:{}", 2000 + round % 7));
        tell(&mut running, "close");
    }
    tell(&mut running, "tcp 0.0.0.0:80");
    let port = soon_published(&lab, "tcp", 80);
    assert!(lab.client(|| connects(at(HOST_LAN, port))));
    soon("none of the others", || {
        (2000..2007).all(|port| published(&lab, "tcp", port).is_empty()).then_some(())
    });
}

/// How many watches over calls a box's keeper has.
fn watches(running: &RunningBox) -> usize {
    let launcher = running.launcher();
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
    let keeper = children.expect("the launcher lives").trim().to_owned();
    let descriptors = fs::read_dir(format!("/proc/{keeper}/fd")).expect("the keeper's descriptors");
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("seccomp")).count()
}

/// N2. `netbox exec`: it is no child of the box's command, whose filter it would inherit.
fn what_a_further_command_listens_on_is_published_until_that_ends() {
    let lab = Lab::new(Shape::OwnLan);
    let exec = |words: &[&str]| lab.netbox(&[&["exec", "web", "--"], words].concat());
    for options in [&[][..], &["--unshare-pid"], &["--allow-new-privs"], &["--cap-add", "NET_ADMIN"]] {
        let running = start(&lab, &[&["--name", "web"], options].concat());
        assert_eq!(watches(&running), 1, "{options:?}");
        let mut further = lab.start_command(exec(&[PROBE, "listen-as-told"]).stdin(Stdio::piped()));
        assert_eq!(watches(&running), 2, "{options:?}");
        tell(&mut further, "tcp 0.0.0.0:80");
        let port = soon_published(&lab, "tcp", 80);
        assert!(lab.client(|| connects(at(HOST_LAN, port))), "{options:?}");
        assert_eq!(further.end().code(), Some(143), "{options:?}");
        soon_withdrawn(&lab, "tcp", 80);
        // Nobody is left that it watches: it would keep the keeper awake.
        soon("one watch", || (watches(&running) == 1).then_some(()));
        assert_eq!(running.end().code(), Some(143), "{options:?}");
    }
    let running = lab.start(&["--name", "web"], &["sleep"]);
    let output = exec(&["grep", "Seccomp:", "/proc/self/status"]).output().expect("netbox");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Seccomp:\t0\n",
        "what -P takes is taken by -P alone"
    );
    drop(running);
}
