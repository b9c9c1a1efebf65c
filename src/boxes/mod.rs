//! The commands on running boxes.

pub mod belonging;
mod connect;
pub mod control;
pub mod dry_run;
pub mod elsewhere;
pub mod ended;
pub mod exec;
pub mod find;
pub mod gateway;
pub mod gc;
pub mod inspect;
pub mod logs;
pub mod monitor;
pub mod network;
pub mod port;
pub mod ps;
pub mod publish;
pub mod rm;
pub mod shown;
pub mod stats;
pub mod stop;
pub mod wait;
