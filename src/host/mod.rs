//! Reads the machine into plain data. Writes nothing.

pub mod caller;
pub mod facts;
pub mod holders;
pub mod names;
pub mod source;

pub use facts::observe;
