//! `netbox wait`: until boxes have ended.

use super::control::{self, Connection};
use super::ended::{self, Known};
use crate::error::{Error, Result};
use crate::launch::control::message::{Answer, Request};
use crate::spec::reference::BoxRef;

/// What is known of a box that is waited for.
enum Waiting {
    /// It lives.
    For(Connection),
    /// It had ended before, with this status.
    Ended(u8),
}

/// Waits until all of `boxes` have ended, and returns the status of the last that was named: that of its `netbox run`.
///
/// # Errors
/// When one of them neither lives nor is known to have ended, before any is waited for; when its keeper was killed.
pub fn wait(boxes: &[BoxRef]) -> Result<u8> {
    // All at once: one may end while another is waited for.
    let waiting = boxes.iter().map(begin).collect::<Result<Vec<_>>>()?;
    let mut last = 0;
    for one in waiting {
        last = match one {
            Waiting::For(connection) => end_of(&connection)?,
            Waiting::Ended(status) => status,
        };
    }
    Ok(last)
}

fn begin(wanted: &BoxRef) -> Result<Waiting> {
    let ended = match ended::known(wanted)? {
        Known::Ended(ended) => ended,
        Known::Living(found) => match control::connect(&found) {
            Ok(connection) => {
                connection.say(Request::Wait, &[])?;
                return Ok(Waiting::For(connection));
            }
            // It may have ended meanwhile.
            Err(error) => ended::find(wanted).map_err(|_| error)?,
        },
    };
    let status = ended.end().and_then(|end| end.exit_status);
    status.map(Waiting::Ended).ok_or_else(|| {
        Error::new(format!("cannot tell how box {wanted} ended"))
            .because("it was killed together with all of its netbox, or the machine was started anew")
    })
}

fn end_of(connection: &Connection) -> Result<u8> {
    match connection.hear()? {
        Some(Answer::Ended(status)) => Ok(status),
        _ => Err(Error::new(format!("cannot tell how box {} ended", connection.name()))
            .because("its keeper was killed, or the box had just ended")),
    }
}
