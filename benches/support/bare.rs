//! A box by hand: a namespace behind one veth pair, its addresses translated by two rules. What a packet costs at least.
//!
//! ```text
//! table ip bare {
//!     chain in { type nat hook prerouting priority -100; tcp dport 20000 dnat to 10.9.0.2:80 }
//!     chain out { type nat hook postrouting priority 100; oif uplink masquerade }
//! }
//! ```

use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;

use super::host::UPLINK;
use super::links;
use super::netlink::{ACK, CREATE, Message, Netlink, attribute};
use super::place::{Place, sysctl};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

const TABLE: &str = "bare";

/// Two members of a network by hand, behind a bridge without rules.
#[derive(Debug)]
pub(crate) struct BareNetwork {
    pub(crate) members: [Place; 2],
    /// Where the bridge is: with this namespace the links go.
    _bridge: Place,
}

/// Makes one, with these addresses for its members.
pub(crate) fn bare_network(addresses: [Ipv4Addr; 2], prefix: u8) -> BareNetwork {
    const BRIDGE: &str = "bridge";
    let switch = Place::new();
    let ports = ["port0", "port1"];
    let members = addresses.map(|_| Place::new());
    switch.run(|| {
        links::bridge(BRIDGE);
        links::up(BRIDGE);
        for (port, member) in ports.iter().zip(&members) {
            links::veth(port, "eth0", member.file());
            links::enslave(port, BRIDGE);
            links::up(port);
        }
    });
    for (member, address) in members.iter().zip(addresses) {
        member.run(|| {
            links::up("eth0");
            links::address("eth0", address.into(), prefix);
        });
    }
    BareNetwork { members, _bridge: switch }
}

/// Puts one behind the host that the calling thread is in, with the host's port `published` for its port `own`.
pub(crate) fn bare_box(published: u16, own: u16) -> Place {
    let place = Place::new();
    links::veth("bare", "eth0", place.file());
    links::up("bare");
    links::address("bare", GATEWAY.into(), 24);
    place.run(|| {
        links::up("eth0");
        links::address("eth0", INSIDE.into(), 24);
        links::route(Ipv4Addr::UNSPECIFIED.into(), 0, GATEWAY.into());
    });
    translate(published, own);
    sysctl("net/ipv4/ip_forward", "1");
    place
}

/// Messages and attributes are those of `linux/netfilter/nf_tables.h`.
fn translate(published: u16, own: u16) {
    const NEW_TABLE: u16 = 10 << 8;
    const BATCH_BEGIN: u16 = 0x10;
    const BATCH_END: u16 = 0x11;
    let uplink = if_nametoindex(UPLINK).expect("the host's uplink");
    let messages = [
        Message::new(BATCH_BEGIN, 0, &[0, 0, 0, 10]),
        Message::new(NEW_TABLE, CREATE, &IPV4).text(1, TABLE),
        chain("in", 0, -100),
        rule(
            "in",
            &[
                expression("meta", &[(1, &REGISTER_1), (2, &16_u32.to_be_bytes())]), // NFT_META_L4PROTO
                equal(&[6]),
                // The destination port: two bytes of the transport header, from the third.
                expression(
                    "payload",
                    &[
                        (1, &REGISTER_1),
                        (2, &2_u32.to_be_bytes()),
                        (3, &2_u32.to_be_bytes()),
                        (4, &2_u32.to_be_bytes()),
                    ],
                ),
                equal(&published.to_be_bytes()),
                immediate(&REGISTER_1, &INSIDE.octets()),
                immediate(&REGISTER_2, &own.to_be_bytes()),
                expression(
                    "nat",
                    &[
                        (1, &1_u32.to_be_bytes()), // NFT_NAT_DNAT
                        (2, &2_u32.to_be_bytes()), // NFPROTO_IPV4
                        (3, &REGISTER_1),
                        (5, &REGISTER_2),
                    ],
                ),
            ],
        ),
        chain("out", 4, 100),
        rule(
            "out",
            &[
                expression("meta", &[(1, &REGISTER_1), (2, &5_u32.to_be_bytes())]), // NFT_META_OIF
                equal(&uplink.to_ne_bytes()),
                expression("masq", &[]),
            ],
        ),
        Message::new(BATCH_END, ACK, &[0, 0, 0, 10]),
    ];
    Netlink::netfilter().ask(&messages).expect("address translation");
}

const IPV4: [u8; 4] = [2, 0, 0, 0];
const REGISTER_1: [u8; 4] = 1_u32.to_be_bytes();
const REGISTER_2: [u8; 4] = 2_u32.to_be_bytes();

fn chain(name: &str, hook: u32, priority: i32) -> Message {
    const NEW_CHAIN: u16 = 10 << 8 | 3;
    let place = [attribute(1, &hook.to_be_bytes()), attribute(2, &priority.to_be_bytes())].concat();
    Message::new(NEW_CHAIN, CREATE, &IPV4).text(1, TABLE).text(3, name).attr(4, &place).text(7, "nat")
}

fn rule(chain: &str, expressions: &[Vec<u8>]) -> Message {
    const NEW_RULE: u16 = 10 << 8 | 6;
    const APPEND: u16 = 0x800;
    let list: Vec<u8> = expressions.iter().flat_map(|expression| attribute(1, expression)).collect();
    Message::new(NEW_RULE, CREATE | APPEND, &IPV4).text(1, TABLE).text(2, chain).attr(4, &list)
}

fn expression(name: &str, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = attributes.iter().flat_map(|(kind, value)| attribute(*kind, value)).collect();
    [attribute(1, &[name.as_bytes(), &[0]].concat()), attribute(2, &data)].concat()
}

fn equal(value: &[u8]) -> Vec<u8> {
    expression("cmp", &[(1, &REGISTER_1), (2, &0_u32.to_be_bytes()), (3, &attribute(1, value))])
}

fn immediate(register: &[u8], value: &[u8]) -> Vec<u8> {
    expression("immediate", &[(1, register), (2, &attribute(1, value))])
}
