//! What a process that only waits need not hold.

use std::time::Duration;

use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::mman::{MmapAdvise, madvise};

/// A wait that lasts longer is a rest. Most commands that run longer run much longer.
pub const REST: Duration = Duration::from_millis(100);

/// Gives the pages of the program back once a process has begun to rest: launcher and keeper sleep for as long as a box
/// lives, and need next to nothing for that (promise C3).
#[derive(Debug, Default)]
pub struct Rest {
    begun: bool,
}

impl Rest {
    /// poll(2) for at most that long, without a limit if `None`. Returns how many descriptors have news.
    ///
    /// The pages are given back in the midst of the wait: what runs between one wait and the next would map many again.
    ///
    /// # Errors
    /// EINTR, ENOMEM and what else poll(2) says.
    pub fn wait(&mut self, wanted: &mut [PollFd<'_>], at_most: Option<Duration>) -> nix::Result<i32> {
        let left = match at_most {
            _ if self.begun => at_most,
            Some(at_most) if at_most <= REST => return poll(wanted, timeout(Some(at_most))),
            at_most => {
                let events = poll(wanted, timeout(Some(REST)))?;
                if events != 0 {
                    return Ok(events);
                }
                self.begun = true;
                release_program();
                at_most.map(|at_most| at_most - REST)
            }
        };
        poll(wanted, timeout(left))
    }
}

/// Rounded up: a wait that ends too early is one more.
fn timeout(at_most: Option<Duration>) -> PollTimeout {
    let milliseconds = |limit: Duration| PollTimeout::try_from(limit + Duration::from_micros(999));
    at_most.map_or(PollTimeout::NONE, |limit| milliseconds(limit).unwrap_or(PollTimeout::MAX))
}

/// Drops the pages of the program that this process has mapped: what is needed again is mapped again. Which those are the
/// program's own headers tell (elf(5)): linkers put constants before the code or behind it.
pub fn release_program() {
    // SAFETY: `release` keeps what it is given for no longer than it runs, and needs no data.
    unsafe { libc::dl_iterate_phdr(Some(release), std::ptr::null_mut()) };
}

/// Drops what is mapped of the first object and never written. The first is the program, and a static one is alone.
extern "C" fn release(object: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut libc::c_void) -> libc::c_int {
    const PAGE: usize = 4096;
    const ONLY_THE_FIRST: libc::c_int = 1;
    // SAFETY: dl_iterate_phdr(3) passes an object that lives as long as this call.
    let object = unsafe { &*object };
    // SAFETY: `dlpi_phdr` points at so many headers, which are part of the program.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let is_never_written =
        |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(is_never_written) {
        let (Ok(base), Ok(offset), Ok(size)) = (
            usize::try_from(object.dlpi_addr),
            usize::try_from(header.p_vaddr),
            usize::try_from(header.p_memsz),
        ) else {
            continue;
        };
        // A page that another segment shares with this one may be written.
        let (start, end) = ((base + offset).next_multiple_of(PAGE), (base + offset + size) / PAGE * PAGE);
        let Some(first) = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else {
            continue;
        };
        // SAFETY: a private mapping of a file that is never written, nor writable: what is dropped is read from the file
        // again when it is next touched (madvise(2)). Failure changes nothing.
        let _ = unsafe { madvise(first, end.saturating_sub(start), MmapAdvise::MADV_DONTNEED) };
    }
    ONLY_THE_FIRST
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Instant;

    use super::*;

    /// As large as nothing that is touched by chance.
    const SIZE: usize = 64 * 4096;

    /// How many pages of these bytes this process has mapped: bit 63 of each entry (proc_pid_pagemap(5)). Not counted are
    /// the 16 at either end, which the kernel maps along with a page beside them (mm/memory.c, do_fault_around).
    fn mapped(bytes: &[u8]) -> usize {
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let address = bytes.as_ptr().addr();
        let pages = address / 4096 + 16..(address + bytes.len()) / 4096 - 16;
        pages
            .filter(|page| {
                let mut entry = [0; 8];
                pagemap.read_exact_at(&mut entry, u64::try_from(page * 8).unwrap()).unwrap();
                u64::from_ne_bytes(entry) >> 63 == 1
            })
            .count()
    }

    /// C3. Linkers put constants before the code or behind it.
    #[test]
    fn a_resting_process_gives_the_constants_of_the_program_back() {
        static CONSTANTS: [u8; SIZE] = [7; SIZE];
        assert!(std::hint::black_box(&CONSTANTS).iter().all(|&byte| byte == 7));
        assert!(mapped(&CONSTANTS) >= 31, "{} pages were mapped by reading them", mapped(&CONSTANTS));
        release_program();
        assert_eq!(mapped(&CONSTANTS), 0);
    }

    #[test]
    fn a_wait_is_as_long_as_it_may_be() {
        for (at_most, begun) in [(1, false), (100, false), (101, true), (130, true)] {
            let (mut rest, before) = (Rest::default(), Instant::now());
            let at_most = Duration::from_millis(at_most);
            assert_eq!(rest.wait(&mut [], Some(at_most)), Ok(0));
            assert!(before.elapsed() >= at_most, "{:?} for {at_most:?}", before.elapsed());
            assert_eq!(rest.begun, begun, "{at_most:?}");
        }
        assert_eq!(timeout(None), PollTimeout::NONE);
        assert_eq!(timeout(Some(Duration::from_micros(1))), PollTimeout::from(1u8));
        assert_eq!(timeout(Some(Duration::MAX / 2)), PollTimeout::MAX);
    }
}
