//! A ruleset as data: the document of libnftables-json(5), in the types of the `nftables` crate.
//!
//! Every match names every case, so that what is new in a ruleset has to be said here too.
//!
//! nft 1.0.6 reads a map to concatenated values from JSON as a set (so do `t4a` and `t4w` become sets there), and
//! no table's comment. Both are written as the schema has them; netbox itself does not load this document.

mod expression;

use std::borrow::Cow;
use std::collections::HashSet;

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, Expression, Fib, FibFlag, FibResult, MetaKey, NamedExpression, Prefix,
};
use nftables::schema::{self, NfCmd, NfListObject, NfObject, Nftables, SetFlag};
use nftables::stmt::{self, CTCount, JumpTarget, Mangle, Match, NAT, NATFamily, Reject, RejectType, SetOp};
use nftables::types::{CTHProto, NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};
use serde_json::{Value, json};

use self::expression::{concatenated, ct, datum, element, field, mapped, meta, named, payload, text, types};
use super::{
    Address, Chain, ChainType, Datum, Direction, Element, Family, Hook, HookPoint, Nfproto, Operator, Policy,
    Rule, Statement, Table,
};

/// The document that adds `tables` with `elements` in their sets and maps.
///
/// # Errors
/// None that is known: the crate's types have no value that JSON has not.
pub fn to_json(tables: &[Table], elements: &[Element]) -> serde_json::Result<Value> {
    let objects = tables.iter().flat_map(|table| objects(table, elements)).map(add).collect();
    let mut document = serde_json::to_value(Nftables { objects })?;
    // The crate's table has no room for a comment, by which netbox knows its own.
    let written = added(&mut document, "table").filter_map(Value::as_object_mut);
    for (object, table) in written.zip(tables) {
        object.insert("comment".to_owned(), table.comment.into());
    }
    // Its timeout has another name than libnftables-json(5) gives it, and room for one state of a connection only.
    let objects = document.get_mut("nftables").and_then(Value::as_array_mut).into_iter().flatten();
    let written = objects.filter_map(|object| {
        let add = object.get_mut("add")?.as_object_mut()?;
        let timeout = add.remove("cttimeout")?;
        add.entry("ct timeout").or_insert(timeout).as_object_mut()
    });
    for (object, timeout) in written.zip(tables.iter().flat_map(|table| &table.timeouts)) {
        let policy = json!({ "time_wait": timeout.time_wait, "close": timeout.close });
        object.insert("policy".to_owned(), policy);
    }
    // The crate writes a statement without anything to it as a bare word, which libnftables-json(5) has not.
    let rules = added(&mut document, "rule").filter_map(|rule| rule.get_mut("expr")?.as_array_mut());
    for statements in rules {
        for statement in statements.iter_mut() {
            if let Some(word) = statement.as_str() {
                *statement = json!({ word: null });
            }
        }
        // Nor has its set statement room for what each element is to do.
        let counts = statements.iter().position(|statement| statement.get("ct count").is_some());
        if let Some(count) = counts.map(|index| statements.remove(index))
            && let Some(set) =
                statements.iter_mut().find_map(|statement| statement.get_mut("set")?.as_object_mut())
        {
            set.insert("stmt".to_owned(), json!([count]));
        }
    }
    Ok(document)
}

/// The objects of one kind that a document adds.
fn added<'a>(document: &'a mut Value, kind: &str) -> impl Iterator<Item = &'a mut Value> {
    let objects = document.get_mut("nftables").and_then(Value::as_array_mut).into_iter().flatten();
    objects.filter_map(move |object| object.get_mut("add")?.get_mut(kind))
}

fn add(object: NfListObject<'static>) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Add(object))
}

/// The table, then what it holds, each after what it names.
fn objects(table: &Table, elements: &[Element]) -> Vec<NfListObject<'static>> {
    let (own_family, name) = (family(table.family), Cow::Borrowed(table.name));
    let own = schema::Table { family: own_family, name: name.clone(), handle: None };
    let mut objects = vec![NfListObject::Table(own)];
    objects.extend(table.timeouts.iter().map(|timeout| {
        NfListObject::CTTimeout(schema::CTTimeout {
            family: own_family,
            table: name.clone(),
            name: timeout.name.into(),
            protocol: Some(CTHProto::TCP),
            l3proto: Some("inet".into()),
            ..schema::CTTimeout::default()
        })
    }));
    objects.extend(table.sets.iter().map(|set| {
        NfListObject::Set(Box::new(schema::Set {
            family: own_family,
            table: name.clone(),
            name: set.name.into(),
            set_type: types(set.key),
            // nft 1.0.6 knows no flag for it, and sees from the rules what is dynamic. The size is the kernel's own.
            size: set.dynamic.then_some(65535),
            flags: set.interval.then(|| HashSet::from([SetFlag::Interval])),
            ..schema::Set::default()
        }))
    }));
    objects.extend(table.maps.iter().map(|map| {
        NfListObject::Map(Box::new(schema::Map {
            family: own_family,
            table: name.clone(),
            name: map.name.into(),
            set_type: types(map.key),
            map: types(map.value),
            flags: map.interval.then(|| HashSet::from([SetFlag::Interval])),
            ..schema::Map::default()
        }))
    }));
    objects.extend(table.chains.iter().map(|one| NfListObject::Chain(chain(table, one))));
    for chain in &table.chains {
        objects.extend(chain.rules.iter().map(|rule| {
            NfListObject::Rule(schema::Rule {
                family: own_family,
                table: name.clone(),
                chain: chain.name.into(),
                expr: statements(rule),
                ..schema::Rule::default()
            })
        }));
    }
    let sets = table.sets.iter().map(|set| set.name).chain(table.maps.iter().map(|map| map.name));
    for set in sets {
        let elem: Vec<_> = elements.iter().filter(|element| element.set == set).map(element).collect();
        if !elem.is_empty() {
            let (table, name, elem) = (name.clone(), set.into(), elem.into());
            objects.push(NfListObject::Element(schema::Element { family: own_family, table, name, elem }));
        }
    }
    objects
}

