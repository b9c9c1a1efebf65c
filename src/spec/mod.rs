//! Values and their grammar: what a user may ask for, parsed once into types that cannot hold anything else.
//!
//! Nothing here reads or changes the machine.

#![forbid(unsafe_code)]

pub mod address;
pub mod capability;
pub mod descriptor;
pub mod env;
pub mod exec;
pub mod filter;
pub mod host_port;
pub mod hostname;
pub mod joins;
pub mod mtu;
pub mod name;
pub mod names;
pub mod net;
pub mod netns;
pub mod network;
pub mod pointer;
pub mod port;
pub mod publish;
pub mod reference;
pub mod request;
pub mod routed;
pub mod signal;
pub mod subnet;
pub mod timeout;
pub mod unpublish;
pub mod unshare;
pub mod user;

pub use capability::{Capabilities, Capability, CapabilityList};
pub use env::EnvSetting;
pub use exec::ExecRequest;
pub use filter::Filters;
pub use host_port::{HOST_NAME, HostPortSpec, merge_host_ports};
pub use hostname::Hostname;
pub use joins::Joins;
pub use name::{BoxId, BoxName};
pub use names::{ExtraHost, Nameserver, SearchDomain, search_list};
pub use net::Net;
pub use netns::{Export, NetnsName};
pub use network::{Join, NetworkName, NetworkRequest, NewNetwork};
pub use pointer::JsonPointer;
pub use port::{HostPort, InsidePort, PortRange, PortRequest, Protocol, publishable};
pub use publish::{Mapping, PublishSpec, merge};
pub use reference::{BoxRef, Which};
pub use request::{PortCommand, Request, RunRequest};
pub use signal::SignalNumber;
pub use unpublish::UnpublishSpec;
pub use unshare::Unshare;
pub use user::{GroupRef, UserRef, UserSpec};
