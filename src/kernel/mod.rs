//! The fence: every system call, every netlink message and all unsafe code. It knows no policy.

pub mod netlink;
pub mod route;
pub mod wire;
