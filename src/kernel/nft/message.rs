//! Tables, sets, chains, rules and elements as nf_tables messages, byte for byte what nft(8) sends.

use netlink_packet_core::{
    DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, DevHookNumber, Hook as HookAttribute, HookNumber,
    InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags,
    TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::expression::{expressions, interface};
use crate::plan::ruleset::{Chain, ChainType, Datum, Element, Family, HookPoint, Policy, Rule, Table, Type};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFTNL_UDATA_TABLE_COMMENT: u8 = 0;

/// Message types that the crate has no name for (Linux 6.3).
const NFT_MSG_DESTROYTABLE: u8 = 26;
const NFT_MSG_DESTROYSETELEM: u8 = 30;

/// The user data of sets, from libnftnl's `udata.h`: without it, nft(8) prints host-endian keys reversed.
const NFTNL_UDATA_SET_KEYBYTEORDER: u8 = 0;
const NFTNL_UDATA_SET_DATABYTEORDER: u8 = 1;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// How elements are put in or taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// `NLM_F_EXCL`: an element that is there already is an error.
    Add,
    /// An element that is there already stays, provided that it has the same value.
    Put,
    /// An element that is absent is no error.
    Destroy,
}

pub(super) fn batch_begin() -> Vec<u8> {
    frame(ControlMessage::BatchBegin)
}

pub(super) fn batch_end() -> Vec<u8> {
    frame(ControlMessage::BatchEnd)
}

fn frame(message: ControlMessage) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    serialize(NetfilterMessage::new(header, message), 0)
}

