//! The `netbox` binary.
#![no_main]

use std::ffi::OsString;

use netbox::boxes::{dry_run, gateway, gc, network, ps, publish, wait};
use netbox::cli;
use netbox::error::{Error, Result};
use netbox::host::caller;
use netbox::kernel::allocator::InARow;
use netbox::report::{self, Report};
use netbox::run;
use netbox::spec::request::{PortCommand, Request};

#[global_allocator]
static ALLOCATOR: InARow = InARow::new();

netbox::entry_point!(begin);

fn begin(arguments: Vec<OsString>) -> u8 {
    let request = match cli::parse(arguments) {
        Ok(request) => request,
        Err(stop) => {
            if stop.to_stdout {
                let written = report::output(&stop.text);
                return if written { stop.status } else { 125 };
            }
            report::to_stderr(&stop.text);
            return stop.status;
        }
    };
    let report = match &request {
        Request::Run(run) => Report::new(run.quiet, run.verbose > 0),
        _ => Report::default(),
    };
    match carry_out(&request, &report) {
        Ok(status) => status,
        Err(error) => {
            report.error(&error);
            error.exit_status()
        }
    }
}

fn carry_out(request: &Request, report: &Report) -> Result<u8> {
    match request {
        Request::Run(request) if request.dry_run => {
            let caller = caller::caller()?;
            print(&dry_run::dry_run(request, &caller, &run::who(request, &caller)?)?)
        }
        Request::Run(request) => run::run(request, report),
        Request::Ps { json } => print(&ps::ps(*json)?),
        Request::Port(PortCommand::Add { of, ports }) => print(&publish::add(of, ports)?),
        Request::Port(PortCommand::Remove { of, ports }) => publish::remove(of, ports).map(|()| 0),
        Request::Wait { boxes } => wait::wait(boxes),
        Request::Network(request) => print(&network::network(request)?),
        Request::Gc => print(&gc::gc()?),
        Request::Gateway { command } => match gateway::gateway(command)? {},
    }
}

fn print(text: &str) -> Result<u8> {
    if report::output(text) { Ok(0) } else { Err(Error::new("cannot write to standard output")) }
}
