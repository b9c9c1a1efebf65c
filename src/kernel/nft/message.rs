//! Tables, sets, chains, rules and elements as nf_tables messages, byte for byte what nft(8) sends.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DevHookNumber, Hook as HookAttribute, HookNumber, InetHookNumber, SetAttribute, SetFlags,
    TableAttribute, TableFlags,
};

use super::expression::{interface, write_expressions};
use crate::kernel::netfilter::Draft;
use crate::plan::ruleset::{
    Chain, ChainType, Datum, Element, Family, HookPoint, Policy, Rule, Table, Timeout, Type,
};

const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFNL_SUBSYS_NONE: u8 = 0;
const NFNL_MSG_BATCH_BEGIN: u8 = 16;
const NFNL_MSG_BATCH_END: u8 = 17;

const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_DESC_CONCAT: u16 = 2;
const NFTA_SET_FIELD_LEN: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_USE: u16 = 6;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
const NFTA_CT_TIMEOUT_L3PROTO: u16 = 1;
const NFTA_CT_TIMEOUT_L4PROTO: u16 = 2;
const NFTA_CT_TIMEOUT_DATA: u16 = 3;
const NFPROTO_INET: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// include/uapi/linux/netfilter/nfnetlink_cttimeout.h.
const CTA_TIMEOUT_TCP_TIME_WAIT: u16 = 7;
const CTA_TIMEOUT_TCP_CLOSE: u16 = 8;
pub(super) const NFTNL_UDATA_TABLE_COMMENT: u8 = 0;

const NFT_MSG_NEWTABLE: u8 = 0;
const NFT_MSG_GETTABLE: u8 = 1;
const NFT_MSG_DELTABLE: u8 = 2;
const NFT_MSG_NEWCHAIN: u8 = 3;
const NFT_MSG_GETCHAIN: u8 = 4;
const NFT_MSG_NEWRULE: u8 = 6;
const NFT_MSG_NEWSET: u8 = 9;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_DELSETELEM: u8 = 14;
const NFT_MSG_NEWOBJ: u8 = 18;
/// Since Linux 6.3.
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
    frame(NFNL_MSG_BATCH_BEGIN)
}

pub(super) fn batch_end() -> Vec<u8> {
    frame(NFNL_MSG_BATCH_END)
}

fn frame(kind: u8) -> Vec<u8> {
    Draft::new(NFNL_SUBSYS_NONE, kind, 0, NetfilterProtoFamily::Unspec, NFNL_SUBSYS_NFTABLES.into()).finish()
}

pub(super) fn new_table(table: &Table) -> Vec<u8> {
    let mut comment = table.comment.as_bytes().to_vec();
    comment.push(0);
    let mut draft = draft(table.family, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
    draft
        .text(NFTA_TABLE_NAME, table.name)
        .put(&TableAttribute::Flags(TableFlags::empty()))
        .value(NFTA_TABLE_USERDATA, &udata(NFTNL_UDATA_TABLE_COMMENT, &comment));
    draft.finish()
}

pub(super) fn get_table(family: Family, name: &str) -> Vec<u8> {
    named_table(family, NFT_MSG_GETTABLE, name)
}

pub(super) fn get_chain(family: Family, table: &str, name: &str) -> Vec<u8> {
    let mut draft = draft(family, NFT_MSG_GETCHAIN, 0);
    draft.text(NFTA_CHAIN_TABLE, table).text(NFTA_CHAIN_NAME, name);
    draft.finish()
}

pub(super) fn destroy_table(family: Family, name: &str) -> Vec<u8> {
    named_table(family, NFT_MSG_DESTROYTABLE, name)
}

fn named_table(family: Family, kind: u8, name: &str) -> Vec<u8> {
    let mut draft = draft(family, kind, 0);
    draft.text(NFTA_TABLE_NAME, name);
    draft.finish()
}

/// What makes a set: or a map, where there is a type of value.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetKind {
    pub(super) name: &'static str,
    pub(super) key: &'static [Type],
    pub(super) value: &'static [Type],
    pub(super) dynamic: bool,
    pub(super) interval: bool,
}

