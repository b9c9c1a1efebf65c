//! Questions for names about the boxes of a network, which its members' resolvers answer themselves.

use std::net::Ipv4Addr;

use domain::base::Rtype;
use domain::base::iana::Class;
use ipnet::Ipv4Net;

use super::question::Question;

/// What the names of addresses end with (RFC 1035, 3.5).
const REVERSE: &str = ".in-addr.arpa";

/// What a question wants to know, if it may be about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Which address the member has that is called so, in small letters: by its name or its id.
    Address(String),
    /// Something else about the member of that name.
    Other(String),
    /// What the member with that address is called.
    Name(Ipv4Addr),
}

/// What the question wants to know of the members of a network with this name and these addresses. `None`: it is about nobody who
/// could be a member.
#[must_use]
pub fn wanted(question: &Question, network: &str, subnet: Ipv4Net) -> Option<Wanted> {
    let (name, kind, class) = question.asked()?;
    if class != Class::IN {
        return None;
    }
    let name = name.to_ascii_lowercase();
    if let Some(reversed) = name.strip_suffix(REVERSE) {
        let address = reversed.split('.').rev().collect::<Vec<_>>().join(".");
        return Some(Wanted::Name(address.parse().ok().filter(|address| subnet.contains(address))?));
    }
    // As Docker has it: NAME, and NAME.NETWORK.
    let suffix = format!(".{}", network.to_ascii_lowercase());
    let own = name.strip_suffix(&suffix).unwrap_or(&name).to_owned();
    Some(if [Rtype::A, Rtype::ANY].contains(&kind) { Wanted::Address(own) } else { Wanted::Other(own) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::question::{Verdict, judge};
    use domain::base::message_builder::MessageBuilder;
    use domain::base::name::Name;
    use domain::base::{Message, Ttl};
    use domain::rdata::{A, Ptr};
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
        wanted(&ask(name, kind), "Db", "10.9.0.0/24".parse().unwrap())
    }

    #[test]
    fn members_are_asked_for_by_name_and_by_address() {
        let web = || "web".to_owned();
        assert_eq!(of("web", Rtype::A), Some(Wanted::Address(web())));
        assert_eq!(of("WEB.db", Rtype::A), Some(Wanted::Address(web())));
        assert_eq!(of("web", Rtype::AAAA), Some(Wanted::Other(web())));
        assert_eq!(of("web.example.org", Rtype::A), Some(Wanted::Address("web.example.org".to_owned())));
        assert_eq!(of("7.0.9.10.in-addr.arpa", Rtype::PTR), Some(Wanted::Name(Ipv4Addr::new(10, 9, 0, 7))));
        for name in ["7.1.9.10.in-addr.arpa", "0.9.10.in-addr.arpa", "x.0.9.10.in-addr.arpa"] {
            assert_eq!(of(name, Rtype::PTR), None, "{name}");
        }
    }

    #[test]
    fn an_answer_is_not_to_be_remembered() {
        let question = ask("Web.db", Rtype::A);
        let said = question.address(Some(Ipv4Addr::new(10, 9, 0, 7)));
        let message = Message::from_slice(&said).unwrap();
        let record = message.answer().unwrap().limit_to::<A>().next().unwrap().unwrap();
        assert_eq!((record.data().addr(), record.ttl()), (Ipv4Addr::new(10, 9, 0, 7), Ttl::ZERO));
        let none = ask("web", Rtype::AAAA).address(None);
        assert_eq!(Message::from_slice(&none).unwrap().header_counts().ancount(), 0);
        let said = ask("7.0.9.10.in-addr.arpa", Rtype::PTR).pointer("web_1.x");
        let message = Message::from_slice(&said).unwrap();
        let record = message.answer().unwrap().limit_to::<Ptr<_>>().next().unwrap().unwrap();
        assert_eq!(record.data().ptrdname().to_string(), "web_1.x");
    }
}