pub(super) fn new_table(table: &Table) -> Vec<u8> {
    let mut comment = table.comment.as_bytes().to_vec();
    comment.push(0);
    let attributes = vec![
        TableAttribute::Name(table.name.into()),
        TableAttribute::Flags(TableFlags::empty()),
        TableAttribute::UserData(udata(NFTNL_UDATA_TABLE_COMMENT, &comment)),
    ];
    encode(table.family, NfTablesMessage::NewTable(TableMessage { attributes }), NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn get_table(family: Family, name: &str) -> Vec<u8> {
    let attributes = vec![TableAttribute::Name(name.into())];
    encode(family, NfTablesMessage::GetTable(TableMessage { attributes }), 0)
}

pub(super) fn destroy_table(family: Family, name: &str) -> Vec<u8> {
    const NFTA_TABLE_NAME: u16 = 1;
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let attributes = vec![DefaultNla::new(NFTA_TABLE_NAME, value)];
    encode(family, NfTablesMessage::Other { message_type: NFT_MSG_DESTROYTABLE, attributes }, 0)
}

/// A set, or a map where there is a type of value. `id` is mandatory and unique in the transaction.
pub(super) fn new_set(table: &Table, name: &str, key: &[Type], value: &[Type], id: u32) -> Vec<u8> {
    let flags = if value.is_empty() { SetFlags::empty() } else { SetFlags::Map };
    let mut attributes = vec![
        SetAttribute::Table(table.name.into()),
        SetAttribute::Name(name.into()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(type_number(key)),
        SetAttribute::KeyLen(type_length(key)),
    ];
    let mut userdata = udata(NFTNL_UDATA_SET_KEYBYTEORDER, &byte_order(key).to_ne_bytes());
    if !value.is_empty() {
        attributes.push(SetAttribute::DataType(type_number(value)));
        attributes.push(SetAttribute::DataLen(type_length(value)));
        userdata.extend(udata(NFTNL_UDATA_SET_DATABYTEORDER, &byte_order(value).to_ne_bytes()));
    }
    attributes.push(SetAttribute::Id(id));
    attributes.push(SetAttribute::UserData(userdata));
    encode(table.family, NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE)
}

pub(super) fn new_chain(table: &Table, chain: &Chain) -> Vec<u8> {
    let mut attributes =
        vec![ChainAttribute::Table(table.name.into()), ChainAttribute::Name(chain.name.into())];
    if let Some(hook) = &chain.hook {
        let mut place = vec![
            HookAttribute::Number(hook_number(hook.point)),
            HookAttribute::Priority(hook.priority.cast_unsigned()),
        ];
        if let Some(device) = &hook.device {
            place.push(HookAttribute::NetDeviceName(device.clone()));
        }
        let kind = match hook.kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let policy = match hook.policy {
            Policy::Accept => NF_ACCEPT,
            Policy::Drop => NF_DROP,
        };
        attributes.push(ChainAttribute::Hook(place));
        attributes.push(ChainAttribute::Type(kind.into()));
        attributes.push(ChainAttribute::Policy(policy));
    }
    encode(table.family, NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE)
}

pub(super) fn new_rule(table: &Table, chain: &Chain, rule: &Rule) -> Vec<u8> {
    let attributes = vec![
        RuleAttribute::Table(table.name.into()),
        RuleAttribute::Chain(chain.name.into()),
        RuleAttribute::Expressions(expressions(table.family, rule)),
    ];
    encode(table.family, NfTablesMessage::NewRule(RuleMessage { attributes }), NLM_F_CREATE | NLM_F_APPEND)
}

/// Elements of one set. So few that they fit into one attribute, whose length is a u16.
pub(super) fn elements(family: Family, table: &str, verb: Verb, elements: &[Element]) -> Vec<u8> {
    let set = elements.first().map_or("", |element| element.set);
    let list = elements
        .iter()
        .map(|element| {
            let mut attributes = vec![SetElementAttribute::Key(data(&element.key))];
            if !element.value.is_empty() {
                attributes.push(SetElementAttribute::Data(data(&element.value)));
            }
            ListAttribute::Element(attributes)
        })
        .collect();
    let attributes = vec![
        SetElementList::Table(table.into()),
        SetElementList::Set(set.into()),
        SetElementList::Elements(list),
    ];
    let message = NfTablesMessage::NewSetElement(SetElementMessage { attributes });
    match verb {
        Verb::Add => encode(family, message, NLM_F_CREATE | NLM_F_EXCL),
        Verb::Put => encode(family, message, NLM_F_CREATE),
        Verb::Destroy => retype(&encode(family, message, 0), NFT_MSG_DESTROYSETELEM, 0),
    }
}

/// A "destroy" message as two that every kernel knows: create what may be there already, then delete it.
/// `None` for any other message.
pub(super) fn without_destroy(message: &[u8]) -> Option<[Vec<u8>; 2]> {
    const NEWTABLE: u8 = 0;
    const DELTABLE: u8 = 2;
    const NEWSETELEM: u8 = 12;
    const DELSETELEM: u8 = 14;
    let (create, delete) = match message_type(message)? {
        NFT_MSG_DESTROYTABLE => (NEWTABLE, DELTABLE),
        NFT_MSG_DESTROYSETELEM => (NEWSETELEM, DELSETELEM),
        _ => return None,
    };
    Some([retype(message, create, NLM_F_CREATE), retype(message, delete, 0)])
}

/// The type of an nf_tables message, without its subsystem.
fn message_type(message: &[u8]) -> Option<u8> {
    let [number, _] = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?).to_le_bytes();
    Some(number)
}

/// The same message under another type.
fn retype(message: &[u8], kind: u8, flags: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(header) = message.get_mut(4..8) {
        let [type0, type1] = ((NFNL_SUBSYS_NFTABLES << 8) | u16::from(kind)).to_ne_bytes();
        let [flags0, flags1] = (NLM_F_REQUEST | flags).to_ne_bytes();
        header.copy_from_slice(&[type0, type1, flags0, flags1]);
    }
    message
}

fn encode(family: Family, message: NfTablesMessage, flags: u16) -> Vec<u8> {
    let family = match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Netdev => NetfilterProtoFamily::NetDev,
    };
    let header = NetfilterHeader::new(family, 0, 0);
    serialize(NetfilterMessage::new(header, message), flags)
}

fn serialize(message: NetfilterMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn hook_number(point: HookPoint) -> HookNumber {
    match point {
        HookPoint::Ingress => DevHookNumber::Ingress.into(),
        HookPoint::Prerouting => InetHookNumber::PreRouting.into(),
        HookPoint::Input => InetHookNumber::LocalIn.into(),
        HookPoint::Forward => InetHookNumber::Forward.into(),
        HookPoint::Output => InetHookNumber::LocalOut.into(),
        HookPoint::Postrouting => InetHookNumber::PostRouting.into(),
    }
}

/// One attribute of user data: type, length, bytes.
fn udata(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![kind, length];
    bytes.extend(value.iter().take(usize::from(length)));
    bytes
}

/// The numbers of nft's types (its `datatype.h`), six bits each. The kernel only keeps them for nft.
fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, part| {
        let part = match part {
            Type::Ipv4 => 7,
            Type::Proto => 12,
            Type::Port => 13,
            Type::Ifname => 41,
        };
        (number << 6) | part
    })
}

/// The length in bytes: what is concatenated is padded to whole registers of 4.
fn type_length(types: &[Type]) -> u32 {
    let length = |part: &Type| match part {
        Type::Proto => 1,
        Type::Port => 2,
        Type::Ipv4 => 4,
        Type::Ifname => 16,
    };
    match types {
        [one] => length(one),
        many => many.iter().map(|part| length(part).max(4)).sum(),
    }
}

/// nft's `enum byteorder`: none for what is concatenated.
fn byte_order(types: &[Type]) -> u32 {
    const INVALID: u32 = 0;
    const HOST_ENDIAN: u32 = 1;
    const BIG_ENDIAN: u32 = 2;
    match types {
        [Type::Ifname] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => INVALID,
    }
}

/// The value of a key or of what a map holds.
fn data(parts: &[Datum]) -> DataAttribute {
    let mut bytes = Vec::with_capacity(parts.len() * 4);
    for part in parts {
        match part {
            Datum::Ifname(name) => bytes.extend(interface(name)),
            Datum::Ipv4(address) => bytes.extend(address.octets()),
            Datum::Proto(number) => bytes.push(*number),
            Datum::Port(port) => bytes.extend(port.to_be_bytes()),
        }
        if parts.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    DataAttribute::Value(bytes)
}
