//! A ruleset in the words of nft(8), as `nft list ruleset` would print it and `nft -f` reads it.

use std::fmt::{self, Write as _};

use ipnet::IpNet;

use crate::plan::wiring::written;

use super::{
    Address, BLOCK, Chain, ChainType, Datum, Direction, Element, Family, Field, Hook, HookPoint, Nfproto,
    Operator, Policy, Rule, Statement, Table, Timeout, Type, priority,
};

/// The text of `tables`, each element inside the set or map of its name.
///
/// `nft -f` loads it; chains may be jumped to before they are defined.
#[must_use]
pub fn to_text(tables: &[Table], elements: &[Element]) -> String {
    let mut text = String::new();
    for table in tables {
        // Writing to a String cannot fail: fmt::Error only comes from the sink.
        let _ = write_table(&mut text, table, elements);
    }
    text
}

fn write_table(out: &mut String, table: &Table, elements: &[Element]) -> fmt::Result {
    let family = match table.family {
        Family::Inet => "inet",
        Family::Netdev => "netdev",
        Family::Bridge => "bridge",
    };
    writeln!(out, "table {family} {} {{", table.name)?;
    writeln!(out, "\tcomment \"{}\"", table.comment)?;
    for Timeout { name, time_wait, close } in &table.timeouts {
        writeln!(out, "\tct timeout {name} {{\n\t\tprotocol tcp\n\t\tl3proto inet")?;
        writeln!(out, "\t\tpolicy = {{ time_wait : {time_wait}, close : {close} }}\n\t}}\n")?;
    }
    for set in &table.sets {
        writeln!(out, "\tset {} {{\n\t\ttype {}", set.name, Concatenated(set.key))?;
        if set.dynamic {
            // The size is the kernel's, where none is asked for.
            writeln!(out, "\t\tsize 65535\n\t\tflags dynamic")?;
        }
        if set.interval {
            writeln!(out, "\t\tflags interval")?;
        }
        write_elements(out, set.name, elements)?;
    }
    for map in &table.maps {
        writeln!(
            out,
            "\tmap {} {{\n\t\ttype {} : {}",
            map.name,
            Concatenated(map.key),
            Concatenated(map.value)
        )?;
        if map.interval {
            writeln!(out, "\t\tflags interval")?;
        }
        write_elements(out, map.name, elements)?;
    }
    for (index, chain) in table.chains.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_chain(out, chain)?;
    }
    writeln!(out, "}}")
}

fn write_elements(out: &mut String, set: &str, elements: &[Element]) -> fmt::Result {
    let mut prefix = "\t\telements = { ";
    for element in elements.iter().filter(|element| element.set == set) {
        write!(out, "{prefix}{element}")?;
        prefix = ",\n\t\t\t     ";
    }
    if prefix.starts_with(',') {
        writeln!(out, " }}")?;
    }
    writeln!(out, "\t}}\n")
}

