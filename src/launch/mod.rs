//! The processes of a run: launcher, keeper, and the box's first process.

pub mod box_network;
pub mod confine;
pub mod control;
pub mod deadline;
pub mod drop;
pub mod duties;
pub mod errands;
pub mod first_process;
pub mod helper;
pub mod init;
pub mod inside;
pub mod launcher;
pub mod linger;
pub mod message;
pub mod mounts;
pub mod ports;
pub mod publish_all;
pub mod status_stream;
pub mod supervise;
