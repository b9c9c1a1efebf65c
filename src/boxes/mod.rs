//! The commands on running boxes.

pub mod belonging;
pub mod control;
pub mod dry_run;
pub mod find;
pub mod gateway;
pub mod gc;
pub mod inspect;
pub mod monitor;
pub mod port;
pub mod ps;
pub mod publish;
pub mod shown;
pub mod stats;
pub mod stop;
pub mod wait;