fn chain(table: &Table, chain: &Chain) -> schema::Chain<'static> {
    let own = schema::Chain {
        family: family(table.family),
        table: table.name.into(),
        name: chain.name.into(),
        ..schema::Chain::default()
    };
    let Some(Hook { kind, point, priority, device, policy }) = &chain.hook else { return own };
    schema::Chain {
        _type: Some(match kind {
            ChainType::Filter => NfChainType::Filter,
            ChainType::Nat => NfChainType::NAT,
        }),
        hook: Some(match point {
            HookPoint::Ingress => NfHook::Ingress,
            HookPoint::Prerouting => NfHook::Prerouting,
            HookPoint::Input => NfHook::Input,
            HookPoint::Forward => NfHook::Forward,
            HookPoint::Output => NfHook::Output,
            HookPoint::Postrouting => NfHook::Postrouting,
        }),
        prio: Some(*priority),
        dev: device.clone().map(Cow::Owned),
        policy: Some(match policy {
            Policy::Accept => NfChainPolicy::Accept,
            Policy::Drop => NfChainPolicy::Drop,
        }),
        ..own
    }
}

fn statements(rule: &Rule) -> Cow<'static, [stmt::Statement<'static>]> {
    rule.0.iter().flat_map(statement).collect()
}

/// One, or a set statement and what each of its elements is to do.
fn statement(statement: &Statement) -> Vec<stmt::Statement<'static>> {
    let one = match statement {
        Statement::ConnectionsOver { key, set, limit } => {
            let elem = concatenated(key, field);
            let set = stmt::Set { op: SetOp::Add, elem, set: format!("@{set}").into() };
            let count = CTCount { val: Expression::Number(*limit), inv: Some(true) };
            return vec![stmt::Statement::Set(set), stmt::Statement::CTCount(count)];
        }
        Statement::SetTimeout(name) => stmt::Statement::CTTimeout(text(*name)),
        Statement::Reply => equals(ct("direction"), text("reply")),
        Statement::New => has(ct("state"), &["new"]),
        Statement::Interface(direction, operator, name) => {
            let key = match direction {
                Direction::In => MetaKey::Iifname,
                Direction::Out => MetaKey::Oifname,
            };
            compare(meta(key), operator, text(name.clone()))
        }
        Statement::Loopback(Direction::In) => equals(meta(MetaKey::Iif), text("lo")),
        Statement::Loopback(Direction::Out) => equals(meta(MetaKey::Oif), text("lo")),
        Statement::Address(address, operator, net) => {
            let protocol = match net {
                IpNet::V4(_) => "ip",
                IpNet::V6(_) => "ip6",
            };
            let field = match address {
                Address::Source => "saddr",
                Address::Destination => "daddr",
            };
            let right = if net.prefix_len() == net.max_prefix_len() {
                text(net.addr().to_string())
            } else {
                let addr = Box::new(text(net.network().to_string()));
                named(NamedExpression::Prefix(Prefix { addr, len: net.prefix_len().into() }))
            };
            compare(payload(protocol, field), operator, right)
        }
        Statement::Nfproto(Nfproto::Ipv4) => equals(meta(MetaKey::Nfproto), text("ipv4")),
        Statement::Nfproto(Nfproto::Ipv6) => equals(meta(MetaKey::Nfproto), text("ipv6")),
        Statement::FrameOf(Nfproto::Ipv4) => equals(meta(MetaKey::Protocol), text("ip")),
        Statement::FrameOf(Nfproto::Ipv6) => equals(meta(MetaKey::Protocol), text("ip6")),
        Statement::L4Protocol(protocol) => equals(meta(MetaKey::L4proto), datum(&Datum::Proto(*protocol))),
        Statement::ToPort(port) => equals(payload("th", "dport"), Expression::Number((*port).into())),
        Statement::FromPort(port) => equals(payload("th", "sport"), Expression::Number((*port).into())),
        Statement::EchoRequest(Nfproto::Ipv4) => equals(payload("icmp", "type"), text("echo-request")),
        Statement::EchoRequest(Nfproto::Ipv6) => equals(payload("icmpv6", "type"), text("echo-request")),
        Statement::LinkIcmpv6 => {
            let (left, right) = (payload("icmpv6", "type"), text("mld-listener-query"));
            stmt::Statement::Match(Match { left, right, op: stmt::Operator::GEQ })
        }
        Statement::Established => has(ct("state"), &["established"]),
        Statement::Related => has(ct("state"), &["related"]),
        Statement::Known => has(ct("state"), &["established", "related"]),
        Statement::TranslatedDestination => has(ct("status"), &["dnat"]),
        Statement::LocalDestination => {
            let flags = [FibFlag::Daddr].into();
            equals(named(NamedExpression::Fib(Fib { result: FibResult::Type, flags })), text("local"))
        }
        Statement::Lookup(fields, set) => equals(concatenated(fields, field), text(format!("@{set}"))),
        Statement::SetMark(bits) => {
            let or = BinaryOperation::OR(vec![meta(MetaKey::Mark), Expression::Number(*bits)]);
            change(meta(MetaKey::Mark), Expression::BinaryOperation(Box::new(or)))
        }
        Statement::SetMarkBy(key, map) => change(meta(MetaKey::Mark), mapped(concatenated(key, field), map)),
        Statement::SetEtherDestinationBy(key, map) => {
            change(payload("ether", "daddr"), mapped(concatenated(key, field), map))
        }
        Statement::Arp => equals(payload("ether", "type"), text("arp")),
        Statement::ArpRequest => equals(payload("arp", "operation"), text("request")),
        Statement::SetPacketForHost => change(meta(MetaKey::Pkttype), text("host")),
        Statement::Dnat { family, key, map, keeps_port: _ } => {
            stmt::Statement::DNAT(Some(to(nat_family(*family), mapped(concatenated(key, field), map))))
        }
        Statement::Snat(address) => {
            let family = if address.is_ipv4() { NATFamily::IP } else { NATFamily::IP6 };
            stmt::Statement::SNAT(Some(to(family, text(address.to_string()))))
        }
        Statement::SnatBySource { family, map } => {
            let key = match family {
                Nfproto::Ipv4 => payload("ip", "saddr"),
                Nfproto::Ipv6 => payload("ip6", "saddr"),
            };
            stmt::Statement::SNAT(Some(to(nat_family(*family), mapped(key, map))))
        }
        Statement::Notrack => stmt::Statement::Notrack,
        Statement::Masquerade => stmt::Statement::Masquerade(None),
        Statement::RejectWithReset => reject(RejectType::TCPReset, None),
        Statement::RejectProhibited => reject(RejectType::ICMPX, Some(RejectCode::AdminProhibited)),
        Statement::Jump(chain) => stmt::Statement::Jump(JumpTarget { target: (*chain).into() }),
        Statement::Return => stmt::Statement::Return(None),
        Statement::Accept => stmt::Statement::Accept(None),
        Statement::Drop => stmt::Statement::Drop(None),
    };
    vec![one]
}

