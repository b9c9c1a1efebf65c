//! What is asked of connection tracking.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{Operator as CmpOperator, Register};

use super::{Encoder, NFTA_EXPR_DATA, NFTA_EXPR_NAME, number};
use crate::kernel::nft::message::{NFT_OBJECT_CT_TIMEOUT, NFTA_LIST_ELEM};
use crate::plan::ruleset::{Field, Nfproto};

const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFTA_DYNSET_EXPR: u16 = 7;
const NFT_DYNSET_OP_ADD: u32 = 0;
const NFTA_CONNLIMIT_COUNT: u16 = 1;
const NFTA_CONNLIMIT_FLAGS: u16 = 2;
const NFT_CONNLIMIT_F_INV: u32 = 1;

pub(super) const NFT_CT_STATE: u32 = 0;
const NFT_CT_DIRECTION: u32 = 1;
pub(super) const NFT_CT_STATUS: u32 = 2;
const NFT_CT_SRC_IP: u32 = 19;
const NFT_CT_SRC_IP6: u32 = 21;
pub(super) const IP_CT_DIR_ORIGINAL: u8 = 0;
pub(super) const IP_CT_DIR_REPLY: u8 = 1;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
pub(super) const ESTABLISHED: u32 = 0b10;
/// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
pub(super) const RELATED: u32 = 0b100;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
pub(super) const NEW: u32 = 0b1000;
/// `IPS_DST_NAT`.
pub(super) const DST_NAT: u32 = 1 << 5;

impl Encoder<'_> {
    pub(super) fn conntrack(&mut self, key: u32, bits: u32) {
        self.push("ct", &[number(2, key), number(1, Register::Reg1.into())]);
        self.mask(Register::Reg1, bits.to_ne_bytes().to_vec(), vec![0; 4]);
        self.compare(CmpOperator::NotEqual, vec![0; 4]);
    }

    pub(super) fn reply(&mut self) {
        self.push("ct", &[number(2, NFT_CT_DIRECTION), number(1, Register::Reg1.into())]);
        self.compare(CmpOperator::Equal, vec![IP_CT_DIR_REPLY]);
    }

    /// The source of what a connection has in that direction. Returns how many bytes of registers the address takes.
    pub(super) fn load_party(&mut self, register: Register, family: Nfproto, direction: u8) -> usize {
        let (key, length) = match family {
            Nfproto::Ipv4 => (NFT_CT_SRC_IP, 4),
            Nfproto::Ipv6 => (NFT_CT_SRC_IP6, 16),
        };
        let direction = DefaultNla::new(3, vec![direction]);
        self.push("ct", &[number(2, key), number(1, register.into()), direction]);
        length
    }

    /// Sets the timeout of that name.
    pub(super) fn set_timeout(&mut self, name: &str) {
        let kind = number(1, NFT_OBJECT_CT_TIMEOUT);
        self.push("objref", &[kind, DefaultNla::new(2, [name.as_bytes(), &[0]].concat())]);
    }

    /// Counts in the set's element of the key, and goes on only past the limit.
    pub(super) fn connections_over(&mut self, key: &[Field], set: &str, limit: u32) {
        self.load(key);
        self.list.nest(NFTA_LIST_ELEM, |expression| {
            expression.text(NFTA_EXPR_NAME, "dynset").nest(NFTA_EXPR_DATA, |data| {
                data.put(&number(NFTA_DYNSET_SREG_KEY, Register::Reg1.into()))
                    .put(&number(NFTA_DYNSET_OP, NFT_DYNSET_OP_ADD))
                    .text(NFTA_DYNSET_SET_NAME, set)
                    .nest(NFTA_DYNSET_EXPR, |counter| {
                        counter.text(NFTA_EXPR_NAME, "connlimit").nest(NFTA_EXPR_DATA, |data| {
                            data.put(&number(NFTA_CONNLIMIT_COUNT, limit))
                                .put(&number(NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV));
                        });
                    });
            });
        });
    }
}
