//! What is asked of a frame, in the tables of bridges and of single devices.

use netlink_packet_netfilter::nftables::{MetaKey, Operator as CmpOperator, Payload, Register};

use super::{Encoder, NFT_PAYLOAD_NETWORK_HEADER};
use crate::plan::ruleset::{Field, Nfproto};

const NFT_PAYLOAD_LL_HEADER: u32 = 0;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// Where things are in an Ethernet header (IEEE 802.3, §3.1.1), in bytes.
const ETHER_DESTINATION: u32 = 0;
const ETHER_SOURCE: u32 = 6;
const ETHER_TYPE: u32 = 12;
const ETH_ALEN: u32 = 6;

/// Where they are in an ARP packet about IPv4 on it (RFC 826).
const ARP_OPERATION: u32 = 6;
const ARP_SENDER_ETHER: u32 = 8;
const ARP_SENDER: u32 = 14;
const ARPOP_REQUEST: u16 = 1;

impl Encoder<'_> {
    /// Goes on only with frames that carry packets of that family.
    pub(super) fn frame_of(&mut self, family: Nfproto) {
        let protocol = match family {
            Nfproto::Ipv4 => ETH_P_IP,
            Nfproto::Ipv6 => ETH_P_IPV6,
        };
        let protocol = protocol.to_be_bytes().to_vec();
        self.match_meta(MetaKey::EtherTypeProtocol, CmpOperator::Equal, protocol);
    }

    /// Goes on only with frames of ARP.
    pub(super) fn arp(&mut self) {
        self.load_payload(Register::Reg1, NFT_PAYLOAD_LL_HEADER, ETHER_TYPE, 2);
        self.compare(CmpOperator::Equal, ETH_P_ARP.to_be_bytes().to_vec());
    }

    /// Goes on only with those that ask.
    pub(super) fn arp_request(&mut self) {
        self.arp();
        self.load_payload(Register::Reg1, NFT_PAYLOAD_NETWORK_HEADER, ARP_OPERATION, 2);
        self.compare(CmpOperator::Equal, ARPOP_REQUEST.to_be_bytes().to_vec());
    }

    /// Sends the frame to the hardware address in the first register.
    pub(super) fn set_ether_destination(&mut self) {
        // No checksum is over it.
        self.push(
            "payload",
            &[
                Payload::SourceRegister(Register::Reg1),
                Payload::Base(NFT_PAYLOAD_LL_HEADER),
                Payload::Offset(ETHER_DESTINATION),
                Payload::Len(ETH_ALEN),
            ],
        );
    }

    /// Loads a field of the frame. Returns how many bytes of registers it takes; `None` for one of another kind.
    pub(super) fn load_of_frame(&mut self, register: Register, field: Field) -> Option<usize> {
        let (base, offset, length) = match field {
            Field::EtherSource => (NFT_PAYLOAD_LL_HEADER, ETHER_SOURCE, ETH_ALEN),
            Field::ArpSenderEther => (NFT_PAYLOAD_NETWORK_HEADER, ARP_SENDER_ETHER, ETH_ALEN),
            Field::ArpSender => (NFT_PAYLOAD_NETWORK_HEADER, ARP_SENDER, 4),
            _ => return None,
        };
        self.load_payload(register, base, offset, length);
        Some(usize::try_from(length.next_multiple_of(4)).unwrap_or(usize::MAX))
    }
}
