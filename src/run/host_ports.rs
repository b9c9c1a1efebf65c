//! The host's ports that a box was given (`--host-port`).

use super::Keeper;
use crate::apply::{attach, host_ports};
use crate::error::Result;

impl Keeper<'_> {
    /// Opens what the box comes to them by. Who carries that on is started with the first that comes.
    ///
    /// # Errors
    /// EMFILE and its like.
    pub(super) fn listen_for_host(&mut self) -> Result<()> {
        let ports = &self.start.request.host_ports;
        if ports.is_empty() {
            return Ok(());
        }
        if let (Some(gateway), Some(host), Some(attachment)) = (&self.gateway, &self.host, &self.attachment) {
            self.host_ports = host_ports::listen_for(gateway, host, attachment, ports)?;
        }
        Ok(())
    }

    /// Lets the box come to them, once the record names them.
    ///
    /// # Errors
    /// Those of nf_tables.
    pub(super) fn open_host_ports(&mut self) -> Result<()> {
        let ports = &self.start.request.host_ports;
        if ports.is_empty() {
            return Ok(());
        }
        let (Some(gateway), Some(attachment), Some(state)) =
            (&mut self.gateway, &self.attachment, &mut self.state)
        else {
            return Ok(());
        };
        attach::open_host_ports(&state.lock()?, gateway, attachment, ports)
    }
}
