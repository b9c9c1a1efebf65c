//! What lives as long as a box.

pub mod relay;
pub mod resolver;
pub mod watch;
