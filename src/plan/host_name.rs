//! Questions about the name by which a box reaches the host's ports that were opened to it.

use std::net::{IpAddr, Ipv4Addr};

use super::membership::{Wanted, wanted};
use super::question::Question;
use crate::spec::host_port::HOST_NAME;

/// What there is to say to a question about the name or its address. `None`: it is about something else.
#[must_use]
pub fn answer(question: &Question, address: Ipv4Addr) -> Option<Vec<u8>> {
    match wanted(question, "", &[IpAddr::V4(address).into()])? {
        Wanted::Address(name) => (name == HOST_NAME).then(|| question.address(Some(address.into()))),
        // It has no IPv6 address, and nothing else.
        Wanted::Address6(name) | Wanted::Other(name) => (name == HOST_NAME).then(|| question.address(None)),
        Wanted::Name(_) => Some(question.pointer(HOST_NAME)),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use domain::base::iana::Rcode;
    use domain::base::message_builder::MessageBuilder;
    use domain::base::name::Name;
    use domain::base::{Message, Rtype};

    use super::*;
    use crate::plan::question::{Verdict, judge};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 16);

    /// The return code and the number of records.
    fn said(name: &str, kind: Rtype) -> Option<(Rcode, u16)> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((Name::<Vec<u8>>::from_str(name).unwrap(), kind)).unwrap();
        let Verdict::Ask(question) = judge(&builder.finish()) else { panic!("{name}") };
        let answer = answer(&question, ADDRESS)?;
        let message = Message::from_slice(&answer).unwrap();
        Some((message.header().rcode(), message.header_counts().ancount()))
    }

    #[test]
    fn the_name_has_one_address_of_ipv4() {
        for (name, kind, expected) in [
            ("host.netbox.internal", Rtype::A, Some(1)),
            ("Host.NetBox.Internal", Rtype::A, Some(1)),
            ("host.netbox.internal", Rtype::AAAA, Some(0)),
            ("host.netbox.internal", Rtype::TXT, Some(0)),
            ("16.64.254.169.in-addr.arpa", Rtype::PTR, Some(1)),
            ("17.64.254.169.in-addr.arpa", Rtype::PTR, None),
            ("a.host.netbox.internal", Rtype::A, None),
            ("netbox.internal", Rtype::A, None),
            ("host", Rtype::A, None),
        ] {
            assert_eq!(said(name, kind), expected.map(|count| (Rcode::NOERROR, count)), "{name} {kind}");
        }
    }
}
