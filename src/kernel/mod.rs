//! The fence: every system call that needs care, and netlink. Knows no policy.

pub mod conntrack;
pub mod netlink;
pub mod nft;
