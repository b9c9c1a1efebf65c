//! What `netbox run --dry-run` says of one plan, compared with what is written down under `tests/plan/`.
//!
//! `NETBOX_BLESS=1 cargo test --test dry_run` writes down what comes out; read the difference before it is kept.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::ffi::OsString;
use std::fmt::Write;
use std::net::Ipv4Addr;

use netbox::apply::attach;
use netbox::plan::environment::Changes;
use netbox::plan::gateway::GatewayPlan;
use netbox::plan::identity::Identity;
use netbox::plan::privileges::{OF_ROOT, Privileges};
use netbox::plan::record::{Attachment, PortMap};
use netbox::plan::render::{self, BoxPlan, RunPlan};
use netbox::plan::topology::{Ipv6, Topology};
use netbox::plan::wiring::{BoxLink, LinkEnd};
use netbox::spec::{BoxName, Net, RunRequest, Unshare};
use serde_json::Value;

const PREFIX: &str = "fd12:3456:789a::/64";

fn user(uid: u32) -> Identity {
    Identity { uid, gid: uid, groups: vec![uid, 50], account: None }
}

fn gateway(ipv6: Ipv6) -> GatewayPlan {
    GatewayPlan {
        connections: 8192,
        topology: Topology { pool: "100.64.0.0/18".parse().unwrap(), ipv6, number: 7, mtu: 1500 },
        switched: vec!["eth0.7".to_owned()],
        switched6: if ipv6 == Ipv6::Closed { Vec::new() } else { vec!["eth0.7".to_owned()] },
        host_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        without_ipv6: (ipv6 == Ipv6::Closed).then(|| "the host has none".to_owned()),
    }
}

fn request() -> RunRequest {
    RunRequest {
        name: Some(BoxName::parse("web").unwrap()),
        command: ["echo", "two words"].map(OsString::from).into(),
        mac: Some([2, 0, 0x5e, 0x10, 0, 1]),
        mtu: Some(1400),
        snat: Some("192.0.2.1".parse().unwrap()),
        workdir: Some("/srv".into()),
        host_ports: vec!["5432".parse().unwrap(), "123:1123/udp".parse().unwrap()],
        ..RunRequest::default()
    }
}

/// What is said of a run behind a gateway, with two ports, one of them chosen by the kernel and on loopback.
fn said(ipv6: Ipv6, of: fn(&RunPlan<'_>) -> String) -> String {
    let gateway = gateway(ipv6);
    let topology = gateway.topology;
    let protocol = netbox::spec::Protocol::Tcp;
    let port = |host_address: Ipv4Addr, host_port, box_port| {
        let host_address = host_address.into();
        PortMap { protocol, host_address, host_port, box_port }
    };
    let ports = [port(Ipv4Addr::UNSPECIFIED, 8080, 80), port(Ipv4Addr::LOCALHOST, 0, 443)];
    let attachment = Attachment::new(topology, 0, &request());
    let end = LinkEnd::new(&attachment, &request());
    let let_in = attach::gateway_elements(&attachment, "example0", &[]);
    let all = attach::gateway_elements(&attachment, "example0", &ports);
    let to_host = attach::opened(&attachment, &request().host_ports);
    let one = BoxPlan {
        id: "example0",
        networks: Vec::new(),
        at_port: Vec::new(),
        link: BoxLink::new(&attachment, end.mtu),
        end,
        ports: &ports,
        published: all.into_iter().filter(|element| !let_in.contains(element)).chain(to_host).collect(),
        let_in,
        published_on_host: attach::host_elements(&attachment, &ports),
        attachment,
    };
    of(&RunPlan {
        exported: None,
        network: None,
        etc: None,
        request: &request(),
        identity: &user(1000),
        privileges: &Privileges::NONE,
        files: vec!["/etc/resolv.conf"],
        environment: Changes {
            set: [("A".to_owned(), "1".to_owned())].into(),
            unset: vec!["SECRET".to_owned()],
        },
        attached: Some((&gateway, one)),
    })
}

fn json(plan: &RunPlan<'_>) -> String {
    render::to_json(plan).unwrap()
}

fn six() -> Ipv6 {
    Ipv6::Pool(PREFIX.parse().unwrap())
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/plan/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NETBOX_BLESS").is_some() {
        std::fs::write(path, text).unwrap();
    } else {
        assert_eq!(text, std::fs::read_to_string(path).unwrap(), "\n{text}");
    }
}

#[test]
fn the_plan_as_text() {
    golden("run.txt", &said(six(), render::to_text));
}

