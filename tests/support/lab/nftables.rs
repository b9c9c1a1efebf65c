//! nf_tables without the `nft` program: the whole ruleset as text, its flush, and an empty table.

use std::fmt::Write;
use std::io::ErrorKind;

use super::netlink::{ACK, CREATE, DUMP, Message, Netlink, Reply, attribute, attributes, find};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DEL_RULE: u16 = SUBSYSTEM | 8;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const DEL_ELEMENTS: u16 = SUBSYSTEM | 14;
const GET_OBJECT: u16 = SUBSYSTEM | 19;
const GET_FLOWTABLE: u16 = SUBSYSTEM | 23;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const INET: u8 = 1;

/// Every table, chain, rule, set, element, object and flowtable of the namespace, a line each.
pub(crate) fn ruleset() -> Vec<String> {
    let socket = Netlink::netfilter();
    let all = |kind, request: &[u8]| -> Vec<Reply> {
        let message = Message::new(kind, DUMP, request);
        match socket.dump(&message) {
            Ok(replies) => replies,
            // A set that has gone since it was listed has no elements; a kernel without stateful objects or
            // flowtables has none.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(_) if matches!(kind, GET_OBJECT | GET_FLOWTABLE) => Vec::new(),
            Err(error) => panic!("the ruleset cannot be read (message {kind:#x}): {error}"),
        }
    };
    let mut lines = Vec::new();
    for (kind, what) in [
        (GET_TABLE, "table"),
        (GET_CHAIN, "chain"),
        (GET_RULE, "rule"),
        (GET_SET, "set"),
        (GET_OBJECT, "object"),
        (GET_FLOWTABLE, "flowtable"),
    ] {
        for reply in all(kind, &header(0, 0)) {
            lines.push(line(what, &reply));
            if kind == GET_SET {
                let [family, ..] = reply[..] else { continue };
                let of = attributes(&reply[4..]);
                let (table, name) = (find(&of, 1).unwrap_or_default(), find(&of, 2).unwrap_or_default());
                let request = [header(family, 0).to_vec(), attribute(1, table), attribute(2, name)].concat();
                lines.extend(all(GET_ELEMENTS, &request).iter().flat_map(|reply| elements(reply)));
            }
        }
    }
    lines
}

/// The names of all tables.
pub(crate) fn tables() -> Vec<String> {
    let replies =
        Netlink::netfilter().dump(&Message::new(GET_TABLE, DUMP, &header(0, 0))).expect("a list of tables");
    let name = |reply: &Reply| words(find(&attributes(&reply[4..]), 1).unwrap_or_default());
    replies.iter().map(name).collect()
}

/// What `nft flush ruleset` does.
pub(crate) fn flush() {
    transaction(Message::new(DEL_TABLE, ACK, &header(0, 0)));
}

/// What `nft delete table FAMILY NAME` does: 1 is inet, 5 netdev.
pub(crate) fn delete_table(family: u8, name: &str) {
    transaction(Message::new(DEL_TABLE, ACK, &header(family, 0)).text(1, name));
}

/// What `nft flush chain inet TABLE NAME` does: the chain stays, without rules.
pub(crate) fn flush_chain(table: &str, name: &str) {
    transaction(Message::new(DEL_RULE, ACK, &header(INET, 0)).text(1, table).text(2, name));
}

/// What `nft flush set inet TABLE NAME` does: the set, or map, stays, without elements.
pub(crate) fn flush_set(table: &str, name: &str) {
    transaction(Message::new(DEL_ELEMENTS, ACK, &header(INET, 0)).text(1, table).text(2, name));
}

/// An empty table of family inet.
pub(crate) fn add_table(name: &str) {
    transaction(Message::new(NEW_TABLE, ACK | CREATE, &header(INET, 0)).text(1, name));
}

fn transaction(message: Message) {
    let begin = Message::new(BATCH_BEGIN, 0, &header(0, 10));
    let end = Message::new(BATCH_END, 0, &header(0, 10));
    Netlink::netfilter().ask(&[begin, message, end]).expect("an nftables transaction");
}

/// `nfgenmsg`: family, version, resource id.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn line(what: &str, payload: &[u8]) -> String {
    let mut line = format!("{what} family {}", payload.first().copied().unwrap_or(0));
    for (kind, value) in attributes(payload.get(4..).unwrap_or_default()) {
        // NFTA_TABLE_HANDLE: another one when netbox has put its tables back, which says nothing about what is in them.
        if (what, kind) == ("table", 4) {
            continue;
        }
        let _ = write!(line, " {kind}={}", words(value));
    }
    line
}

/// A line for each element of a set: the kernel lists them in the order of their hashes.
fn elements(payload: &[u8]) -> Vec<String> {
    let of = attributes(payload.get(4..).unwrap_or_default());
    let (table, set) = (find(&of, 1).unwrap_or_default(), find(&of, 2).unwrap_or_default());
    let list = attributes(find(&of, 3).unwrap_or_default());
    let each = list
        .iter()
        .map(|(_, element)| format!("element of {} {}: {}", words(table), words(set), words(element)));
    each.collect()
}

/// A name as it is, anything else in hexadecimal.
fn words(value: &[u8]) -> String {
    let name = value.strip_suffix(&[0]).unwrap_or(value);
    if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8_lossy(name).into_owned();
    }
    value.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
