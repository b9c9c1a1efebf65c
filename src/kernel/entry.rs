//! How the program begins, and what its caller handed over.
//!
//! Without Rust's runtime, which would look for its stack's guard page in /proc/self/maps and set up handlers for its overflow: a
//! tenth of a millisecond at every start. What it does besides is done here: SIGPIPE is ignored, and /dev/null stands in
//! for closed standard descriptors. The command must start as if started bare (promise R1), so all that, and an ignored
//! SIGCHLD, which would keep netbox from waiting for anybody, is recorded first and put back later.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

unsafe extern "C" {
    /// environ(7).
    static environ: *const *const c_char;
}

static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static CHILD_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Makes a function the program's beginning: it gets the arguments and gives the exit status.
#[macro_export]
macro_rules! entry_point {
    ($begin:path) => {
        // SAFETY: no other function of this name is in the program, and this one has the type that the C start-up
        // code calls (C17, 5.1.2.2.1).
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: ::std::ffi::c_int,
            arguments: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: called once, by the C start-up code, with what `main` gets.
            unsafe { $crate::kernel::entry::start(count, arguments, $begin) }
        }
    };
}

/// Records what the caller handed over, and begins.
///
/// # Safety
/// `arguments` are `count` pointers to strings that nobody changes, as `main` gets them.
#[must_use]
pub unsafe fn start(
    count: c_int,
    arguments: *const *const c_char,
    begin: impl FnOnce(Vec<OsString>) -> u8,
) -> c_int {
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: `index` is less than `count`, and the caller promises so many pointers.
        let argument = unsafe { *arguments.wrapping_add(index) };
        // SAFETY: the caller promises that each is one to a string.
        let argument = unsafe { CStr::from_ptr(argument) };
        OsStr::from_bytes(argument.to_bytes()).to_owned()
    });
    let arguments = arguments.collect();
    look();
    if closed_standard_descriptors().next().is_some() && !open_standard_descriptors() {
        // What netbox opens next would be taken for its input or output.
        return 125;
    }
    // Who does not read what netbox says must not end it. Cannot fail: the signal is one.
    // SAFETY: SIG_IGN is no function that could be called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    c_int::from(begin(arguments))
}

/// The lowest free number is taken each time (open(2)), and those below 3 that are not free are standard descriptors.
fn open_standard_descriptors() -> bool {
    let last = closed_standard_descriptors().last();
    loop {
        // SAFETY: the path is a constant that ends with NUL.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        if fd < 0 || Some(fd) >= last {
            return fd >= 0;
        }
    }
}

fn look() {
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

/// The environment as it was handed over, entry by entry, also those that are not of the form NAME=VALUE, which
/// [`std::env::vars_os`] leaves out.
#[must_use]
pub fn environment() -> Vec<OsString> {
    let mut entries = Vec::new();
    // SAFETY: the variable is read while this process has one thread, and netbox never changes its environment.
    let mut place = unsafe { environ };
    while !place.is_null() {
        // SAFETY: `environ` points to an array of pointers that ends with a null pointer (environ(7)), not passed yet.
        let entry = unsafe { *place };
        if entry.is_null() {
            break;
        }
        // SAFETY: each pointer but the last is to a string that ends with a NUL byte and lives as long as the process.
        let entry = unsafe { CStr::from_ptr(entry) };
        entries.push(OsStr::from_bytes(entry.to_bytes()).to_owned());
        // SAFETY: the entry here was not the last, so the next is in the array too.
        place = unsafe { place.add(1) };
    }
    entries
}
