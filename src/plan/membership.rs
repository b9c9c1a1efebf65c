//! Questions for names about the boxes of a network, which its members' resolvers answer themselves.

use std::net::{IpAddr, Ipv6Addr};

use domain::base::Rtype;
use domain::base::iana::Class;
use ipnet::IpNet;

use super::question::Question;

/// What the names of IPv4 addresses end with (RFC 1035, 3.5).
const REVERSE: &str = ".in-addr.arpa";

/// What those of IPv6 addresses end with (RFC 3596, 2.5).
const REVERSE6: &str = ".ip6.arpa";

/// What a question wants to know, if it may be about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Which address the member has that is called so, in small letters: by its name or its id.
    Address(String),
    /// Which IPv6 address the member of that name has.
    Address6(String),
    /// Something else about the member of that name.
    Other(String),
    /// What the member with that address is called.
    Name(IpAddr),
}

/// What the question wants to know of the members of a network with this name and these addresses. `None`: it is about nobody who
/// could be a member.
#[must_use]
pub fn wanted(question: &Question, network: &str, subnets: &[IpNet]) -> Option<Wanted> {
    let (name, kind, class) = question.asked()?;
    if class != Class::IN {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let reversed = || name.strip_suffix(REVERSE).map(reversed4);
    if let Some(address) = reversed().or_else(|| name.strip_suffix(REVERSE6).map(reversed6)) {
        let is_here = |address: &IpAddr| subnets.iter().any(|subnet| subnet.contains(address));
        return address.filter(is_here).map(Wanted::Name);
    }
    // As Docker has it: NAME, and NAME.NETWORK.
    let suffix = format!(".{}", network.to_ascii_lowercase());
    let own = name.strip_suffix(&suffix).unwrap_or(&name).to_owned();
    Some(match kind {
        Rtype::A | Rtype::ANY => Wanted::Address(own),
        Rtype::AAAA => Wanted::Address6(own),
        _ => Wanted::Other(own),
    })
}

/// `4.3.2.1`
fn reversed4(labels: &str) -> Option<IpAddr> {
    labels.split('.').rev().collect::<Vec<_>>().join(".").parse().ok().map(IpAddr::V4)
}

/// 32 labels of a hexadecimal digit each, in small letters.
fn reversed6(labels: &str) -> Option<IpAddr> {
    let is_digit = |label: &str| label.len() == 1 && label.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits: Option<Vec<&str>> =
        labels.split('.').rev().map(|digit| is_digit(digit).then_some(digit)).collect();
    let digits = digits.filter(|digits| digits.len() == 32)?.concat();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::question::{Verdict, judge};
    use domain::base::message_builder::MessageBuilder;
    use domain::base::name::Name;
    use domain::base::{Message, Ttl};
    use domain::rdata::{A, Aaaa, Ptr};
    use std::net::Ipv4Addr;
    use std::str::FromStr;

    fn ask(name: &str, kind: Rtype) -> Question {
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((Name::<Vec<u8>>::from_str(name).unwrap(), kind)).unwrap();
        match judge(&builder.finish()) {
            Verdict::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn of(name: &str, kind: Rtype) -> Option<Wanted> {
        let subnets = ["10.9.0.0/24", "fd09::/64"].map(|subnet| subnet.parse().unwrap());
        wanted(&ask(name, kind), "Db", &subnets)
    }

    #[test]
    fn members_are_asked_for_by_name_and_by_address() {
        let web = || "web".to_owned();
        assert_eq!(of("web", Rtype::A), Some(Wanted::Address(web())));
        assert_eq!(of("WEB.db", Rtype::A), Some(Wanted::Address(web())));
        assert_eq!(of("web", Rtype::AAAA), Some(Wanted::Address6(web())));
        assert_eq!(of("web", Rtype::MX), Some(Wanted::Other(web())));
        assert_eq!(of("web.example.org", Rtype::A), Some(Wanted::Address("web.example.org".to_owned())));
        assert_eq!(of("7.0.9.10.in-addr.arpa", Rtype::PTR), Some(Wanted::Name("10.9.0.7".parse().unwrap())));
        let reversed = |last: &str, first: &str| format!("{last}.{}{first}.ip6.arpa", "0.".repeat(27));
        assert_eq!(of(&reversed("7", "9.0.D.F"), Rtype::PTR), Some(Wanted::Name("fd09::7".parse().unwrap())));
        for (last, first) in
            [("7", "8.0.d.f"), ("7", "0.d.f"), ("7.0", "9.0.d.f"), ("g", "9.0.d.f"), ("7", "9.0.d.+")]
        {
            assert_eq!(of(&reversed(last, first), Rtype::PTR), None, "{last} {first}");
        }
        for name in ["7.1.9.10.in-addr.arpa", "0.9.10.in-addr.arpa", "x.0.9.10.in-addr.arpa"] {
            assert_eq!(of(name, Rtype::PTR), None, "{name}");
        }
    }

    #[test]
    fn an_answer_is_not_to_be_remembered() {
        let question = ask("Web.db", Rtype::A);
        let said = question.address(Some(Ipv4Addr::new(10, 9, 0, 7).into()));
        let message = Message::from_slice(&said).unwrap();
        let record = message.answer().unwrap().limit_to::<A>().next().unwrap().unwrap();
        assert_eq!((record.data().addr(), record.ttl()), (Ipv4Addr::new(10, 9, 0, 7), Ttl::ZERO));
        let said = ask("web", Rtype::AAAA).address("fd09::7".parse().ok());
        let record = Message::from_slice(&said).unwrap().answer().unwrap().limit_to::<Aaaa>().next();
        assert_eq!(record.unwrap().unwrap().data().addr().to_string(), "fd09::7");
        let none = ask("web", Rtype::AAAA).address(None);
        assert_eq!(Message::from_slice(&none).unwrap().header_counts().ancount(), 0);
        let said = ask("7.0.9.10.in-addr.arpa", Rtype::PTR).pointer("web_1.x");
        let message = Message::from_slice(&said).unwrap();
        let record = message.answer().unwrap().limit_to::<Ptr<_>>().next().unwrap().unwrap();
        assert_eq!(record.data().ptrdname().to_string(), "web_1.x");
    }
}
