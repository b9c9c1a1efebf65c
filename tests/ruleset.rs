//! The text of both rulesets, compared with what is written down under `tests/plan/`.
//!
//! `NETBOX_BLESS=1 cargo test --test ruleset` writes down what comes out; read the difference before it is kept.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netbox::plan::ruleset::{self, PublishedPort};
use netbox::plan::topology::{Ipv6, Topology};

const BOX: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 16);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BOX6: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, 0x10);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

fn topology() -> Topology {
    let ipv6 = Ipv6::Pool("fd12:3456:789a::/64".parse().unwrap());
    Topology { pool: "100.64.0.0/18".parse().unwrap(), ipv6, number: 7, mtu: 1500 }
}

fn ports() -> Vec<PublishedPort> {
    let port = |host_address, target: (IpAddr, u16), protocol, host_port| PublishedPort {
        host_address,
        protocol,
        host_port,
        target: SocketAddr::from(target),
    };
    let mut ports = vec![
        port(None, (BOX.into(), 80), 6, 8080),
        port(Some(HOST.into()), (BOX.into(), 5353), 17, 53),
        port(None, (BOX6.into(), 80), 6, 8080),
        port(Some(HOST6.into()), (BOX6.into(), 5353), 17, 53),
    ];
    for number in 9024..9090 {
        ports.extend([
            port(None, (BOX.into(), number), 6, number),
            port(None, (BOX6.into(), number), 17, number),
        ]);
    }
    ports
}

/// Of a network that two others reach without translation.
fn routed() -> Vec<ruleset::Element> {
    let net = |text: &str| text.parse().unwrap();
    let own = net("10.1.10.0/24");
    vec![
        ruleset::routed_subnet(own),
        ruleset::reached_by(own, net("10.1.0.0/16")),
        ruleset::reached_by(own, net("10.3.0.7/32")),
    ]
}

fn golden(name: &str, text: &str, expected: &str) {
    if std::env::var_os("NETBOX_BLESS").is_some() {
        std::fs::write(format!("{}/tests/plan/{name}", env!("CARGO_MANIFEST_DIR")), text).unwrap();
    } else {
        assert_eq!(text, expected, "\n{text}");
    }
}

#[test]
fn the_hosts_rules() {
    let mut elements =
        vec![ruleset::switched("eth0"), ruleset::switched("wlan0"), ruleset::switched6("wlan0")];
    elements.extend(ruleset::translations(&ports()));
    elements.extend(routed());
    elements.extend(ruleset::leaves_as(BOX.into(), HOST.into()));
    elements.extend(ruleset::leaves_as(BOX6.into(), HOST6.into()));
    assert_eq!(ruleset::leaves_as(BOX6.into(), HOST.into()), None);
    let text = ruleset::to_text(&ruleset::host(&topology(), 8192), &elements);
    golden("host.nft", &text, include_str!("plan/host.nft"));
}

#[test]
fn the_gateways_rules() {
    let mut elements = vec![
        ruleset::boxes4("nb3k9x0a7q", BOX),
        ruleset::boxes6("nb3k9x0a7q", BOX6),
        ruleset::host_address(HOST.into()),
        ruleset::host_address(HOST6.into()),
        ruleset::asks(BOX, "169.254.64.16".parse().unwrap()),
        ruleset::itself("10.9.0.7".parse().unwrap()),
        ruleset::itself("fd09::7".parse().unwrap()),
        ruleset::internal("br7qx0k9a3"),
    ];
    elements.extend(routed());
    elements.extend(ruleset::known_outside_as("10.9.0.7".parse().unwrap(), BOX.into()).unwrap());
    elements.extend(ruleset::translations(&ports()));
    elements.extend(ruleset::admissions(&ports()));
    let text = ruleset::to_text(&ruleset::gateway(&topology(), 8192), &elements);
    golden("gateway.nft", &text, include_str!("plan/gateway.nft"));
}

#[test]
fn the_bridges_rules() {
    let mac = [0x0a, 0x6e, 10, 9, 0, 7];
    let mut elements = ruleset::port("nb3k9x0a7q", mac, Ipv4Addr::new(10, 9, 0, 7), 1);
    elements.extend(ruleset::port6("nb3k9x0a7q", 0x8000, "fd09::7".parse().unwrap(), Some(mac)));
    golden("bridge.nft", &ruleset::to_text(&ruleset::bridge(), &elements), include_str!("plan/bridge.nft"));
}

/// The same where boxes have no IPv6.
#[test]
fn the_rules_without_ipv6() {
    let topology = Topology { ipv6: Ipv6::Closed, ..topology() };
    let tables = [ruleset::host(&topology, 8192), ruleset::gateway(&topology, 8192)].concat();
    let text = ruleset::to_text(&tables, &[]);
    golden("without-ipv6.nft", &text, include_str!("plan/without-ipv6.nft"));
}
