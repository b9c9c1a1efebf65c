//! What a process that only waits need not hold.

use std::time::Duration;

use nix::poll::PollTimeout;
use nix::sys::mman::{MmapAdvise, madvise};

/// A wait that lasts longer is a rest. Most commands that run longer run much longer.
pub const REST: Duration = Duration::from_millis(100);

// The linker's own symbols (ld(1)): the first byte of the program, and the first after its code. Between them is what
// is mapped from the file and never written: headers, constants, code.
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Gives the pages of the program back once a process has begun to rest: launcher and keeper sleep for as long as a box
/// lives, and need next to nothing for that (promise C3).
#[derive(Debug, Default)]
pub struct Rest {
    begun: bool,
}

impl Rest {
    /// How long the next wait may last.
    #[must_use]
    pub fn timeout(&self) -> PollTimeout {
        if self.begun { PollTimeout::NONE } else { PollTimeout::try_from(REST).unwrap_or(PollTimeout::NONE) }
    }

    /// The same, at most `limit`.
    #[must_use]
    pub fn timeout_within(&self, limit: Option<Duration>) -> PollTimeout {
        // Rounded up: a wait that ends too early is one more.
        let limit = limit.and_then(|limit| PollTimeout::try_from(limit + Duration::from_micros(999)).ok());
        match (limit, self.timeout()) {
            (None, own) => own,
            (Some(limit), PollTimeout::NONE) => limit,
            (Some(limit), own) => limit.min(own),
        }
    }

    /// To be told how many events a wait brought: none means that it timed out.
    pub fn waited(&mut self, events: i32) {
        if events == 0 && !self.begun {
            self.begun = true;
            release_program();
        }
    }
}

/// Drops the pages of the program that this process has mapped: what is needed again is mapped again.
pub fn release_program() {
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start).cast_mut();
    let length = (&raw const etext).addr().saturating_sub(start.addr()) / PAGE * PAGE;
    let Some(first) = std::ptr::NonNull::new(start) else { return };
    // SAFETY: a private mapping of a file that is never written, nor writable: what is dropped is read from the file
    // again when it is next touched (madvise(2)). Failure changes nothing.
    let _ = unsafe { madvise(first.cast(), length, MmapAdvise::MADV_DONTNEED) };
}
