//! What a `netbox exec` leaves in a box that was killed itself.

use std::io;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::apply::sweep;
use crate::kernel::process;
use crate::plan::record::MountIdentity;

/// After so long, who forks faster than it is killed goes on until the box ends.
const LIMIT: Duration = Duration::from_millis(100);

/// Kills what is in the mount namespace of the box and descends from none of `entitled`, but for the `warden`, which does its part.
/// Its orphans are anybody's children: the namespace alone tells whose they were.
///
/// # Errors
/// Where /proc cannot be read.
pub(super) fn kill(mounts: MountIdentity, entitled: &[Pid], warden: Option<Pid>) -> io::Result<()> {
    let end = Instant::now() + LIMIT;
    let is_warden = |pid| warden.is_some_and(|warden| warden.as_raw() == pid);
    sweep::kill_in(mounts, |pid| Instant::now() < end && !is_warden(pid) && is_stray(pid, entitled))
}

fn is_stray(pid: i32, entitled: &[Pid]) -> bool {
    // Seen twice alike: a parent that ends between two steps may leave its number to anybody. Not for ever: the process may have
    // ended itself.
    let seen = (0..8).find_map(|_| line_of(pid).filter(|line| line_of(pid).as_ref() == Some(line)));
    seen.is_some_and(|line| !entitled.iter().any(|one| line.contains(&one.as_raw())))
}

/// The process and its ancestors. `None`: one of them has just ended.
fn line_of(pid: i32) -> Option<Vec<i32>> {
    let mut line = vec![pid];
    let mut next = pid;
    while next > 1 {
        next = process::parent_of(next).ok()?;
        // Numbers that changed hands meanwhile may even make a circle.
        if line.contains(&next) {
            return None;
        }
        line.push(next);
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descends_from_itself_and_its_parents() {
        let (own, parent) = (nix::unistd::getpid(), nix::unistd::getppid());
        assert!(!is_stray(own.as_raw(), &[own]));
        assert!(!is_stray(own.as_raw(), &[Pid::from_raw(i32::MAX), parent]));
        assert!(is_stray(own.as_raw(), &[Pid::from_raw(i32::MAX)]));
        assert!(!is_stray(i32::MAX, &[]));
    }
}
