//! Decisions: plain data in, a plan or a refusal out. Nothing here touches the machine.

#![forbid(unsafe_code)]

pub mod belonging;
pub mod changes;
pub mod environment;
pub mod exec;
pub mod facts;
pub mod gateway;
pub mod happening;
pub mod host_name;
pub mod identity;
pub mod inspection;
pub mod ipv6;
pub mod listing;
pub mod membership;
pub mod mounts;
pub mod network;
pub mod network6;
pub mod output;
pub mod place;
pub mod pool;
pub mod ports;
pub mod privileges;
pub mod publish_all;
pub mod question;
pub mod record;
pub mod refusal;
pub mod render;
pub mod reserved;
pub mod resolver;
pub mod routed;
pub mod routing;
pub mod ruleset;
pub mod settings;
pub mod topology;
pub mod upkeep;
pub mod wiring;
