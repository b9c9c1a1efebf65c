//! The `netbox` binary.
#![no_main]

use std::ffi::OsString;

use netbox::boxes::{
    belonging, dry_run, exec, gateway, gc, inspect, logs, monitor, network, port, ps, publish, rm, stats,
    stop, wait,
};
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
            print(&dry_run::dry_run(request, &caller, &caller::who(request, &caller)?)?)
        }
        Request::Run(request) => run::run(request, report),
        Request::Exec(request) => exec::exec(request, report),
        Request::Logs(request) => logs::logs(request),
        Request::Rm(request) => rm::rm(request, report).map(|()| 0),
        Request::Port(PortCommand::Add { of, ports }) => print(&publish::add(of, ports)?),
        Request::Port(PortCommand::Remove { of, ports }) => publish::remove(of, ports).map(|()| 0),
        Request::Wait { boxes } => wait::wait(boxes),
        Request::Ps { all, json, quiet, filters } => print(&ps::ps(*all, *json, *quiet, filters)?),
        Request::Port(PortCommand::List { of, port: inside, json }) => {
            print(&port::list(of.as_ref(), *inside, *json)?)
        }
        Request::Inspect { boxes, pointer } => print(&inspect::inspect(boxes, pointer.as_ref())?),
        Request::Pids { of, json } => print(&belonging::pids(of, *json)?),
        Request::Identify { pid } => {
            print(&belonging::identify(pid.unwrap_or_else(|| std::process::id().cast_signed()))?)
        }
        Request::Stats { boxes, stream, json } => stats::stats(boxes, *stream, *json).map(|()| 0),
        Request::Monitor { json } => monitor::monitor(*json).map(|()| 0),
        Request::Stop { which, time } => stop::stop(which, *time, report).map(|()| 0),
        Request::Kill { boxes, signal } => stop::kill(boxes, *signal, report).map(|()| 0),
        Request::Network(request) => print(&network::network(request)?),
        Request::Gc => print(&gc::gc()?),
        Request::Gateway { command } => match gateway::gateway(command)? {},
    }
}

fn print(text: &str) -> Result<u8> {
    if report::output(text) { Ok(0) } else { Err(Error::new("cannot write to standard output")) }
}
