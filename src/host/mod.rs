//! Reads the machine into plain data. Writes nothing.

pub mod facts;
pub mod holders;

pub use facts::observe;
