//! One expression each.

use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Immediate, Meta, MetaKey, Operator as CmpOperator, Payload, Register,
    VerdictAttribute,
};

use super::Encoder;
use crate::kernel::nft::message::NFTA_LIST_ELEM;

pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

impl Encoder<'_> {
    pub(super) fn match_meta(&mut self, key: MetaKey, operator: CmpOperator, data: Vec<u8>) {
        self.load_meta(Register::Reg1, key);
        self.compare(operator, data);
    }

    pub(super) fn load_meta(&mut self, register: Register, key: MetaKey) {
        self.push("meta", &[Meta::Key(key), Meta::DestinationRegister(register)]);
    }

    pub(super) fn set_meta(&mut self, key: MetaKey) {
        self.push("meta", &[Meta::Key(key), Meta::SourceRegister(Register::Reg1)]);
    }

    pub(super) fn load_payload(&mut self, register: Register, base: u32, offset: u32, length: u32) {
        self.push(
            "payload",
            &[
                Payload::DestinationRegister(register),
                Payload::Base(base),
                Payload::Offset(offset),
                Payload::Len(length),
            ],
        );
    }

    /// `register = (register & mask) ^ xor`, in the byte order that the register has. Both are of the same length.
    pub(super) fn mask(&mut self, register: Register, mask: Vec<u8>, xor: Vec<u8>) {
        self.push(
            "bitwise",
            &[
                Bitwise::SourceRegister(register),
                Bitwise::DestinationRegister(register),
                Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
                Bitwise::Mask(DataAttribute::Value(mask)),
                Bitwise::Xor(DataAttribute::Value(xor)),
            ],
        );
    }

    pub(super) fn compare(&mut self, operator: CmpOperator, data: Vec<u8>) {
        self.push(
            "cmp",
            &[Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), Cmp::Data(DataAttribute::Value(data))],
        );
    }

    pub(super) fn immediate(&mut self, data: Vec<u8>) {
        self.push(
            "immediate",
            &[Immediate::DestinationRegister(Register::Reg1), Immediate::Data(DataAttribute::Value(data))],
        );
    }

    pub(super) fn verdict(&mut self, verdict: Vec<VerdictAttribute>) {
        self.push(
            "immediate",
            &[
                Immediate::DestinationRegister(Register::Verdict),
                Immediate::Data(DataAttribute::Verdict(verdict)),
            ],
        );
    }

    pub(super) fn push<A: Emitable>(&mut self, name: &str, attributes: &[A]) {
        self.list.nest(NFTA_LIST_ELEM, |expression| {
            expression.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, |data| {
                for attribute in attributes {
                    data.put(attribute);
                }
            });
        });
    }
}

/// An attribute that is a number, in network byte order as everywhere in nf_tables.
pub(super) fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}
