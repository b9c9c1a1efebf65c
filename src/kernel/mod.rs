//! The fence around the kernel: every system call that has no safe wrapper, netlink, and all `unsafe`.
//! It knows how, never whether.

pub mod allocator;
mod bpf;
pub mod call_watch;
pub mod channel;
pub mod conntrack;
pub mod entry;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod inherited;
pub mod listener;
pub mod listeners;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod net_cookie;
mod netfilter;
pub mod netlink;
pub mod nft;
pub mod notifications;
pub mod privilege;
pub mod process;
pub mod route;
pub mod signal;
pub mod slots;
pub mod sock_diag;
pub mod socket_option;
pub mod sysctl;
pub mod terminal;
pub mod tree;
pub mod wait;
pub mod wire;
