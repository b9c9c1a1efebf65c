//! `netbox wait`: until boxes have ended.

use super::control::{self, Connection};
use super::find;
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
/// When one of them does not live, before any is waited for; when its keeper was killed.
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
    if let Some(status) = status_of_ended(wanted) {
        return Ok(Waiting::Ended(status));
    }
    let connection = control::connect(&find::find(wanted)?)?;
    connection.say(Request::Wait, &[])?;
    Ok(Waiting::For(connection))
}

/// With what a box ended that does not live any more, where that was written down.
const fn status_of_ended(_wanted: &BoxRef) -> Option<u8> {
    None
}

fn end_of(connection: &Connection) -> Result<u8> {
    match connection.hear()? {
        Some(Answer::Ended(status)) => Ok(status),
        _ => Err(Error::new(format!("cannot tell how box {} ended", connection.name()))
            .because("its keeper was killed, or the box had just ended")),
    }
}
