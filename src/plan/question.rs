//! DNS messages as the box's resolver sees them (RFC 1035, RFC 6891): which are passed on, what counts as an answer to
//! which, and what the resolver says itself. Bytes in, bytes out; every byte may be hostile.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::header::{Header, HeaderSection};
use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, MessageBuilder};
use domain::base::name::Name;
use domain::base::rdata::ComposeRecordData;
use domain::base::{Message, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Ptr};

/// What a datagram may hold where the asker says nothing of it (RFC 1035, 4.2.1).
const PLAIN_DATAGRAM: u16 = 512;

/// What this resolver says that it takes; nobody sends it more than the box itself asked for.
const OWN_DATAGRAM: u16 = 1232;

/// The longest question that is passed on. A name has 255 bytes, and what EDNS adds is far less than the rest.
pub const LONGEST: usize = 4096;

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram, which has a largest size.
    Udp,
    /// In a stream.
    Tcp,
}

/// What to do with what a box sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: there is nobody to answer, or it is an answer itself.
    Ignore,
    /// To answer with these bytes.
    Answer(Vec<u8>),
    /// To pass it on.
    Ask(Question),
}

/// A question that is well-formed from its first to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    message: Vec<u8>,
    /// The largest datagram that the asker takes; `None`: it does not know EDNS.
    datagram: Option<u16>,
}

/// What a name server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer, be it that the name does not exist.
    Answer(Vec<u8>),
    /// An answer that did not fit into the datagram.
    Truncated(Vec<u8>),
    /// That it could not or would not answer: another server may.
    Refusal(Vec<u8>),
}

/// Looks at what a box sent.
#[must_use]
pub fn judge(message: &[u8]) -> Verdict {
    let Ok(parsed) = Message::from_slice(message) else { return Verdict::Ignore };
    let header = parsed.header();
    if header.qr() {
        return Verdict::Ignore;
    }
    if header.opcode() != Opcode::QUERY {
        return Verdict::Answer(bare(header, Rcode::NOTIMP));
    }
    let Some(datagram) = look_through(parsed).filter(|_| message.len() <= LONGEST) else {
        return Verdict::Answer(bare(header, Rcode::FORMERR));
    };
    let question = Question { message: message.to_vec(), datagram };
    // A zone is more than a message, and nothing that a program needs to find a name.
    if parsed.is_xfr() { Verdict::Answer(question.refuse(Rcode::REFUSED)) } else { Verdict::Ask(question) }
}

/// The datagram size of a message with one question, each part of which is well-formed, with nothing behind it.
fn look_through(message: &Message<[u8]>) -> Option<Option<u16>> {
    message.sole_question().ok()?;
    let mut records = message.additional().ok()?;
    let mut datagram = None;
    for record in records.by_ref() {
        let record = record.ok()?;
        if record.rtype() == Rtype::OPT {
            // RFC 6891, 6.1.1: one at most. Its class is a size.
            let size = record.class().to_int().max(PLAIN_DATAGRAM);
            if datagram.replace(size).is_some() {
                return None;
            }
        }
    }
    (records.pos() == message.as_slice().len()).then_some(datagram)
}

/// An error without the question, which could not be read.
fn bare(of: Header, rcode: Rcode) -> Vec<u8> {
    let mut section = HeaderSection::new();
    let header = section.header_mut();
    header.set_id(of.id());
    header.set_qr(true);
    header.set_opcode(of.opcode());
    header.set_rd(of.rd());
    header.set_rcode(rcode);
    section.as_slice().to_vec()
}

fn set_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if message.len() >= size_of::<HeaderSection>() {
        Header::for_message_slice_mut(&mut message).set_id(id);
    }
    message
}

impl Question {
    fn parsed(&self) -> Option<&Message<[u8]>> {
        Message::from_slice(&self.message).ok()
    }

