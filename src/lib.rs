//! netbox starts a command behind its own NAT router and takes everything away when the command ends.
//!
//! The modules in the order in which they may use each other, values first:

pub mod error;

pub mod spec;

pub mod plan;

pub mod cli;

pub mod kernel;

pub mod host;

pub mod report;

pub mod apply;

pub mod serve;

pub mod launch;

pub mod boxes;

pub mod run;
