//! What other netbox commands and the keeper of a box tell each other.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::record::PortMap;

/// The number of this language. One more with every change that a keeper of before would not understand.
pub const PROTOCOL: u32 = 1;

/// What a command says, with the language that it says it in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL`] of the command.
    pub protocol: u32,
    /// What it wants.
    pub request: Request,
}

/// From a command to the keeper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// To be told how the box ends: [`Answer::Ended`].
    Wait,
    /// A process of the caller's has a command in the box. With two pidfds: that process's own, and the command's, which must be
    /// in the box's mount namespace by now; in a box with `-P`, with the watch over the command's calls besides
    /// ([`crate::kernel::call_watch`]). The answer is [`Answer::Registered`]: only then may the command begin.
    ///
    /// The process keeps the connection for as long as its command lives, and ends it with [`Request::Goodbye`]. Where it ends
    /// without, the keeper kills what the process leaves in the box. When the box ends, the keeper kills the command and says
    /// [`Answer::Over`]: the process kills its descendants and hangs up.
    Exec,
    /// To publish ports, as `-p` has them. The answer is [`Answer::Ports`]: what they are published as.
    AddPorts(Vec<String>),
    /// To give up ports that are published, as `netbox port rm` has them. The answer is [`Answer::Ports`]: what they were.
    RemovePorts(Vec<String>),
    /// To take the box into a further network, as `--net` has it. The answer is [`Answer::Done`].
    Connect(String),
    /// To take it out of the network of that name. The answer is [`Answer::Done`].
    Disconnect(String),
    /// The command of [`Request::Exec`] and all its descendants are gone.
    Goodbye,
}

/// From the keeper to a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Wait`]: netbox ends, or has just ended, with this status; everything is taken down.
    Ended(u8),
    /// To [`Request::Exec`].
    Registered,
    /// After [`Answer::Registered`]: the box is ending.
    Over,
    /// It is done.
    Ports(Vec<PortMap>),
    /// To [`Request::Connect`] and [`Request::Disconnect`].
    Done,
    /// It could not be done, and nothing was changed.
    Failed(Error),
    /// The keeper does not know the language.
    Unknown {
        /// The one that it knows.
        protocol: u32,
        /// The netbox that it is.
        version: String,
    },
}

/// The language alone, of whatever message.
#[derive(Deserialize)]
struct Language {
    protocol: u32,
}

/// Why a message means nothing to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is in another language of netbox's.
    Foreign,
    /// It is not netbox's.
    Garbage,
}

/// Reads what somebody sent.
///
/// # Errors
/// Why it cannot be read.
pub fn read(bytes: &[u8]) -> Result<Request, Unreadable> {
    match serde_json::from_slice::<Envelope>(bytes) {
        // A later language may mean something else by the same words.
        Ok(envelope) if envelope.protocol <= PROTOCOL => Ok(envelope.request),
        Ok(_) => Err(Unreadable::Foreign),
        Err(_) => match serde_json::from_slice::<Language>(bytes) {
            Ok(Language { protocol }) if protocol != PROTOCOL => Err(Unreadable::Foreign),
            _ => Err(Unreadable::Garbage),
        },
    }
}

/// What [`Unreadable::Foreign`] is answered with.
#[must_use]
pub fn unknown() -> Answer {
    Answer::Unknown { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_language_is_told_from_garbage() {
        for (text, expected) in [
            (r#"{"protocol":1,"request":"Wait"}"#, Ok(Request::Wait)),
            (r#"{"protocol":2,"request":"Wait"}"#, Err(Unreadable::Foreign)),
            (r#"{"protocol":2,"request":{"Dance":[1]},"tempo":3}"#, Err(Unreadable::Foreign)),
            (r#"{"protocol":1,"request":{"Dance":[1]}}"#, Err(Unreadable::Garbage)),
            (r#"{"protocol":-1}"#, Err(Unreadable::Garbage)),
            ("[]", Err(Unreadable::Garbage)),
            ("\0\u{ff}", Err(Unreadable::Garbage)),
            ("", Err(Unreadable::Garbage)),
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text:?}");
        }
    }
}
