//! netbox starts a command behind its own NAT router and takes everything away when the command ends.
//!
//! The modules in the order in which they may use each other, values first:

pub mod error;
pub mod plan;

pub mod kernel;
