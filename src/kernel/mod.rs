//! The fence: every system call, every netlink message and all unsafe code. It knows no policy.

pub mod net_cookie;
pub mod netlink;
pub mod route;
pub mod sock_diag;
pub mod sysctl;
pub mod wire;
