//! What a helper of the keeper's may: nothing but serve the sockets that it was given, and open new ones.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, getppid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Context, Error, Result};
use crate::kernel::privilege;
use crate::spec::capability::Capabilities;

/// The first of the users that helpers run as, one for each slot of the pool: nobody's (systemd's UIDS-GIDS has the range
/// as unused), so that they can send each other no signal and own no file. "b" and "~".
const FIRST_USER: u32 = 0x7e62_0000;

/// "nobody", where the user namespace has no such number: a container maps 65536 of them.
const NOBODY: u32 = 65_534;

/// So many sockets besides those that it was given.
const DESCRIPTORS: u64 = 16_384;

/// The user of the helpers of the box in `slot`.
#[must_use]
pub const fn user_of(slot: u32) -> u32 {
    FIRST_USER + slot
}

/// Gives up everything for good, and dies with the keeper from then on. To be called in the helper itself, which has
/// nothing open but what it serves: `given` descriptors.
///
/// # Errors
/// When a step fails, or when a privilege is left: the caller must not go on.
pub fn confine(user: u32, keeper: Pid, memory: u64, given: usize) -> Result<()> {
    privilege::limit_bounding_set(Capabilities::NONE).map_err(|(capability, errno)| {
        Error::new(format!("cannot drop {capability} from the bounding set")).os(&errno.into())
    })?;
    become_nobody(user)?;
    privilege::keep_only(Capabilities::NONE).context(|| "cannot give up the capabilities")?;
    nix::sys::prctl::set_no_new_privs().context(|| "cannot set no_new_privs")?;
    // Without an inheritable capability there is no ambient one.
    let now = privilege::own().context(|| "cannot read the capabilities")?;
    if [now.permitted, now.effective, now.inheritable].iter().any(|set| !set.is_empty()) {
        return Err(Error::new("cannot prove that every privilege is gone"));
    }
    limit(memory, given)?;
    // After the last change of credentials, which would clear it (PR_SET_PDEATHSIG(2const)).
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal")?;
    if getppid() != keeper {
        return Err(Error::new("the keeper of this box is gone"));
    }
    let filter = filter().map_err(|error| Error::new("cannot make a seccomp filter").because(error))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| Error::new("cannot set a seccomp filter").because(error))
}

fn become_nobody(user: u32) -> Result<()> {
    match setgroups(&[]) {
        Ok(()) => {}
        // user_namespaces(7): where setgroups is denied, nobody in the namespace has other groups either.
        Err(Errno::EPERM) if std::fs::read("/proc/self/setgroups").is_ok_and(|text| text == b"deny\n") => {}
        Err(errno) => return Err(errno).context(|| "cannot give up the groups"),
    }
    let become_one = |user: u32| -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    };
    match become_one(user).or_else(|_| become_one(NOBODY)) {
        // A user namespace with a single user: it stays that one, without its capabilities.
        Err(Errno::EINVAL) => Ok(()),
        other => other.context(|| "cannot become a user without rights"),
    }
}

fn limit(memory: u64, given: usize) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context(|| "cannot read the limit of descriptors")?;
    let descriptors = most.min(DESCRIPTORS.saturating_add(u64::try_from(given).unwrap_or(u64::MAX)));
    for (resource, value) in [
        (Resource::RLIMIT_NOFILE, descriptors),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_DATA, memory),
    ] {
        setrlimit(resource, value, value).context(|| format!("cannot set {resource:?}"))?;
    }
    Ok(())
}

/// Sockets of IPv4 and IPv6, files to read, memory, and time. Everything else fails (EPERM).
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let is = |argument, value: libc::c_int| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(value.cast_unsigned()),
        )
    };
    let reading = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();
    let only_reading = SeccompCmpOp::MaskedEq(u64::from(reading));
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(
        libc::SYS_socket,
        vec![SeccompRule::new(vec![is(0, libc::AF_INET)?])?, SeccompRule::new(vec![is(0, libc::AF_INET6)?])?],
    );
    for (open, flags) in OPEN {
        let reads = SeccompCondition::new(*flags, SeccompCmpArgLen::Dword, only_reading.clone(), 0)?;
        rules.insert(*open, vec![SeccompRule::new(vec![reads])?]);
    }
    // Making a socket non-blocking, and looking up an interface's number.
    #[allow(clippy::unnecessary_cast, reason = "the type of a request differs between C libraries")]
    let requests = [libc::FIONBIO as u64, libc::SIOCGIFINDEX as u64].map(|request| {
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request & 0xffff_ffff)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    });
    rules.insert(libc::SYS_ioctl, requests.into_iter().collect::<Result<_, _>>()?);
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, denied, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// The calls that open a file, and which of their arguments (counted from 0) are the flags.
const OPEN: &[(libc::c_long, u8)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// What `tokio`, the standard library and the C library (glibc or musl) need to serve sockets.
const CALLS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_can_be_made() {
        assert!(!filter().unwrap().is_empty());
    }
}
