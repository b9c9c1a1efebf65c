//! Effects, each with its undo beside it. Decides nothing.

pub mod address;
pub mod attach;
pub mod bridge;
pub mod census;
pub mod connections;
pub mod export;
pub mod gateway;
pub mod heal;
pub mod host;
pub mod host_ports;
pub mod kept;
pub mod lease;
pub mod log;
mod making;
pub mod names;
pub mod networks;
pub mod ports;
pub mod publish;
pub mod registry;
pub mod reserve;
mod routed;
pub mod seats;
pub mod state;
pub mod sweep;
pub mod turns;
pub mod wiring;