/// A set or a map. `id` is mandatory and unique in the transaction.
pub(super) fn new_set(table: &Table, set: SetKind, id: u32) -> Vec<u8> {
    let SetKind { name, key, value, dynamic, interval } = set;
    let mut flags = if value.is_empty() { SetFlags::empty() } else { SetFlags::Map };
    flags.set(SetFlags::Eval, dynamic);
    flags.set(SetFlags::Interval, interval);
    // Without it the kernel takes the parts together for one number.
    let fields = if interval && key.len() > 1 { key } else { &[] };
    flags.set(SetFlags::Concat, !fields.is_empty());
    let mut draft = draft(table.family, NFT_MSG_NEWSET, NLM_F_CREATE);
    draft
        .text(NFTA_SET_TABLE, table.name)
        .text(NFTA_SET_NAME, name)
        .put(&SetAttribute::Flags(flags))
        .put(&SetAttribute::KeyType(type_number(key)))
        .put(&SetAttribute::KeyLen(type_length(key)));
    let mut userdata = udata(NFTNL_UDATA_SET_KEYBYTEORDER, &byte_order(key).to_ne_bytes());
    if !value.is_empty() {
        draft
            .put(&SetAttribute::DataType(type_number(value)))
            .put(&SetAttribute::DataLen(type_length(value)));
        userdata.extend(udata(NFTNL_UDATA_SET_DATABYTEORDER, &byte_order(value).to_ne_bytes()));
    }
    if !fields.is_empty() {
        draft.nest(NFTA_SET_DESC, |description| {
            description.nest(NFTA_SET_DESC_CONCAT, |list| {
                for field in fields {
                    let length = type_length(&[*field]).to_be_bytes();
                    list.nest(NFTA_LIST_ELEM, |one| {
                        one.value(NFTA_SET_FIELD_LEN, &length);
                    });
                }
            });
        });
    }
    draft.put(&SetAttribute::Id(id)).put(&SetAttribute::UserData(userdata));
    draft.finish()
}

pub(super) fn new_timeout(table: &Table, timeout: &Timeout) -> Vec<u8> {
    let mut draft = draft(table.family, NFT_MSG_NEWOBJ, NLM_F_CREATE);
    draft
        .text(NFTA_OBJ_TABLE, table.name)
        .text(NFTA_OBJ_NAME, timeout.name)
        .value(NFTA_OBJ_TYPE, &NFT_OBJECT_CT_TIMEOUT.to_be_bytes())
        .nest(NFTA_OBJ_DATA, |data| {
            data.value(NFTA_CT_TIMEOUT_L3PROTO, &NFPROTO_INET.to_be_bytes())
                .value(NFTA_CT_TIMEOUT_L4PROTO, &[IPPROTO_TCP])
                .nest(NFTA_CT_TIMEOUT_DATA, |policy| {
                    policy
                        .value(CTA_TIMEOUT_TCP_TIME_WAIT, &timeout.time_wait.to_be_bytes())
                        .value(CTA_TIMEOUT_TCP_CLOSE, &timeout.close.to_be_bytes());
                });
        });
    draft.finish()
}

pub(super) fn new_chain(table: &Table, chain: &Chain) -> Vec<u8> {
    let mut draft = draft(table.family, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    draft.text(NFTA_CHAIN_TABLE, table.name).text(NFTA_CHAIN_NAME, chain.name);
    if let Some(hook) = &chain.hook {
        let kind = match hook.kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let policy = match hook.policy {
            Policy::Accept => NF_ACCEPT,
            Policy::Drop => NF_DROP,
        };
        draft.nest(NFTA_CHAIN_HOOK, |place| {
            place.put(&HookAttribute::Number(hook_number(hook.point)));
            place.put(&HookAttribute::Priority(hook.priority.cast_unsigned()));
            if let Some(device) = &hook.device {
                place.put(&HookAttribute::NetDeviceName(device.clone()));
            }
        });
        draft.put(&ChainAttribute::Type(kind.into())).put(&ChainAttribute::Policy(policy));
    }
    draft.finish()
}

pub(super) fn new_rule(table: &Table, chain: &Chain, rule: &Rule) -> Vec<u8> {
    let mut draft = draft(table.family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    draft
        .text(NFTA_RULE_TABLE, table.name)
        .text(NFTA_RULE_CHAIN, chain.name)
        .nest(NFTA_RULE_EXPRESSIONS, |list| write_expressions(list, table.family, rule));
    draft.finish()
}

/// Elements of one set. So few that they fit into one attribute, whose length is a u16.
pub(super) fn elements(family: Family, table: &str, verb: Verb, elements: &[Element]) -> Vec<u8> {
    let (kind, flags) = match verb {
        Verb::Add => (NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL),
        Verb::Put => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
        Verb::Destroy => (NFT_MSG_DESTROYSETELEM, 0),
    };
    let mut draft = draft(family, kind, flags);
    draft
        .text(NFTA_SET_ELEM_LIST_TABLE, table)
        .text(NFTA_SET_ELEM_LIST_SET, elements.first().map_or("", |element| element.set))
        .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for element in elements {
                list.nest(NFTA_LIST_ELEM, |parts| {
                    parts.nest(NFTA_SET_ELEM_KEY, |key| write_data(key, &element.key));
                    if let Some(last) = last_of_concatenation(element) {
                        parts.nest(NFTA_SET_ELEM_KEY_END, |key| write_data(key, &last));
                    }
                    if !element.value.is_empty() {
                        parts.nest(NFTA_SET_ELEM_DATA, |value| write_data(value, &element.value));
                    }
                });
                if let Some(end) = behind(element) {
                    list.nest(NFTA_LIST_ELEM, |parts| {
                        parts.nest(NFTA_SET_ELEM_KEY, |key| write_data(key, &[end]));
                        parts.value(NFTA_SET_ELEM_FLAGS, &NFT_SET_ELEM_INTERVAL_END.to_be_bytes());
                    });
                }
            }
        });
    draft.finish()
}

