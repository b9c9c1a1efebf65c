//! What a keeper writes down of its box.

use std::time::SystemTime;

use super::Keeper;
use crate::apply::{export, kept};
use crate::error::Result;
use crate::plan::exec::Rights;
use crate::plan::record::BoxRecord;

impl Keeper<'_> {
    /// Writes the record, and that of a detached box which outlives it.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub(super) fn write_record(&mut self) -> Result<()> {
        let (Some(lease), Some(host)) = (&self.lease, &self.host) else { return Ok(()) };
        let request = self.start.request;
        let pid = self.first.command().pid.as_raw();
        let (mounts, network) = self.first.namespaces(request)?;
        let facts = self.facts();
        let record = BoxRecord {
            exported: export::planned(request, &facts.name, self.first.process.pid, host)?,
            id: facts.id,
            name: facts.name,
            pid: self.start.launcher.as_raw(),
            keeper_pid: nix::unistd::getpid().as_raw(),
            box_pid: pid,
            net: request.net.as_str().to_owned(),
            privilege: "root".to_owned(),
            command: request.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            started: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            attachment: self.attachment.clone(),
            ports: self.waiting.ports(),
            host_ports: request.host_ports.clone(),
            other_ports: Vec::new(),
            joining: None,
            mounts,
            network,
            rights: Some(Rights::new(self.start.identity, &self.start.privileges)),
            detached: request.detach,
            publish_all: self.publisher.is_some(),
        };
        lease.write(&record)?;
        if let Some(state) = &self.state {
            // The command cannot leave a network of its own: that takes CAP_SYS_ADMIN over the one it would enter (setns(2)).
            let command = if request.has_own_network() { record.box_pid } else { 0 };
            lease.note_processes(state, [record.pid, command]);
        }
        if let Some(state) = self.state.as_ref().filter(|_| request.detach) {
            // After the other record, by which a sweep finds this one.
            let (name, host) = (lease.name.as_ref(), state.host());
            self.kept = Some(kept::keep(&record, &lease.id, name, host, request.remove)?);
        }
        self.record = Some(record);
        Ok(())
    }
}