    /// The question under another number, everything else as the box sent it.
    #[must_use]
    pub fn numbered(&self, id: u16) -> Vec<u8> {
        set_id(self.message.clone(), id)
    }

    /// What a server's message says to the question that was sent under number `id`. `None`: it is no answer to that.
    #[must_use]
    pub fn reply(&self, id: u16, message: &[u8]) -> Option<Reply> {
        let reply = Message::from_slice(message).ok()?;
        let question = self.parsed()?;
        let header = reply.header();
        if !header.qr() || header.id() != id || header.opcode() != Opcode::QUERY {
            return None;
        }
        let rcode = header.rcode();
        // Some servers repeat nothing of what they could not understand.
        let is_bare = reply.header_counts().qdcount() == 0 && rcode != Rcode::NOERROR;
        if !is_bare && reply.sole_question().ok()? != question.sole_question().ok()? {
            return None;
        }
        Some(match rcode {
            Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP | Rcode::FORMERR => {
                Reply::Refusal(message.to_vec())
            }
            _ if header.tc() => Reply::Truncated(message.to_vec()),
            _ => Reply::Answer(message.to_vec()),
        })
    }

    /// A reply as the box gets it: under its own number, and truncated where its datagram has no room.
    #[must_use]
    pub fn delivered(&self, reply: Vec<u8>, transport: Transport) -> Vec<u8> {
        let Some(question) = self.parsed() else { return Vec::new() };
        let room = match transport {
            Transport::Udp => usize::from(self.datagram.unwrap_or(PLAIN_DATAGRAM)),
            Transport::Tcp => usize::from(u16::MAX),
        };
        if reply.len() <= room {
            return set_id(reply, question.header().id());
        }
        let header = Message::from_slice(&reply).map(Message::header).unwrap_or_default();
        self.answer(|own| {
            own.set_rcode(header.rcode());
            own.set_aa(header.aa());
            own.set_tc(true);
        })
    }

    /// What the box is told when nobody answered.
    #[must_use]
    pub fn failure(&self) -> Vec<u8> {
        self.refuse(Rcode::SERVFAIL)
    }

    /// What the box is told where nobody is asked: that there is no such name. Of REFUSED musl makes nothing, and waits for another
    /// answer (its `__res_msend_rc`).
    #[must_use]
    pub fn unknown(&self) -> Vec<u8> {
        self.refuse(Rcode::NXDOMAIN)
    }

    fn refuse(&self, rcode: Rcode) -> Vec<u8> {
        self.answer(|header| header.set_rcode(rcode))
    }

    /// The name that is asked for, without a dot at its end, and what of it.
    #[must_use]
    pub fn asked(&self) -> Option<(String, Rtype, Class)> {
        let question = self.parsed()?.sole_question().ok()?;
        Some((question.qname().to_string(), question.qtype(), question.qclass()))
    }

    /// What is known of a name: this address, or that there is nothing of the kind. Not to be remembered: it may change at once.
    #[must_use]
    pub fn address(&self, address: Option<IpAddr>) -> Vec<u8> {
        match address {
            Some(IpAddr::V4(four)) => self.known(Some(A::new(four))),
            Some(IpAddr::V6(six)) => self.known(Some(Aaaa::new(six))),
            None => self.known(None::<A>),
        }
    }

    /// What an address is called, likewise.
    #[must_use]
    pub fn pointer(&self, name: &str) -> Vec<u8> {
        // Every name of a box can be one of DNS, and what is none is not told.
        self.known(Name::<Vec<u8>>::from_str(name).ok().map(Ptr::new))
    }

    fn known(&self, data: Option<impl ComposeRecordData>) -> Vec<u8> {
        let Some(question) = self.parsed() else { return Vec::new() };
        let Ok(mut builder) = MessageBuilder::new_vec().start_answer(question, Rcode::NOERROR) else {
            return self.failure();
        };
        builder.header_mut().set_ra(true);
        builder.header_mut().set_aa(true);
        builder.header_mut().set_cd(question.header().cd());
        if let (Some(data), Ok(asked)) = (data, question.sole_question()) {
            // A Vec has room.
            let _ = builder.push((asked.qname(), Class::IN, Ttl::ZERO, data));
        }
        let mut additional = builder.additional();
        self.speak_edns(&mut additional);
        additional.finish()
    }

