//! A network namespace of the lab, and threads that run in it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held open.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    namespace: Arc<File>,
}

impl Place {
    /// The namespace of the calling thread.
    pub(crate) fn here() -> Self {
        let namespace = File::open("/proc/thread-self/ns/net").expect("this thread's network namespace");
        Self { namespace: Arc::new(namespace) }
    }

    /// A new one, with forwarding off (it may be inherited) and IPv6 addresses usable at once.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            Self::here()
        });
        let place = made.join().unwrap_or_else(|panic| resume_unwind(panic));
        place.run(Self::defaults);
        place
    }

    /// The namespace that a process is in.
    pub(crate) fn of(pid: u32) -> Self {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { namespace: Arc::new(namespace) }
    }

    /// The one that a process holds open.
    pub(crate) fn held(path: &std::path::Path) -> std::io::Result<Self> {
        Ok(Self { namespace: Arc::new(File::open(path)?) })
    }

    pub(crate) fn defaults() {
        sysctl("net/ipv4/ip_forward", "0");
        for group in ["all", "default"] {
            sysctl(&format!("net/ipv4/conf/{group}/rp_filter"), "0");
            if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
                sysctl(&format!("net/ipv6/conf/{group}/accept_dad"), "0");
                sysctl(&format!("net/ipv6/conf/{group}/forwarding"), "0");
            }
        }
        super::links::up("lo");
    }

    /// Runs `work` on a thread in this namespace and waits for it; its panic is the caller's.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let done = scope.spawn(|| {
                self.enter();
                work()
            });
            done.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.namespace
    }

    /// Where another process of the lab finds the namespace.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    fn enter(&self) {
        setns(&*self.namespace, CloneFlags::CLONE_NEWNET).expect("to enter a network namespace of the lab");
    }
}

/// Writes a sysctl of the namespace that the calling thread is in; `name` with slashes.
pub(crate) fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
}

/// Reads one.
pub(crate) fn read_sysctl(name: &str) -> String {
    let path = format!("/proc/sys/{name}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}