/// A "destroy" message as two that every kernel knows: create what may be there already, then delete it.
/// `None` for any other message.
pub(super) fn without_destroy(message: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (create, delete) = match message_type(message)? {
        NFT_MSG_DESTROYTABLE => (NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE),
        NFT_MSG_DESTROYSETELEM => (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM),
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
        let [type0, type1] = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, kind]).to_ne_bytes();
        let [flags0, flags1] = (NLM_F_REQUEST | flags).to_ne_bytes();
        header.copy_from_slice(&[type0, type1, flags0, flags1]);
    }
    message
}

fn draft(family: Family, kind: u8, flags: u16) -> Draft {
    let family = match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Netdev => NetfilterProtoFamily::NetDev,
        Family::Bridge => NetfilterProtoFamily::Bridge,
    };
    Draft::new(NFNL_SUBSYS_NFTABLES, kind, flags, family, 0)
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
            Type::Ipv6 => 8,
            Type::Ether => 9,
            Type::Proto => 12,
            Type::Port => 13,
            Type::Mark => 19,
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
        Type::Ipv4 | Type::Mark => 4,
        Type::Ether => 6,
        Type::Ipv6 | Type::Ifname => 16,
    };
    match types {
        [one] => length(one),
        many => many.iter().map(|part| length(part).next_multiple_of(4)).sum(),
    }
}

/// nft's `enum byteorder`: none for what is concatenated.
fn byte_order(types: &[Type]) -> u32 {
    const INVALID: u32 = 0;
    const HOST_ENDIAN: u32 = 1;
    const BIG_ENDIAN: u32 = 2;
    match types {
        [Type::Ifname | Type::Mark] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => INVALID,
    }
}

/// The port or address behind a range, with which the kernel ends it: an element of its own. None is behind the last of all.
fn behind(element: &Element) -> Option<Datum> {
    match element.key[..] {
        [Datum::Ports(_, last)] => last.checked_add(1).map(Datum::Port),
        [Datum::Net(net)] => {
            u32::from(net.broadcast()).checked_add(1).map(|end| Datum::Ipv4(Ipv4Addr::from(end)))
        }
        _ => None,
    }
}

/// The last values of an element whose key is of several networks: there the kernel ends it in the element itself.
fn last_of_concatenation(element: &Element) -> Option<Vec<Datum>> {
    let last = |part: &Datum| match part {
        Datum::Net(net) => Some(Datum::Ipv4(net.broadcast())),
        _ => None,
    };
    (element.key.len() > 1).then(|| element.key.iter().map(last).collect())?
}

/// How many elements the kernel sees of one.
pub(super) fn count(element: &Element) -> usize {
    1 + usize::from(behind(element).is_some())
}

/// The value of a key or of what a map holds.
fn write_data(draft: &mut Draft, parts: &[Datum]) {
    draft.bytes(NFTA_DATA_VALUE, |bytes| {
        let start = bytes.len();
        for part in parts {
            match part {
                Datum::Ifname(name) => bytes.extend(interface(name)),
                Datum::Ether(mac) => bytes.extend(mac),
                Datum::Mark(number) => bytes.extend(number.to_ne_bytes()),
                Datum::Ipv4(address) => bytes.extend(address.octets()),
                Datum::Net(net) => bytes.extend(net.network().octets()),
                Datum::Ipv6(address) => bytes.extend(address.octets()),
                Datum::Proto(number) => bytes.push(*number),
                // Of a range, where it begins.
                Datum::Port(port) | Datum::Ports(port, _) => bytes.extend(port.to_be_bytes()),
            }
            if parts.len() > 1 {
                let length = (bytes.len() - start).next_multiple_of(4);
                bytes.resize(start + length, 0);
            }
        }
    });
}