    fn speak_edns(&self, additional: &mut AdditionalBuilder<Vec<u8>>) {
        if self.datagram.is_some() {
            // A Vec has room; and RFC 6891, 6.1.1 wants one for one.
            let _ = additional.opt(|opt| {
                opt.set_udp_payload_size(OWN_DATAGRAM);
                Ok(())
            });
        }
    }

    /// A message of this resolver's own, without records.
    fn answer(&self, adjust: impl FnOnce(&mut Header)) -> Vec<u8> {
        let Some(question) = self.parsed() else { return Vec::new() };
        let mut builder = MessageBuilder::new_vec().start_error(question, Rcode::NOERROR);
        builder.header_mut().set_ra(true);
        builder.header_mut().set_cd(question.header().cd());
        adjust(builder.header_mut());
        let mut additional = builder.additional();
        self.speak_edns(&mut additional);
        additional.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, datagram: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x1234);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((Name::<Vec<u8>>::from_str(name).unwrap(), Rtype::A)).unwrap();
        let mut builder = builder.additional();
        if let Some(size) = datagram {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(size);
                    Ok(())
                })
                .unwrap();
        }
        builder.finish()
    }

    fn answer(to: &[u8], records: u8) -> Vec<u8> {
        let message = Message::from_slice(to).unwrap();
        let mut builder = MessageBuilder::new_vec().start_answer(message, Rcode::NOERROR).unwrap();
        let name = message.sole_question().unwrap().into_qname();
        for last in 0..records {
            builder.push((name, Class::IN, 60, A::from_octets(192, 0, 2, last))).unwrap();
        }
        builder.finish()
    }

    fn ask(message: &[u8]) -> Question {
        match judge(message) {
            Verdict::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn rcode(message: &[u8]) -> Rcode {
        Message::from_slice(message).unwrap().header().rcode()
    }

    #[test]
    fn a_question_is_passed_on_as_it_came_but_for_its_number() {
        let sent = query("www.example.org", Some(4096));
        let passed = ask(&sent).numbered(0xbeef);
        assert_eq!(passed[..2], [0xbe, 0xef]);
        assert_eq!(passed[2..], sent[2..]);
    }

    #[test]
    fn what_is_no_question_is_not_answered_or_told_so() {
        assert_eq!(judge(b""), Verdict::Ignore);
        assert_eq!(judge(&[0; 11]), Verdict::Ignore);
        assert_eq!(judge(&answer(&query("a.test", None), 1)), Verdict::Ignore, "an answer");
        let good = query("a.test", Some(1232));
        let mut many = good.clone();
        many[5] = 2;
        let mut trailing = good.clone();
        trailing.push(0);
        let mut none = good.clone();
        none[5] = 0;
        let mut looped = good[..12].to_vec();
        looped[11] = 0;
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        for bad in [&many[..], &trailing, &none, &looped, &good[..good.len() - 1], &good[..14], &[0; 12]] {
            match judge(bad) {
                Verdict::Answer(said) => {
                    assert_eq!((said.len(), rcode(&said), &said[..2]), (12, Rcode::FORMERR, &bad[..2]));
                }
                other => panic!("{bad:?}: {other:?}"),
            }
        }
        let mut notify = good.clone();
        notify[2] |= 4 << 3;
        assert!(matches!(judge(&notify), Verdict::Answer(said) if rcode(&said) == Rcode::NOTIMP));
        let mut transfer = query("a.test", None);
        let at = transfer.len() - 3;
        transfer[at] = 252;
        assert!(matches!(judge(&transfer), Verdict::Answer(said) if rcode(&said) == Rcode::REFUSED));
    }

    #[test]
    fn two_sizes_are_no_size() {
        let mut sent = query("a.test", Some(1232));
        let opt = sent[sent.len() - 11..].to_vec();
        sent.extend(opt);
        sent[11] = 2;
        assert!(matches!(judge(&sent), Verdict::Answer(said) if rcode(&said) == Rcode::FORMERR));
    }

    #[test]
    fn only_the_answer_to_this_question_under_this_number_counts() {
        let question = ask(&query("www.Example.org", None));
        let good = answer(&question.numbered(7), 1);
        assert_eq!(question.reply(7, &good), Some(Reply::Answer(good.clone())));
        assert_eq!(question.reply(8, &good), None, "another number");
        let other = answer(&ask(&query("evil.example.org", None)).numbered(7), 1);
        assert_eq!(question.reply(7, &other), None, "another question");
        assert_eq!(question.reply(7, &question.numbered(7)), None, "no answer");
        let lower = answer(&ask(&query("www.example.org", None)).numbered(7), 1);
        assert!(matches!(question.reply(7, &lower), Some(Reply::Answer(_))), "names have no case");
        let mut failed = good.clone();
        failed[3] |= 2;
        assert_eq!(question.reply(7, &failed), Some(Reply::Refusal(failed.clone())));
        let mut cut = good.clone();
        cut[2] |= 2;
        assert_eq!(question.reply(7, &cut), Some(Reply::Truncated(cut.clone())));
        let mut bare = good[..12].to_vec();
        bare[3] |= 1;
        bare[4..12].fill(0);
        assert!(matches!(question.reply(7, &bare), Some(Reply::Refusal(_))), "a server that repeats nothing");
        bare[3] &= !1;
        assert_eq!(question.reply(7, &bare), None, "an answer to nothing");
        assert_eq!(question.reply(7, &good[..11]), None);
    }

    #[test]
    fn an_answer_is_cut_to_the_datagram_of_the_asker() {
        for (datagram, cut) in [(None, true), (Some(100), true), (Some(512), true), (Some(4096), false)] {
            let question = ask(&query("www.example.org", datagram));
            let large = answer(&question.numbered(7), 50);
            assert!(large.len() > 512);
            let said = question.delivered(large.clone(), Transport::Udp);
            let message = Message::from_slice(&said).unwrap();
            assert_eq!((message.header().id(), message.header().tc()), (0x1234, cut), "{datagram:?}");
            assert_eq!(message.header_counts().ancount(), if cut { 0 } else { 50 });
            assert_eq!(message.header_counts().arcount(), u16::from(cut && datagram.is_some()));
            assert!(said.len() <= usize::from(datagram.unwrap_or(512)).max(512));
            assert_eq!(question.delivered(large, Transport::Tcp)[2] & 2, 0);
        }
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let sent = query("www.example.org", Some(1232));
        let said = ask(&sent).failure();
        let message = Message::from_slice(&said).unwrap();
        assert!(message.is_answer(Message::from_slice(&sent).unwrap()));
        assert_eq!(message.header().rcode(), Rcode::SERVFAIL);
        assert!(message.opt().is_some());
    }

    #[test]
    fn no_byte_makes_it_panic() {
        let seed = query("www.example.org", Some(4096));
        let question = ask(&seed);
        let reply = answer(&question.numbered(7), 3);
        for at in 0..seed.len() {
            for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut sent = seed.clone();
                sent[at] = value;
                if let Verdict::Ask(question) = judge(&sent) {
                    let _ = question.delivered(question.failure(), Transport::Udp);
                }
                let mut said = reply.clone();
                said[at] = value;
                if let Some(Reply::Answer(bytes)) = question.reply(7, &said) {
                    let _ = question.delivered(bytes, Transport::Udp);
                }
            }
        }
    }
}
