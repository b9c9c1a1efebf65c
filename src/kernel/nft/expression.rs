//! Statements as the kernel's expressions: loads into registers, comparisons, look-ups, verdicts.
//!
//! The same sequences as nft(8) makes, so that it can read them back into the same text.

mod frame;
mod single;
mod tracking;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Lookup, MetaKey, Operator as CmpOperator, Register, Verdict, VerdictAttribute,
};

use single::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, number};
use tracking::{
    DST_NAT, ESTABLISHED, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, NEW, NFT_CT_STATE, NFT_CT_STATUS, RELATED,
};

use crate::kernel::netfilter::Draft;
use crate::plan::ruleset::{Address, BLOCK, Direction, Family, Field, Nfproto, Operator, Rule, Statement};

const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
/// The first of those that are about a link (RFC 2710).
const MLD_LISTENER_QUERY: u8 = 130;
const PACKET_HOST: u8 = 0;
const RTN_LOCAL: u32 = 2;

const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// The number of the loopback interface in every network namespace (include/net/flow.h).
const LOOPBACK_IFINDEX: u32 = 1;

/// The length of an interface's name with its padding, in bytes (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Writes the expressions of a rule.
pub(super) fn write_expressions(list: &mut Draft, family: Family, rule: &Rule) {
    let mut encoder = Encoder { list, family, known: None };
    for statement in &rule.0 {
        encoder.statement(statement);
    }
}

/// An interface's name as the kernel compares it.
pub(super) fn interface(name: &str) -> [u8; IFNAMSIZ] {
    let mut bytes = [0; IFNAMSIZ];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

const fn nfproto(family: Nfproto) -> u8 {
    match family {
        Nfproto::Ipv4 => NFPROTO_IPV4,
        Nfproto::Ipv6 => NFPROTO_IPV6,
    }
}

struct Encoder<'a> {
    list: &'a mut Draft,
    /// The table's: in some an offset into the header means something else in each family of packets.
    family: Family,
    /// The one family that what was encoded so far matches.
    known: Option<Nfproto>,
}

