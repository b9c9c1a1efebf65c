//! What a statement compares, looks up or sets, in the types of the `nftables` crate.

use std::borrow::Cow;

use nftables::expr::{
    BinaryOperation, CT, CTDir, Expression, Map as MapExpression, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Prefix, Range,
};
use nftables::schema::{SetType, SetTypeValue};

use crate::plan::ruleset::{BLOCK, Datum, Element, Field, Type};

pub(super) fn mapped(key: Expression<'static>, map: &str) -> Expression<'static> {
    named(NamedExpression::Map(Box::new(MapExpression { key, data: text(format!("@{map}")) })))
}

pub(super) fn field(field: &Field) -> Expression<'static> {
    match field {
        Field::InputInterface => meta(MetaKey::Iifname),
        Field::OutputInterface => meta(MetaKey::Oifname),
        Field::Mark => meta(MetaKey::Mark),
        Field::EtherSource => payload("ether", "saddr"),
        Field::ArpSenderEther => payload("arp", "saddr ether"),
        Field::ArpSender => payload("arp", "saddr ip"),
        Field::SourceAddress => payload("ip", "saddr"),
        Field::DestinationAddress => payload("ip", "daddr"),
        Field::SourceAddress6 => payload("ip6", "saddr"),
        Field::DestinationAddress6 => payload("ip6", "daddr"),
        Field::Opener => ct_of("ip saddr", CTDir::Original),
        Field::Answerer => ct_of("ip saddr", CTDir::Reply),
        Field::Opener6 => ct_of("ip6 saddr", CTDir::Original),
        Field::Answerer6 => ct_of("ip6 saddr", CTDir::Reply),
        Field::L4Protocol => meta(MetaKey::L4proto),
        Field::DestinationPort => payload("th", "dport"),
        Field::DestinationBlock => {
            let mask = Expression::Number((!(BLOCK - 1)).into());
            let and = BinaryOperation::AND(payload("th", "dport"), mask);
            Expression::BinaryOperation(Box::new(and))
        }
        Field::TcpPort => payload("tcp", "dport"),
        Field::UdpPort => payload("udp", "dport"),
    }
}

pub(super) fn element(element: &Element) -> Expression<'static> {
    let key = concatenated(&element.key, datum);
    if element.value.is_empty() {
        return key;
    }
    Expression::List(vec![key, concatenated(&element.value, datum)])
}

pub(super) fn datum(datum: &Datum) -> Expression<'static> {
    match datum {
        Datum::Port(port) => Expression::Number((*port).into()),
        // A protocol with a name is named.
        Datum::Proto(number) if Datum::Proto(*number).to_string() == number.to_string() => {
            Expression::Number((*number).into())
        }
        Datum::Mark(number) => Expression::Number(*number),
        Datum::Proto(_) | Datum::Ether(_) | Datum::Ipv4(_) | Datum::Ipv6(_) => text(datum.to_string()),
        Datum::Ifname(name) => text(name.clone()),
        Datum::Net(net) if net.prefix_len() == net.max_prefix_len() => text(net.addr().to_string()),
        Datum::Net(net) => {
            let addr = Box::new(text(net.network().to_string()));
            named(NamedExpression::Prefix(Prefix { addr, len: net.prefix_len().into() }))
        }
        Datum::Ports(first, last) => {
            let range = [*first, *last].map(|port| Expression::Number(port.into()));
            Expression::Range(Box::new(Range { range }))
        }
    }
}

pub(super) fn types(parts: &[Type]) -> SetTypeValue<'static> {
    let types: Vec<_> = parts
        .iter()
        .map(|part| match part {
            Type::Ifname => SetType::Ifname,
            Type::Ether => SetType::EtherAddr,
            Type::Mark => SetType::Mark,
            Type::Ipv4 => SetType::Ipv4Addr,
            Type::Ipv6 => SetType::Ipv6Addr,
            Type::Proto => SetType::InetProto,
            Type::Port => SetType::InetService,
        })
        .collect();
    match types[..] {
        [single] => SetTypeValue::Single(single),
        _ => SetTypeValue::Concatenated(types.into()),
    }
}

pub(super) fn concatenated<T>(parts: &[T], one: fn(&T) -> Expression<'static>) -> Expression<'static> {
    match parts {
        [single] => one(single),
        _ => named(NamedExpression::Concat(parts.iter().map(one).collect())),
    }
}

pub(super) const fn named(expression: NamedExpression<'static>) -> Expression<'static> {
    Expression::Named(expression)
}

pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Expression<'static> {
    Expression::String(text.into())
}

pub(super) const fn meta(key: MetaKey) -> Expression<'static> {
    named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn ct(key: &'static str) -> Expression<'static> {
    named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

pub(super) fn ct_of(key: &'static str, dir: CTDir) -> Expression<'static> {
    named(NamedExpression::CT(CT { key: key.into(), family: None, dir: Some(dir) }))
}

pub(super) fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    named(NamedExpression::Payload(Payload::PayloadField(field)))
}
