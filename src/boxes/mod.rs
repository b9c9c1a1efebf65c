//! The commands on running boxes.

pub mod control;
pub mod dry_run;
pub mod elsewhere;
pub mod ended;
pub mod exec;
pub mod find;
pub mod gateway;
pub mod gc;
pub mod logs;
pub mod ps;
pub mod publish;
pub mod rm;
pub mod wait;
