//! Which namespaces a box gets besides that of its network: `--unshare-…`.

/// One for each option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unshare {
    /// `--unshare-mount`: mounts that the host makes later do not appear in the box.
    pub mount: bool,
    /// `--unshare-pid`: the box sees its own processes alone.
    pub pid: bool,
    /// `--unshare-uts`: a host name of its own.
    pub uts: bool,
    /// `--unshare-ipc`: System V objects and POSIX message queues of its own.
    pub ipc: bool,
}

impl Unshare {
    /// Whether any of them takes mounts of the box's own.
    #[must_use]
    pub const fn needs_mounts(self) -> bool {
        // /proc shows the processes of one pid namespace, /dev/mqueue the queues of one IPC namespace.
        self.mount || self.pid || self.ipc
    }
}
