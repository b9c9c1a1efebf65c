//! Links, addresses, routes, rules, neighbours and queues, by rtnetlink dumps.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use nix::net::if_::if_indextoname;

use crate::lab::netlink::{DUMP, Message, Netlink, attributes, find, u32_at};

/// How the value of an attribute is written.
#[derive(Clone, Copy)]
enum Form {
    Address,
    Link,
    Number,
    Name,
    Bytes,
    Skip,
}
use Form::{Address, Bytes, Link, Name, Number, Skip};

/// The attributes that a kind of object is written with; any other is written by its number.
type Names = [(u16, &'static str, Form)];

pub(super) fn links() -> Vec<String> {
    // IFLA_EXT_MASK 29: RTEXT_FILTER_SKIP_STATS. Statistics would differ each time.
    let replies = dump(Message::new(18, DUMP, &[0; 16]).u32(29, 8));
    let known: [(u16, &str, Form); 8] = [
        (3, "name", Name),
        (1, "mac", Bytes),
        (4, "mtu", Number),
        (10, "master", Link),
        (13, "queue", Number),
        (20, "alias", Name),
        (27, "group", Number),
        (30, "promiscuous", Number),
    ];
    let line = |payload: &Vec<u8>| {
        let all = attributes(&payload[16..]);
        let chosen: Vec<_> =
            all.iter().copied().filter(|(kind, _)| known.iter().any(|(k, ..)| k == kind)).collect();
        let info = attributes(find(&all, 18).unwrap_or_default());
        let kind = String::from_utf8_lossy(find(&info, 1).unwrap_or_default()).replace('\0', "");
        format!("{kind} flags {:#x}{}", u32_at(payload, 8), written(&chosen, &known))
    };
    replies.iter().map(line).collect()
}

pub(super) fn addresses() -> Vec<String> {
    let known = [
        (1, "peer", Address),
        (2, "local", Address),
        (3, "label", Name),
        (4, "broadcast", Address),
        (6, "", Skip),
    ];
    let line = |payload: &Vec<u8>| {
        let [family, prefix, _, scope, ..] = payload[..] else { return String::new() };
        let rest = written(&attributes(&payload[8..]), &known);
        format!("family {family} /{prefix} scope {scope} dev {}{rest}", link(u32_at(payload, 4)))
    };
    dump(Message::new(22, DUMP, &[0; 8])).iter().map(line).collect()
}

pub(super) fn routes() -> Vec<String> {
    let known = [
        (1, "to", Address),
        (4, "dev", Link),
        (5, "via", Address),
        (6, "metric", Number),
        (7, "from", Address),
        (12, "", Skip),
        (15, "table", Number),
    ];
    let line = |payload: &Vec<u8>| {
        let [family, prefix, source, tos, _, protocol, scope, kind, ..] = payload[..] else {
            return String::new();
        };
        let rest = written(&attributes(&payload[12..]), &known);
        // Without the flags' state bits (dead, link down, offloaded): they come and go with carriers.
        format!(
            "family {family} /{prefix} type {kind} src/{source} tos {tos} proto {protocol} scope {scope}{rest}"
        )
    };
    dump(Message::new(26, DUMP, &[0; 12])).iter().map(line).collect()
}

pub(super) fn rules() -> Vec<String> {
    let known = [
        (1, "to", Address),
        (2, "from", Address),
        (3, "iif", Name),
        (4, "goto", Number),
        (6, "priority", Number),
        (10, "mark", Number),
        (15, "table", Number),
        (16, "mask", Number),
        (17, "oif", Name),
    ];
    let line = |payload: &Vec<u8>| {
        let [family, to, from, tos, _, _, _, action, ..] = payload[..] else { return String::new() };
        // Of the flags, whether it is inverted; the others tell whether its link exists just now.
        let inverted = u32_at(payload, 8) & 2;
        let rest = written(&attributes(&payload[12..]), &known);
        format!("family {family} to/{to} from/{from} tos {tos} action {action} invert {inverted}{rest}")
    };
    dump(Message::new(34, DUMP, &[0; 12])).iter().map(line).collect()
}

/// Those that somebody wrote; the learned ones come and go.
pub(super) fn permanent_neighbours() -> Vec<String> {
    let known = [(1, "to", Address), (2, "mac", Bytes), (3, "", Skip), (4, "", Skip), (8, "master", Link)];
    let permanent = |payload: &&Vec<u8>| u16::from_ne_bytes([payload[8], payload[9]]) & 0x80 != 0;
    let line = |payload: &Vec<u8>| {
        let rest = written(&attributes(&payload[12..]), &known);
        format!("family {} dev {}{rest}", payload[0], link(u32_at(payload, 4)))
    };
    dump(Message::new(30, DUMP, &[0; 12])).iter().filter(permanent).map(line).collect()
}

pub(super) fn qdiscs() -> Vec<String> {
    // Its name and its place; the rest are parameters and statistics.
    let line = |payload: &Vec<u8>| {
        let all = attributes(&payload[20..]);
        let kind = String::from_utf8_lossy(find(&all, 1).unwrap_or_default()).replace('\0', "");
        format!("{kind} dev {} parent {:#x}", link(u32_at(payload, 4)), u32_at(payload, 12))
    };
    dump(Message::new(38, DUMP, &[0; 20])).iter().map(line).collect()
}

fn dump(message: Message) -> Vec<Vec<u8>> {
    Netlink::route().dump(&message).expect("an rtnetlink dump")
}

fn written(found: &[(u16, &[u8])], known: &Names) -> String {
    let mut text = String::new();
    for (kind, value) in found {
        let (name, form) = known
            .iter()
            .find(|(k, ..)| k == kind)
            .map_or_else(|| (format!("[{kind}]"), Bytes), |(_, name, form)| ((*name).to_owned(), *form));
        let value = match (form, value.len()) {
            (Skip, _) => continue,
            (Address, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(*value).expect("four bytes")).to_string(),
            (Address, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(*value).expect("sixteen bytes")).to_string(),
            (Link, 4) => link(u32_at(value, 0)),
            (Number, 4) => u32_at(value, 0).to_string(),
            (Name, _) => String::from_utf8_lossy(value).replace('\0', ""),
            _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let _ = write!(text, " {name} {value}");
    }
    text
}

fn link(index: u32) -> String {
    if_indextoname(index).map_or_else(|_| "-".to_owned(), |name| name.to_string_lossy().into_owned())
}
