//! The processes of a run: launcher, keeper, and the box's first process; and those of a further command in a box.

pub mod box_network;
mod command;
pub mod confine;
pub mod control;
pub mod deadline;
pub mod detach;
pub mod drop;
pub mod duties;
pub mod errands;
pub mod first_process;
pub mod helper;
pub mod idle;
pub mod init;
pub mod inside;
pub mod joining;
pub mod launcher;
pub mod linger;
pub mod living;
pub mod message;
pub mod mounts;
pub mod networks;
pub mod output;
pub mod ports;
pub mod publish_all;
pub mod status_stream;
pub mod supervise;
pub mod supervisor;
