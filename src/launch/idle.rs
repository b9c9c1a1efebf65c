//! The first process of a box without a command (`netbox run -d`): it waits, so that the box lives.
//!
//! It is no program of the host's but netbox's own image, at the place where another box's first process executes the command:
//! in the box's namespaces, with the command's user and capabilities. So nothing may be left in it that this user could take:
//! it has no descriptors, and nobody without privileges can read or trace it.

use std::convert::Infallible;

use crate::error::{Context, Result};
use crate::kernel::memory;
use crate::kernel::process;
use crate::kernel::signal;

/// How it is called in lists of processes, at most 15 characters (PR_SET_NAME(2const)).
const NAME: &std::ffi::CStr = c"netbox-waits";

/// Waits until it is asked to end, and ends with 0. Every privilege must be gone, and all signals blocked.
///
/// # Errors
/// When it cannot be made safe to wait.
pub fn wait_to_the_end() -> Result<Infallible> {
    // After the last change of credentials, which may undo it (PR_SET_DUMPABLE(2const)).
    process::hide_from_tracers().context(|| "cannot keep tracers out")?;
    // It would keep a file system busy, in which nobody in the box is interested.
    process::let_go_of_directory().context(|| "cannot enter /")?;
    process::let_go_of_standard_descriptors().context(|| "cannot open /dev/null")?;
    // A name is for people.
    let _ = nix::sys::prctl::set_name(NAME);
    memory::release_program();
    // Last: the end of the channel tells the keeper that the box runs.
    process::close_all_but(&[]).context(|| "cannot close the inherited descriptors")?;
    // EINVAL, for a signal that is none, cannot be; if it were, the box ends.
    let asked = signal::wait_for_request_to_end();
    process::exit_now(if asked.is_ok() { 0 } else { 125 })
}
