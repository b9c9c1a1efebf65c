//! Which processes there are, and who came from whom (proc(5)). What ends meanwhile is passed over.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Every process that is in the namespace of this kind (`net`, `mnt` …) and inode, but for those that need not be looked at.
/// To list a process takes a microsecond, to look at it four.
///
/// # Errors
/// Where /proc is not mounted.
pub fn in_namespace(kind: &str, inode: u64, passed_over: &HashSet<i32>) -> io::Result<Vec<i32>> {
    let directory: OwnedFd = File::open("/proc")?.into();
    let wanted = format!("{kind}:[{inode}]");
    let (mut found, mut name) = (Vec::new(), Vec::new());
    for entry in rustix::fs::Dir::read_from(&directory)?.flatten() {
        let pid = entry.file_name().to_str().ok().and_then(|text| text.parse::<i32>().ok());
        let Some(pid) = pid.filter(|pid| !passed_over.contains(pid)) else { continue };
        // ENOENT, ESRCH: it has ended; EACCES: it is another user's.
        if let Ok(link) = rustix::fs::readlinkat(&directory, format!("{pid}/ns/{kind}"), name) {
            if link.as_bytes() == wanted.as_bytes() {
                found.push(pid);
            }
            name = link.into_bytes();
        } else {
            name = Vec::new();
        }
    }
    Ok(found)
}

/// The parent of a process; 0 where it has none in this process's pid namespace.
///
/// # Errors
/// ENOENT, ESRCH when there is no such process.
pub fn parent_of(pid: i32) -> io::Result<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before the last parenthesis may be anything.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let parent = after_name.split(' ').nth(1).and_then(|parent| parent.parse().ok());
    parent.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The process's parent, that one's, and so on.
///
/// # Errors
/// As [`parent_of`] for the process itself.
pub fn ancestors(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    let mut next = parent_of(pid)?;
    // A number that was given again while one looks must not lead in a circle.
    while next > 0 && !found.contains(&next) {
        found.push(next);
        next = parent_of(next).unwrap_or(0);
    }
    Ok(found)
}

/// The process's children, their children, and so on. Takes CONFIG_PROC_CHILDREN, without which no box is started.
#[must_use]
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut seen = HashSet::from([pid]);
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        for child in children(parent).unwrap_or_default() {
            if seen.insert(child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

/// Those of every thread: a child is that of the thread that forked it.
fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::namespace;

    #[test]
    fn a_child_of_any_thread_is_a_descendant_and_has_its_ancestors() {
        let own = std::process::id().cast_signed();
        let start = || std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let mut child = std::thread::spawn(start).join().unwrap();
        let pid = child.id().cast_signed();
        let below = descendants(own);
        let inode = namespace::inode_of(own, "net").unwrap();
        let listed = in_namespace("net", inode, &HashSet::from([own])).unwrap();
        let above = ancestors(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed.contains(&pid) && !listed.contains(&own));
        assert!(below.contains(&pid) && !below.contains(&own));
        assert_eq!(above.first(), Some(&own));
        assert_eq!(parent_of(pid).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(descendants(pid), Vec::<i32>::new());
    }
}
