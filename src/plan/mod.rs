//! Decisions: plain data in, a plan or a refusal out. Nothing here touches the machine.

pub mod ruleset;
pub mod topology;
