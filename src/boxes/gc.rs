//! `netbox gc`: takes down what dead runs left. Every `netbox run` does so too, for what it can see without looking at
//! every box; this one looks at all.

use std::fmt::Write;

use crate::apply::census::census;
use crate::apply::host::Host;
use crate::apply::state::{self, State};
use crate::apply::sweep::sweep;
use crate::error::{Error, Result};

/// Sweeps, and says what was taken down.
///
/// # Errors
/// Naming what could not be undone.
pub fn gc() -> Result<String> {
    if state::root_here()?.is_none() {
        return Ok(String::new());
    }
    // Parts of it that somebody removed are made again: what is left of boxes is found without them.
    let mut state = State::open()?;
    let mut host = Host::open()?;
    let locked = state.lock()?;
    let (swept, _) = sweep(&locked, &mut host, census(locked.slots()), true);
    locked.remove_if_idle();
    if let Some(problem) = swept.problems.first() {
        return Err(Error::new("cannot take down all that dead runs left").because(problem));
    }
    let mut text = String::new();
    for id in &swept.boxes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "box {id}");
    }
    if swept.gateway {
        text.push_str("gateway\n");
    }
    Ok(text)
}