fn write_chain(out: &mut String, chain: &Chain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(hook) = &chain.hook {
        writeln!(out, "\t\t{hook}")?;
    }
    for rule in &chain.rules {
        writeln!(out, "\t\t{rule}")?;
    }
    writeln!(out, "\t}}")
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let point = match self.point {
            HookPoint::Ingress => "ingress",
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {point} ")?;
        if let Some(device) = &self.device {
            write!(f, "device \"{device}\" ")?;
        }
        f.write_str("priority ")?;
        // nft(8) has the names of the two NAT priorities in one hook each.
        let named = match self.point {
            HookPoint::Prerouting => (self.priority, "dstnat", priority::DSTNAT),
            HookPoint::Postrouting => (self.priority, "srcnat", priority::SRCNAT),
            _ => (self.priority, "", i32::MAX),
        };
        match (self.priority, named) {
            (priority::FILTER, _) => f.write_str("filter")?,
            (priority::RAW, _) if self.point != HookPoint::Ingress => f.write_str("raw")?,
            (own, (_, name, base)) if own == base => f.write_str(name)?,
            (own, (_, name, base)) if own.abs_diff(base) <= 10 => {
                let sign = if own > base { '+' } else { '-' };
                write!(f, "{name} {sign} {}", own.abs_diff(base))?;
            }
            (own, _) => write!(f, "{own}")?,
        }
        match self.policy {
            Policy::Accept => f.write_str("; policy accept;"),
            Policy::Drop => f.write_str("; policy drop;"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, &self.0, " ")
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(direction, operator, name) => {
                let field = match direction {
                    Direction::In => "iifname",
                    Direction::Out => "oifname",
                };
                write!(f, "{field} {operator}\"{name}\"")
            }
            Self::Loopback(Direction::In) => f.write_str("iif \"lo\""),
            Self::Loopback(Direction::Out) => f.write_str("oif \"lo\""),
            Self::Address(address, operator, net) => {
                let field = match (address, net) {
                    (Address::Source, IpNet::V4(_)) => "ip saddr",
                    (Address::Source, IpNet::V6(_)) => "ip6 saddr",
                    (Address::Destination, IpNet::V4(_)) => "ip daddr",
                    (Address::Destination, IpNet::V6(_)) => "ip6 daddr",
                };
                write!(f, "{field} {operator}")?;
                if net.prefix_len() == net.max_prefix_len() {
                    write!(f, "{}", net.addr())
                } else {
                    write!(f, "{}", net.trunc())
                }
            }
            Self::Nfproto(Nfproto::Ipv4) => f.write_str("meta nfproto ipv4"),
            Self::Nfproto(Nfproto::Ipv6) => f.write_str("meta nfproto ipv6"),
            Self::FrameOf(Nfproto::Ipv4) => f.write_str("meta protocol ip"),
            Self::FrameOf(Nfproto::Ipv6) => f.write_str("meta protocol ip6"),
            Self::L4Protocol(protocol) => write!(f, "meta l4proto {}", Datum::Proto(*protocol)),
            Self::ToPort(port) => write!(f, "th dport {port}"),
            Self::FromPort(port) => write!(f, "th sport {port}"),
            Self::EchoRequest(Nfproto::Ipv4) => f.write_str("icmp type echo-request"),
            Self::EchoRequest(Nfproto::Ipv6) => f.write_str("icmpv6 type echo-request"),
            Self::LinkIcmpv6 => f.write_str("icmpv6 type >= mld-listener-query"),
            Self::Established => f.write_str("ct state established"),
            Self::Related => f.write_str("ct state related"),
            Self::Known => f.write_str("ct state established,related"),
            Self::Reply => f.write_str("ct direction reply"),
            Self::New => f.write_str("ct state new"),
            Self::SetTimeout(name) => write!(f, "ct timeout set \"{name}\""),
            Self::ConnectionsOver { key, set, limit } => {
                write!(f, "add @{set} {{ {} ct count over {limit} }}", Concatenated(key))
            }
            Self::TranslatedDestination => f.write_str("ct status dnat"),
            Self::LocalDestination => f.write_str("fib daddr type local"),
            Self::Lookup(fields, set) => write!(f, "{} @{set}", Concatenated(fields)),
            Self::SetMark(bits) => write!(f, "meta mark set meta mark | 0x{bits:08x}"),
            Self::SetMarkBy(key, map) => write!(f, "meta mark set {} map @{map}", Concatenated(key)),
            Self::SetEtherDestinationBy(key, map) => {
                write!(f, "ether daddr set {} map @{map}", Concatenated(key))
            }
            Self::Arp => f.write_str("ether type arp"),
            Self::ArpRequest => f.write_str("arp operation request"),
            Self::SetPacketForHost => f.write_str("meta pkttype set host"),
            Self::Dnat { family, key, map, keeps_port: _ } => {
                let family = match family {
                    Nfproto::Ipv4 => "ip",
                    Nfproto::Ipv6 => "ip6",
                };
                write!(f, "dnat {family} to {} map @{map}", Concatenated(key))
            }
            Self::Snat(address) => {
                write!(f, "snat {} to {address}", if address.is_ipv4() { "ip" } else { "ip6" })
            }
            Self::SnatBySource { family: Nfproto::Ipv4, map } => write!(f, "snat ip to ip saddr map @{map}"),
            Self::SnatBySource { family: Nfproto::Ipv6, map } => {
                write!(f, "snat ip6 to ip6 saddr map @{map}")
            }
            Self::Notrack => f.write_str("notrack"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::RejectWithReset => f.write_str("reject with tcp reset"),
            Self::RejectProhibited => f.write_str("reject with icmpx admin-prohibited"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Return => f.write_str("return"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// Before the right-hand side: nothing for equality, as nft prints it.
impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => Ok(()),
            Self::NotEqual => f.write_str("!= "),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DestinationBlock => return write!(f, "th dport & {}", !(BLOCK - 1)),
            Self::TcpPort => "tcp dport",
            Self::UdpPort => "udp dport",
            Self::InputInterface => "iifname",
            Self::OutputInterface => "oifname",
            Self::Mark => "meta mark",
            Self::EtherSource => "ether saddr",
            Self::ArpSenderEther => "arp saddr ether",
            Self::ArpSender => "arp saddr ip",
            Self::SourceAddress => "ip saddr",
            Self::DestinationAddress => "ip daddr",
            Self::SourceAddress6 => "ip6 saddr",
            Self::DestinationAddress6 => "ip6 daddr",
            Self::Opener => "ct original ip saddr",
            Self::Answerer => "ct reply ip saddr",
            Self::Opener6 => "ct original ip6 saddr",
            Self::Answerer6 => "ct reply ip6 saddr",
            Self::L4Protocol => "meta l4proto",
            Self::DestinationPort => "th dport",
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ifname => "ifname",
            Self::Ether => "ether_addr",
            Self::Mark => "mark",
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Proto => "inet_proto",
            Self::Port => "inet_service",
        })
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ifname(name) => write!(f, "\"{name}\""),
            Self::Ether(mac) => f.write_str(&written(*mac)),
            Self::Mark(number) => write!(f, "0x{number:08x}"),
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Proto(6) => f.write_str("tcp"),
            Self::Proto(17) => f.write_str("udp"),
            Self::Proto(132) => f.write_str("sctp"),
            Self::Proto(number) => number.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Ports(first, last) => write!(f, "{first}-{last}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// As nft(8) writes it: `192.0.2.1 . tcp . 80 : 10.0.0.16 . 8080`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Concatenated(&self.key).fmt(f)?;
        if self.value.is_empty() {
            return Ok(());
        }
        write!(f, " : {}", Concatenated(&self.value))
    }
}

struct Concatenated<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Concatenated<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.0, " . ")
    }
}

fn write_joined<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: &[T], separator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        part.fmt(f)?;
    }
    Ok(())
}
