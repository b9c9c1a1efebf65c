//! Being told when a process, or any descendant of it, makes one of some system calls (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bpf::statement;

/// Where `nr` and `arch` are in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_*` of linux/audit.h: the machine of the ELF format, 64-bit, little-endian.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// What tells of the calls. It goes on for as long as a process lives that the filter is on.
#[derive(Debug)]
pub struct CallWatch {
    fd: OwnedFd,
}

/// Has the calls of the calling thread with these numbers, and those of everything that it starts, wait until whoever holds the
/// result lets them go on. Calls of another architecture's numbering are not seen.
///
/// It cannot be undone, and outlives exec. A thread has one such watch at most: what runs below cannot set up another.
///
/// # Errors
/// EACCES without `no_new_privs` or CAP_SYS_ADMIN; EBUSY where there is such a watch already; EINVAL before Linux 5.0.
pub fn install(calls: &[libc::c_long]) -> io::Result<OwnedFd> {
    let count = u8::try_from(calls.len()).map_err(io::Error::other)?;
    let load = |at| statement(libc::BPF_LD | libc::BPF_ABS | libc::BPF_W, 0, 0, at);
    let equal = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let end = |value| statement(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    // To the verdict that lets pass: past the number's load and all that is compared with it.
    let mut filter = vec![load(ARCHITECTURE), equal(NATIVE, 0, count.saturating_add(1)), load(NUMBER)];
    for (call, left) in calls.iter().zip((0..count).rev()) {
        // Past the others and the verdict that lets pass.
        filter.push(equal(u32::try_from(*call).map_err(io::Error::other)?, left.saturating_add(1), 0));
    }
    filter.extend([end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_USER_NOTIF)]);
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: seccomp(2) reads a sock_fprog of `length` statements; both are locals that outlive the call.
    let made = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let number = i32::try_from(Errno::result(made)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What a look at the calls found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// So many were made since the last look.
    Made(usize),
    /// Nobody is left who could make any.
    Over,
}

impl CallWatch {
    /// Takes over what [`install`] returned, in this process or a child.
    #[must_use]
    pub const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The same for what another program sent.
    ///
    /// # Errors
    /// InvalidInput when it is something else; where /proc is not mounted.
    pub fn received(fd: OwnedFd) -> io::Result<Self> {
        // What `init_listener` of the kernel calls it.
        let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        match name.as_os_str() == "anon_inode:seccomp notify" {
            true => Ok(Self { fd }),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no watch over calls")),
        }
    }

    /// Lets every call that waits go on as if nobody had looked. Waits for none.
    ///
    /// # Errors
    /// Those of ioctl(2), but for a caller that was killed meanwhile.
    pub fn let_go_on(&self) -> io::Result<Calls> {
        let mut count = 0_usize;
        loop {
            let events = self.events()?;
            if !events.contains(PollFlags::POLLIN) {
                let over = count == 0 && events.contains(PollFlags::POLLHUP);
                return Ok(if over { Calls::Over } else { Calls::Made(count) });
            }
            match self.answer_one() {
                Ok(()) => count = count.saturating_add(1),
                // ENOENT: who called was killed, or interrupted by a signal; in the latter case it calls again.
                Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn events(&self) -> io::Result<PollFlags> {
        let mut wanted = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::ZERO) {
            Ok(_) => Ok(wanted[0].revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer_one(&self) -> nix::Result<()> {
        // SAFETY: a struct of integers, for which zeros are values; the kernel wants them all zero (seccomp_unotify(2)).
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a seccomp_notif to the local; somebody calls, so that this does not block.
        let received =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
        Errno::result(received)?;
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).map_err(|_| Errno::EINVAL)?;
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        // SAFETY: the kernel reads a seccomp_notif_resp from the local.
        let sent =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        Errno::result(sent).map(drop)
    }
}

impl AsFd for CallWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    /// On a thread of its own: the filter stays on whoever installed it.
    #[test]
    fn a_call_that_is_watched_waits_until_it_is_let_go_on() {
        let (sender, receiver) = mpsc::channel();
        let caller = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            sender.send(install(&[libc::SYS_bind, libc::SYS_listen]).unwrap()).unwrap();
            let (_unwatched, _) = UnixDatagram::pair().unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        });
        let watch = CallWatch::new(receiver.recv().unwrap());
        let mut seen = 0;
        while seen < 2 {
            let mut wanted = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut wanted, 5000_u16), Ok(1), "{seen} calls came");
            if let Calls::Made(count) = watch.let_go_on().unwrap() {
                seen += count;
            }
        }
        assert_ne!(caller.join().unwrap().port(), 0);
        // A thread can be joined a moment before the kernel has done away with it.
        let mut wanted = [PollFd::new(watch.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut wanted, 5000_u16), Ok(1));
        assert_eq!(watch.let_go_on().unwrap(), Calls::Over);
    }

    #[test]
    fn what_another_program_sends_is_looked_at() {
        let (other, _) = UnixDatagram::pair().unwrap();
        assert!(CallWatch::received(other.into()).is_err());
        let install = || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            install(&[libc::SYS_acct]).unwrap()
        };
        let watch = std::thread::spawn(install).join().unwrap();
        CallWatch::received(watch).unwrap();
    }
}
