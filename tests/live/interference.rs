//! What somebody else does to the host while a box runs: the fence stays closed, and the end is clean. Done with the tools
//! that an administrator has, `ip` and `nft`, and so only where `NETBOX_PEERS` is 1.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::lab::{
    HOST, HOST_LAN, Lab, NETBOX, RunningBox, Service, Shape, links, live_tests, nftables, probe, sysctl,
};

live_tests![
    flushed_rules,
    a_deleted_table,
    a_deleted_guard,
    a_deleted_host_link,
    a_deleted_box_link,
    a_removed_state_directory,
    removed_routing_rules,
    a_removed_unreachable_route,
    forwarding_switched_on_by_somebody,
    everything_at_once,
];

/// A deed of somebody else's.
type Deed = fn();

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("ip(8) is needed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

fn nft(arguments: &str) {
    let done = Command::new("nft").args(arguments.split(' ')).output().expect("nft(8) is needed");
    assert!(done.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The host's end of the link to the gateway.
fn host_link() -> String {
    let all = nix::net::if_::if_nameindex().expect("the links");
    let own = all.iter().map(|link| link.name().to_string_lossy().into_owned());
    own.into_iter().find(|name| name.starts_with("nb")).expect("the gateway's link")
}

fn remove_rules() {
    let listed = Command::new("ip").args(["rule", "show"]).output().expect("ip(8) is needed");
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let priority = line.split(':').next().unwrap_or_default();
        if !["0", "32766", "32767"].contains(&priority) {
            ip(&format!("rule del priority {priority}"));
        }
    }
}

fn remove_unreachable() {
    let listed = Command::new("ip").args(["route", "show", "type", "unreachable"]).output().expect("ip(8)");
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        ip(&format!("route del {}", words.join(" ")));
    }
}

fn remove_state() {
    fs::remove_dir_all("/run/netbox").expect("the state directory");
}

fn delete_link() {
    ip(&format!("link del {}", host_link()));
}

/// The gateway's end of the box's link, through netbox's own door.
fn delete_box_link() {
    let inside = |words: &[&str]| {
        let output = Command::new(NETBOX).args(["gateway", "--"]).args(words).output().expect("netbox");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = inside(&["ip", "-o", "link"]);
    let name =
        links.lines().filter_map(|line| line.split([' ', '@']).nth(1)).find(|name| name.starts_with("nb"));
    inside(&["ip", "link", "del", name.expect("the box's link")]);
}

/// The fence, whatever was done: the box reaches no service of the host, the neighbour no unpublished port.
fn assert_fenced(lab: &Lab, running: &RunningBox, services: &[Service; 2]) {
    running.inside(|| {
        for address in [HOST, HOST_LAN] {
            assert!(!probe::tcp(SocketAddr::from((address, 22))).reached(), "tcp to {address}");
            assert!(!probe::udp(SocketAddr::from((address, 5354))).reached(), "udp to {address}");
        }
    });
    assert_eq!(services.each_ref().map(Service::visits), [0, 0]);
    lab.client(|| {
        for port in [80, 81] {
            let outcome = probe::tcp(SocketAddr::from((running.address, port)));
            assert!(!outcome.reached(), "the neighbour reached {}:{port}: {outcome}", running.address);
        }
    });
}

/// Does it all to the host of a running box, and looks that nothing opens and that the box's end is clean. `undo`
/// takes back what is not netbox's to take back.
fn interfere(deeds: &[Deed], undo: Deed) {
    if std::env::var("NETBOX_PEERS").as_deref() != Ok("1") {
        println!("switched off, NETBOX_PEERS is not 1");
        return;
    }
    let lab = Lab::new(Shape::OwnLan);
    let on = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let services = [Service::tcp(lab.host_place(), on(22)), Service::udp(lab.host_place(), on(5354))];
    lab.client(|| links::route(Ipv4Addr::new(10, 0, 0, 0).into(), 8, HOST_LAN.into()));
    let running = lab.start(&["-p", "8080:80"], &["listen", "tcp", "0.0.0.0:80"]);
    assert!(lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080)))).reached(), "the port is published");
    for deed in deeds {
        deed();
        assert_fenced(&lab, &running, &services);
    }
    assert_eq!(running.end().code(), Some(143), "the status of the command is kept");
    undo();
}

fn flushed_rules() {
    interfere(&[nftables::flush], || {});
}

fn a_deleted_table() {
    interfere(&[|| nft("delete table inet netbox")], || {});
}

fn a_deleted_guard() {
    interfere(&[|| nft("delete table netdev netbox")], || {});
}

fn a_deleted_host_link() {
    interfere(&[delete_link], || {});
}

fn a_deleted_box_link() {
    interfere(&[delete_box_link], || {});
}

fn a_removed_state_directory() {
    interfere(&[remove_state], || {});
}

fn removed_routing_rules() {
    interfere(&[remove_rules], || {});
}

fn a_removed_unreachable_route() {
    interfere(&[remove_unreachable], || {});
}

fn forwarding_switched_on_by_somebody() {
    interfere(&[|| sysctl("net/ipv4/ip_forward", "1"), || sysctl("net/ipv4/ip_forward", "0")], || {});
}

fn everything_at_once() {
    let all: [Deed; 6] =
        [delete_box_link, nftables::flush, remove_unreachable, remove_rules, delete_link, remove_state];
    interfere(&all, || {});
}
