//! `netbox rm`: forgets detached boxes that have ended, and what they printed.

use nix::sys::signal::Signal;

use crate::error::{Context, Error, Result};
use crate::kernel::process;
use crate::report::Report;
use crate::spec::reference::BoxRef;
use crate::spec::request::RmRequest;

use super::ended::{self, Known};
use super::find::Found;

/// Forgets the boxes that are named, or all that have ended. Each that cannot be is told, and the others are forgotten.
///
/// # Errors
/// The last failure.
pub fn rm(request: &RmRequest, report: &Report) -> Result<()> {
    if request.all {
        return each(ended::all()?, report, |ended| ended.kept.forget());
    }
    each(&request.boxes, report, |wanted| forget(wanted, request.force))
}

fn each<T>(all: impl IntoIterator<Item = T>, report: &Report, what: impl Fn(T) -> Result<()>) -> Result<()> {
    let mut failed = None;
    for one in all {
        if let Err(error) = what(one)
            && let Some(earlier) = failed.replace(error)
        {
            report.error(&earlier);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn forget(wanted: &BoxRef, force: bool) -> Result<()> {
    match ended::known(wanted)? {
        Known::Ended(ended) => ended.kept.forget(),
        Known::Living(found) if force => {
            let id = found.record.id.clone();
            kill(&found)?;
            // A box in the foreground, and one with --rm, left nothing.
            match ended::known(&BoxRef::parse(&id)?) {
                Ok(Known::Ended(ended)) => ended.kept.forget(),
                _ => Ok(()),
            }
        }
        Known::Living(found) => Err(Error::new(format!("cannot forget box {wanted}"))
            .because(format!("it lives (pid {})", found.record.pid))
            .hint(format!("netbox stop {wanted}, or netbox rm -f {wanted}"))),
    }
}

/// Kills the box's command, and waits until everything is taken down.
fn kill(found: &Found) -> Result<()> {
    let name = &found.record.name;
    // Before: afterwards they are not known to be this box's.
    let (launcher, keeper) = (found.launcher()?, found.keeper()?);
    found.command()?.signal(Signal::SIGKILL as i32).context(|| format!("cannot end box {name}"))?;
    if process::is_stopped(&keeper) {
        // It has to take the box down.
        keeper.signal(Signal::SIGCONT as i32).context(|| format!("cannot end box {name}"))?;
    }
    // The keeper alone goes on for a moment, and a launcher that somebody stopped does not end by itself.
    process::wait_for_either_end(&launcher, &keeper)
        .context(|| format!("cannot wait for the end of box {name}"))
}
