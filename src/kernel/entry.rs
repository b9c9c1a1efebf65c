//! What the caller handed over, looked at before Rust's runtime changes it.
//!
//! The runtime ignores SIGPIPE and opens /dev/null on closed standard descriptors before `main`; and an ignored SIGCHLD would
//! keep netbox from waiting for anybody. The command must start as if started bare (promise R1), so all three are recorded
//! first and put back later.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static CHILD_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED: AtomicU8 = AtomicU8::new(0);

extern "C" fn look() {
    PIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Relaxed);
    CHILD_IGNORED.store(is_ignored(libc::SIGCHLD), Relaxed);
    for fd in 0..3u8 {
        // SAFETY: F_GETFD takes no pointer; a closed descriptor gives EBADF.
        if unsafe { libc::fcntl(i32::from(fd), libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Relaxed);
        }
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: sigaction(2) with a null new action only writes the current one to the pointer, which is
    // valid for a whole `sigaction`.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: sigaction(2) returned 0, so it wrote the whole structure.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

/// Run by the C start-up code before `main` and so before Rust's runtime (ELF gABI, "Initialization and
/// termination functions").
#[used]
// SAFETY: the section holds function pointers which libc calls once, on the main thread, with stdio
// not yet in use; `look` calls nothing but system calls and touches only atomics.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Whether the caller ignored SIGPIPE.
#[must_use]
pub fn pipe_ignored() -> bool {
    PIPE_IGNORED.load(Relaxed)
}

/// Whether the caller ignored SIGCHLD, so that its children are reaped by themselves.
#[must_use]
pub fn child_ignored() -> bool {
    CHILD_IGNORED.load(Relaxed)
}

/// Which of the descriptors 0, 1 and 2 the caller had closed.
pub fn closed_standard_descriptors() -> impl Iterator<Item = i32> {
    let closed = CLOSED.load(Relaxed);
    (0..3u8).filter(move |fd| closed & (1 << fd) != 0).map(i32::from)
}
