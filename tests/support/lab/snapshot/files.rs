//! What can be read as files: sysctls, mounts, processes, and what lies in /run, /tmp and /var/lib.

use std::fs;
use std::path::Path;

/// Every readable value under /proc/sys/net that does not change by itself.
pub(super) fn sysctls() -> Vec<String> {
    let mut lines = Vec::new();
    for part in ["ipv4", "ipv6", "netfilter"] {
        walk(&Path::new("/proc/sys/net").join(part), &mut |path| {
            let name = path.display().to_string();
            if !name.ends_with("nf_conntrack_count") {
                // Directories, and some that are for writing only, cannot be read.
                if let Ok(value) = fs::read_to_string(path) {
                    lines.push(format!("{} = {}", name.trim_start_matches("/proc/sys/"), value.trim()));
                }
            }
        });
    }
    lines
}

/// The mounts of this process, without their ids.
pub(super) fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    table.lines().map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" ")).collect()
}

/// The processes of the pid namespace, but for pid 1 and the caller.
pub(crate) fn processes() -> Vec<String> {
    let own = std::process::id();
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc").expect("the processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == 1 || pid == own {
            continue;
        }
        // Gone between the two readings: not there.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let state =
            status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim().to_owned();
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let waits = fs::read_to_string(entry.path().join("wchan")).unwrap_or_default();
        lines.push(format!("{pid} {state} {waits} {command}"));
    }
    lines
}

/// The processes of a program that runs from this path. A zombie has no program any more.
pub(crate) fn running(program: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("the processes").flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let runs = fs::read_link(entry.path().join("exe")).ok()?;
        (runs.as_os_str() == program).then_some(pid)
    })
    .collect()
}

/// What lies in /run, /tmp and /var/lib, but for the lab's own and for what may stay (`may_stay`).
pub(super) fn leftovers() -> Vec<String> {
    let mut lines = Vec::new();
    for root in ["/run", "/tmp", "/var/lib"] {
        walk(Path::new(root), &mut |path| {
            if !path.starts_with("/run/lab") && !may_stay(path) {
                lines.push(path.display().to_string());
            }
        });
    }
    lines
}

/// netbox's directory, a user's in it, a host's in that, and in there what a run that failed early leaves: whatever is no
/// gateway's record and no box's. Likewise where detached boxes are kept. Networks are there until
/// somebody removes them.
fn may_stay(path: &Path) -> bool {
    if let Ok(inside) = path.strip_prefix("/var/lib/netbox") {
        if inside.iter().nth(1).is_some_and(|part| part == "networks") {
            return true;
        }
        return inside.iter().nth(1).is_none_or(|part| part == "boxes" || part == "names")
            && inside.iter().nth(2).is_none();
    }
    let Ok(inside) = path.strip_prefix("/run/netbox") else { return false };
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    match &parts[..] {
        [] | [_] => true,
        [_, host] => host.len() == 16,
        [_, _, part] => ["lock", "slots", "boxes", "names"].contains(&part.as_ref()),
        _ => false,
    }
}

/// Calls `found` with everything below `directory`, itself not included. Links are not followed.
fn walk(directory: &Path, found: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        found(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        }
    }
}
