//! The commands on running boxes.

pub mod control;
pub mod dry_run;
pub mod find;
pub mod gateway;
pub mod gc;
pub mod network;
pub mod ps;
pub mod publish;
pub mod wait;