fn compare(
    left: Expression<'static>,
    operator: &Operator,
    right: Expression<'static>,
) -> stmt::Statement<'static> {
    let op = match operator {
        Operator::Equal => stmt::Operator::EQ,
        Operator::NotEqual => stmt::Operator::NEQ,
    };
    stmt::Statement::Match(Match { left, right, op })
}

fn equals(left: Expression<'static>, right: Expression<'static>) -> stmt::Statement<'static> {
    compare(left, &Operator::Equal, right)
}

/// Whether one of these bits is set.
fn has(left: Expression<'static>, bits: &[&'static str]) -> stmt::Statement<'static> {
    let right = match bits {
        [bit] => text(*bit),
        _ => Expression::List(bits.iter().map(|bit| text(*bit)).collect()),
    };
    stmt::Statement::Match(Match { left, right, op: stmt::Operator::IN })
}

fn change(key: Expression<'static>, value: Expression<'static>) -> stmt::Statement<'static> {
    stmt::Statement::Mangle(Mangle { key, value })
}

const fn nat_family(family: Nfproto) -> NATFamily {
    match family {
        Nfproto::Ipv4 => NATFamily::IP,
        Nfproto::Ipv6 => NATFamily::IP6,
    }
}

fn to(family: NATFamily, addr: Expression<'static>) -> NAT<'static> {
    NAT { addr: Some(addr), family: Some(family), port: None, flags: None }
}

fn reject(how: RejectType, code: Option<RejectCode>) -> stmt::Statement<'static> {
    stmt::Statement::Reject(Some(Reject::new(Some(how), code)))
}

const fn family(family: Family) -> NfFamily {
    match family {
        Family::Inet => NfFamily::INet,
        Family::Netdev => NfFamily::NetDev,
        Family::Bridge => NfFamily::Bridge,
    }
}