#[test]
fn the_plan_as_json() {
    let mut document: Value = serde_json::from_str(&said(six(), json)).unwrap();
    let mut rules = String::new();
    // One line for each object of the rulesets, so that a difference can be read.
    for place in ["host", "gateway"] {
        for object in std::mem::take(document[place]["nftables"]["nftables"].as_array_mut().unwrap()) {
            writeln!(rules, "{place}: {object}").unwrap();
        }
    }
    golden("run.json.txt", &format!("{document:#}\n{rules}"));
}

#[test]
fn text_and_json_have_the_same_steps_in_the_same_order() {
    let document: Value = serde_json::from_str(&said(six(), json)).unwrap();
    let mut steps: Vec<_> = ["host", "gateway", "box"]
        .iter()
        .flat_map(|place| document[place]["steps"].as_array().unwrap())
        .map(|step| (step["order"].as_u64().unwrap(), step["command"].as_str().unwrap().to_owned()))
        .collect();
    steps.sort();
    let numbers: Vec<_> = steps.iter().map(|(order, _)| *order).collect();
    assert_eq!(numbers, (1..=steps.len() as u64).collect::<Vec<_>>());
    let text = said(six(), render::to_text);
    let above_the_rules = text.split("# RULES").next().unwrap();
    let lines: Vec<_> = above_the_rules.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, steps.iter().map(|(_, command)| command.as_str()).collect::<Vec<_>>());
}

#[test]
fn a_host_without_ipv6_has_no_step_for_it_but_those_that_close_it() {
    let text = said(Ipv6::Closed, render::to_text);
    assert!(text.contains("# no IPv6: the host has none\n"), "{text}");
    assert!(text.contains("net.ipv6.conf.all.disable_ipv6=1\n"), "{text}");
    assert!(!text.contains(" -6 ") && !text.contains("fd12:"), "{text}");
    let document: Value = serde_json::from_str(&said(Ipv6::Closed, json)).unwrap();
    assert_eq!(document["topology"]["without_ipv6"], "the host has none");
    assert_eq!(document["topology"]["ipv6"], Value::Null);
}

#[test]
fn without_a_gateway_nothing_is_done_outside_the_box() {
    let identity = user(0);
    let document = |net, unshare| -> Value {
        let plan = RunPlan {
            exported: None,
            network: None,
            etc: None,
            request: &RunRequest { net, unshare, ..request() },
            identity: &identity,
            privileges: &Privileges { held: OF_ROOT, ..Privileges::NONE },
            files: Vec::new(),
            environment: Changes::default(),
            attached: None,
        };
        serde_json::from_str(&json(&plan)).unwrap()
    };
    let nothing = serde_json::json!({ "steps": [], "nftables": null });
    let pids = Unshare { pid: true, ..Unshare::default() };
    for (net, unshare, first, last) in [
        (Net::None, Unshare::default(), "unshare --net --mount", "ip -n BOX link set dev lo up"),
        (
            Net::Host,
            pids,
            "unshare --mount --pid --fork",
            "mount --bind -o ro,nosuid,nodev,noexec /proc/sys /proc/sys",
        ),
    ] {
        let document = document(net.clone(), unshare);
        assert_eq!((&document["host"], &document["gateway"]), (&nothing, &nothing), "{net}");
        let steps = document["box"]["steps"].as_array().unwrap();
        let commands = [steps.first(), steps.last()].map(|step| &step.unwrap()["command"]);
        assert_eq!(commands, [first, last], "{net}");
        assert_eq!(document["ports"], serde_json::json!([]));
    }
    assert_eq!(document(Net::Host, Unshare::default())["box"], nothing);
}

#[test]
fn a_network_of_somebody_elses_is_entered_and_not_changed() {
    let request =
        RunRequest { net: "netns:blue".parse().unwrap(), command: vec!["true".into()], ..Default::default() };
    let names = ["resolv.conf".to_owned()];
    let plan = RunPlan {
        exported: None,
        network: Some("/run/netns/blue"),
        etc: Some(("/etc/netns/blue", &names)),
        request: &request,
        identity: &user(1000),
        privileges: &Privileges::NONE,
        files: Vec::new(),
        environment: Changes::default(),
        attached: None,
    };
    let text = render::to_text(&plan);
    let steps: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "nsenter --net=/run/netns/blue",
        "unshare --mount",
        "mount --make-rslave /",
        "mount -o remount,bind,nosuid=recursive /",
        "mount -t sysfs -o nosuid,nodev,noexec sysfs /sys",
        "mount --bind /etc/netns/blue/resolv.conf /etc/resolv.conf",
        "exec true",
    ];
    assert_eq!(steps, expected);
    let own = RunRequest { net: Net::None, command: vec!["true".into()], ..Default::default() };
    let plan = RunPlan { exported: Some("web"), network: None, etc: None, request: &own, ..plan };
    assert!(render::to_text(&plan).contains("\nip netns attach web BOX\n"));
}