impl Encoder<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Interface(direction, operator, name) => self.interface(*direction, *operator, name),
            Statement::Loopback(direction) => {
                let key = match direction {
                    Direction::In => MetaKey::Iif,
                    Direction::Out => MetaKey::Oif,
                };
                self.match_meta(key, CmpOperator::Equal, LOOPBACK_IFINDEX.to_ne_bytes().to_vec());
            }
            Statement::Address(address, operator, net) => self.address(*address, *operator, net),
            Statement::Nfproto(family) => self.need(*family),
            Statement::FrameOf(family) => self.frame_of(*family),
            Statement::Arp => self.arp(),
            Statement::ArpRequest => self.arp_request(),
            Statement::L4Protocol(number) => {
                self.match_meta(MetaKey::L4Proto, CmpOperator::Equal, vec![*number]);
            }
            Statement::ToPort(port) => {
                self.load_payload(Register::Reg1, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                self.compare(CmpOperator::Equal, port.to_be_bytes().to_vec());
            }
            Statement::FromPort(port) => {
                self.load_payload(Register::Reg1, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2);
                self.compare(CmpOperator::Equal, port.to_be_bytes().to_vec());
            }
            Statement::EchoRequest(family) => {
                let (protocol, kind) = match family {
                    Nfproto::Ipv4 => (IPPROTO_ICMP, ICMP_ECHO_REQUEST),
                    Nfproto::Ipv6 => (IPPROTO_ICMPV6, ICMPV6_ECHO_REQUEST),
                };
                self.need(*family);
                self.match_meta(MetaKey::L4Proto, CmpOperator::Equal, vec![protocol]);
                self.load_payload(Register::Reg1, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
                self.compare(CmpOperator::Equal, vec![kind]);
            }
            Statement::LinkIcmpv6 => {
                self.need(Nfproto::Ipv6);
                self.match_meta(MetaKey::L4Proto, CmpOperator::Equal, vec![IPPROTO_ICMPV6]);
                self.load_payload(Register::Reg1, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
                self.compare(CmpOperator::GreatherThanEqual, vec![MLD_LISTENER_QUERY]);
            }
            Statement::Established => self.conntrack(NFT_CT_STATE, ESTABLISHED),
            Statement::Related => self.conntrack(NFT_CT_STATE, RELATED),
            Statement::Known => self.conntrack(NFT_CT_STATE, ESTABLISHED | RELATED),
            Statement::Reply => self.reply(),
            Statement::New => self.conntrack(NFT_CT_STATE, NEW),
            Statement::SetTimeout(name) => self.set_timeout(name),
            Statement::ConnectionsOver { key, set, limit } => self.connections_over(key, set, *limit),
            Statement::TranslatedDestination => self.conntrack(NFT_CT_STATUS, DST_NAT),
            Statement::LocalDestination => {
                let register = number(1, Register::Reg1.into());
                let result = number(2, NFT_FIB_RESULT_ADDRTYPE);
                self.push("fib", &[register, result, number(3, NFTA_FIB_F_DADDR)]);
                self.compare(CmpOperator::Equal, RTN_LOCAL.to_ne_bytes().to_vec());
            }
            Statement::Lookup(fields, set) => {
                self.load(fields);
                let set = Lookup::Set((*set).into());
                self.push("lookup", &[set, Lookup::SourceRegister(Register::Reg1)]);
            }
            Statement::SetMark(bits) => {
                self.load_meta(Register::Reg1, MetaKey::Mark);
                self.mask(Register::Reg1, (!*bits).to_ne_bytes().to_vec(), bits.to_ne_bytes().to_vec());
                self.set_meta(MetaKey::Mark);
            }
            Statement::SetMarkBy(key, map) => {
                self.look_up_value(key, map);
                self.set_meta(MetaKey::Mark);
            }
            Statement::SetEtherDestinationBy(key, map) => {
                self.look_up_value(key, map);
                self.set_ether_destination();
            }
            Statement::SetPacketForHost => {
                self.immediate(vec![PACKET_HOST]);
                self.set_meta(MetaKey::PacketType);
            }
            Statement::Dnat { family, key, map, keeps_port } => {
                self.look_up_value(key, map);
                // The address is in the first registers of 4 bytes, the port in the next.
                let port = match family {
                    Nfproto::Ipv4 => Register::Reg32_01,
                    Nfproto::Ipv6 => Register::Reg32_04,
                };
                self.nat(NFT_NAT_DNAT, *family, (!keeps_port).then_some(port));
            }
            Statement::Snat(address) => {
                let (family, bytes) = match address {
                    IpAddr::V4(address) => (Nfproto::Ipv4, address.octets().to_vec()),
                    IpAddr::V6(address) => (Nfproto::Ipv6, address.octets().to_vec()),
                };
                self.immediate(bytes);
                self.nat(NFT_NAT_SNAT, family, None);
            }
            Statement::SnatBySource { family, map } => {
                let source = match family {
                    Nfproto::Ipv4 => Field::SourceAddress,
                    Nfproto::Ipv6 => Field::SourceAddress6,
                };
                self.look_up_value(&[source], map);
                self.nat(NFT_NAT_SNAT, *family, None);
            }
            Statement::Notrack => self.push::<DefaultNla>("notrack", &[]),
            Statement::Masquerade => self.push::<DefaultNla>("masq", &[]),
            Statement::RejectWithReset => self.reject(NFT_REJECT_TCP_RST, 0),
            Statement::RejectProhibited => {
                self.reject(NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
            }
            Statement::Jump(chain) => {
                self.verdict(vec![
                    VerdictAttribute::Code(Verdict::Jump),
                    VerdictAttribute::Chain((*chain).into()),
                ]);
            }
            Statement::Return => self.verdict(vec![VerdictAttribute::Code(Verdict::Return)]),
            Statement::Accept => self.verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_ACCEPT))]),
            Statement::Drop => self.verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))]),
        }
    }

    fn interface(&mut self, direction: Direction, operator: Operator, name: &str) {
        let key = match direction {
            Direction::In => MetaKey::Iifname,
            Direction::Out => MetaKey::Oifname,
        };
        let data = match name.strip_suffix('*') {
            Some(prefix) => prefix.as_bytes().to_vec(),
            None => interface(name).to_vec(),
        };
        self.match_meta(key, cmp_operator(operator), data);
    }

    fn address(&mut self, address: Address, operator: Operator, net: &IpNet) {
        let family = match net {
            IpNet::V4(_) => Nfproto::Ipv4,
            IpNet::V6(_) => Nfproto::Ipv6,
        };
        self.need(family);
        let (offset, length) = place(address, family);
        let (network, netmask) = (octets(net.network()), octets(net.netmask()));
        let (whole, rest) = (net.prefix_len() / 8, net.prefix_len() % 8);
        if rest == 0 && whole > 0 {
            // A prefix of whole bytes needs no mask: only those are loaded.
            let bytes = network.into_iter().take(usize::from(whole)).collect();
            self.load_payload(Register::Reg1, NFT_PAYLOAD_NETWORK_HEADER, offset, u32::from(whole));
            self.compare(cmp_operator(operator), bytes);
        } else {
            self.load_payload(Register::Reg1, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
            let xor = vec![0; netmask.len()];
            self.mask(Register::Reg1, netmask, xor);
            self.compare(cmp_operator(operator), network);
        }
    }

    fn need(&mut self, family: Nfproto) {
        if self.known == Some(family) {
            return;
        }
        match self.family {
            Family::Inet => self.match_meta(MetaKey::Nfproto, CmpOperator::Equal, vec![nfproto(family)]),
            Family::Bridge => self.frame_of(family),
            // Said by the rule, where it matters.
            Family::Netdev => return,
        }
        self.known = Some(family);
    }

    /// Loads fields side by side, from the first register on.
    fn load(&mut self, fields: &[Field]) {
        if let Some(family) = fields.iter().find_map(|field| field.family()) {
            self.need(family);
        }
        for field in fields {
            match field {
                Field::TcpPort => self.match_meta(MetaKey::L4Proto, CmpOperator::Equal, vec![IPPROTO_TCP]),
                Field::UdpPort => self.match_meta(MetaKey::L4Proto, CmpOperator::Equal, vec![IPPROTO_UDP]),
                _ => {}
            }
        }
        let mut offset = 0;
        for field in fields {
            let register = register(offset);
            offset += match field {
                Field::InputInterface => {
                    self.load_meta(register, MetaKey::Iifname);
                    IFNAMSIZ
                }
                Field::OutputInterface => {
                    self.load_meta(register, MetaKey::Oifname);
                    IFNAMSIZ
                }
                Field::Mark => {
                    self.load_meta(register, MetaKey::Mark);
                    4
                }
                Field::EtherSource | Field::ArpSenderEther | Field::ArpSender => {
                    self.load_of_frame(register, *field).unwrap_or_default()
                }
                Field::SourceAddress => self.load_address(register, Address::Source, Nfproto::Ipv4),
                Field::DestinationAddress => self.load_address(register, Address::Destination, Nfproto::Ipv4),
                Field::SourceAddress6 => self.load_address(register, Address::Source, Nfproto::Ipv6),
                Field::DestinationAddress6 => {
                    self.load_address(register, Address::Destination, Nfproto::Ipv6)
                }
                Field::Opener => self.load_party(register, Nfproto::Ipv4, IP_CT_DIR_ORIGINAL),
                Field::Answerer => self.load_party(register, Nfproto::Ipv4, IP_CT_DIR_REPLY),
                Field::Opener6 => self.load_party(register, Nfproto::Ipv6, IP_CT_DIR_ORIGINAL),
                Field::Answerer6 => self.load_party(register, Nfproto::Ipv6, IP_CT_DIR_REPLY),
                Field::L4Protocol => {
                    self.load_meta(register, MetaKey::L4Proto);
                    4
                }
                Field::DestinationPort | Field::TcpPort | Field::UdpPort => {
                    self.load_payload(register, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                    4
                }
                Field::DestinationBlock => {
                    self.load_payload(register, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
                    self.mask(register, (!(BLOCK - 1)).to_be_bytes().to_vec(), vec![0; 2]);
                    4
                }
            };
        }
    }

    /// Returns how many bytes of registers the address takes.
    fn load_address(&mut self, register: Register, address: Address, family: Nfproto) -> usize {
        let (offset, length) = place(address, family);
        self.load_payload(register, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
        match family {
            Nfproto::Ipv4 => 4,
            Nfproto::Ipv6 => 16,
        }
    }

    /// Replaces the key by the value that the map has for it.
    fn look_up_value(&mut self, key: &[Field], map: &str) {
        self.load(key);
        let (from, to) =
            (Lookup::SourceRegister(Register::Reg1), Lookup::DestinationRegister(Register::Reg1));
        self.push("lookup", &[Lookup::Set(map.into()), from, to]);
    }

    fn nat(&mut self, kind: u32, family: Nfproto, port: Option<Register>) {
        let family = nfproto(family).into();
        let mut attributes = vec![number(1, kind), number(2, family), number(3, Register::Reg1.into())];
        attributes.extend(port.map(|register| number(5, register.into())));
        self.push("nat", &attributes);
    }

    fn reject(&mut self, kind: u32, code: u8) {
        self.push("reject", &[number(1, kind), DefaultNla::new(2, vec![code])]);
    }
}

/// Where an address is in the header of its family, and how long, in bytes (RFC 791 §3.1, RFC 8200 §3).
const fn place(address: Address, family: Nfproto) -> (u32, u32) {
    match (family, address) {
        (Nfproto::Ipv4, Address::Source) => (12, 4),
        (Nfproto::Ipv4, Address::Destination) => (16, 4),
        (Nfproto::Ipv6, Address::Source) => (8, 16),
        (Nfproto::Ipv6, Address::Destination) => (24, 16),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// The register at an offset in bytes: one of 16 where one begins, as nft(8) has it, else one of 4.
fn register(offset: usize) -> Register {
    const NFT_REG_1: usize = 1;
    const NFT_REG32_00: usize = 8;
    let number = if offset.is_multiple_of(16) { NFT_REG_1 + offset / 16 } else { NFT_REG32_00 + offset / 4 };
    Register::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn cmp_operator(operator: Operator) -> CmpOperator {
    match operator {
        Operator::Equal => CmpOperator::Equal,
        Operator::NotEqual => CmpOperator::NotEqual,
    }
}
