//! What a box and what a name server send: a question is passed on as it is or refused under its own number, and only
//! what answers it is an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netbox::plan::question::{Reply, Transport, Verdict, judge};

/// A header, a question whose name is not compressed any more, an OPT record (RFC 1035, 4.1 and 2.3.4; RFC 6891, 6.1.2).
const LONGEST: usize = 12 + 255 + 4 + 11;

/// Where the message of the box ends and that of the server begins: the first two bytes say.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)) % (rest.len() + 1))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((sent, said)) = split(bytes) else { return };
    let question = match judge(sent) {
        Verdict::Ignore => return,
        Verdict::Answer(answer) => {
            assert!(answer[..2] == sent[..2] && answer[2] & 0x80 != 0 && answer.len() <= LONGEST);
            return;
        }
        Verdict::Ask(question) => question,
    };
    assert_eq!(question.numbered(0x1234)[2..], sent[2..]);
    let failure = question.failure();
    assert_eq!(failure[..2], sent[..2]);
    let number = u16::from_be_bytes([sent[0], sent[1]]);
    assert!(matches!(question.reply(number, &failure), Some(Reply::Refusal(_))), "{sent:?}");
    for message in [said, sent, &[&failure[..], said].concat()] {
        let reply = question.reply(number, message);
        if let Some(Reply::Answer(reply) | Reply::Truncated(reply) | Reply::Refusal(reply)) = reply {
            for transport in [Transport::Udp, Transport::Tcp] {
                let delivered = question.delivered(reply.clone(), transport);
                assert_eq!(delivered[..2], sent[..2]);
                assert!(question.reply(number, &delivered).is_some(), "{delivered:?}");
            }
        }
    }
});
