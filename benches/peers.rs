//! What others take to start `true` in a network of its own: a table for a document, of what is installed here.
//!
//! Each program is called in its shortest documented way, on a host of its own with an uplink. What needs a root directory
//! or an image gets the same one, which holds a program of some 130 bytes. Before it is measured each says whether its
//! command has a network of its own and gets out. Nothing but the process tree and a control group is shared with
//! the machine: see `protect`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::statvfs::{FsFlags, statvfs};

use support::bounded::{self, Success};
use support::floor::network;
use support::host::{BEYOND, Host};
use support::namespaces::{NONE, mount_new};
use support::report::{Cell, Report, Table};
use support::statistics::Sample;
use support::{FLOOR, Length, NETBOX, has_cgroup, rootfs};

/// The root directory, and the one with the floor program in it.
const ROOT: &str = "/run/bench/root";
const ROOT_WITH_FLOOR: &str = "/run/bench/root-with-floor";
/// Images made of them.
const IMAGE: &str = "peers/true";
const IMAGE_WITH_FLOOR: &str = "peers/floor";

const HOME: &str = "/run/bench/home";
const PODMAN_SETTINGS: &str = "/run/bench/containers.conf";
const DOCKER_SOCKET: &str = "unix:///run/bench/docker.sock";
const SERVER_PORT: u16 = 5001;

/// No start takes so long, on whatever machine.
const LIMIT: Duration = Duration::from_secs(20);
/// What a start leaves behind is gone by then, so that each begins alike.
const REST: Duration = Duration::from_millis(100);

/// A program and the ways to call it.
struct Peer {
    name: &'static str,
    /// Made before its first start: images, a daemon.
    prepare: fn(&Path) -> Result<(), String>,
    ways: &'static [Way],
}

/// A command line as one types it. `true` stands for the command, `ROOT` for a root directory, `IMAGE` for an image.
struct Way {
    line: &'static str,
    /// What the measured line has before it.
    before: &'static [&'static str],
}

const fn way(line: &'static str) -> Way {
    Way { line, before: &[] }
}

const PEERS: &[Peer] = &[
    Peer { name: "unshare", prepare: nothing, ways: &[way("unshare -n true")] },
    Peer {
        name: "netbox",
        prepare: nothing,
        ways: &[way("netbox run -- true"), way("netbox run -p 8080:80 -- true")],
    },
    Peer {
        name: "bwrap",
        prepare: nothing,
        ways: &[way("bwrap --unshare-net --bind ROOT / --dev /dev /true")],
    },
    Peer {
        name: "pasta",
        prepare: nothing,
        // As an ordinary user: as root it spins. As one to whom the files of this user belong, /dev/net/tun among them.
        ways: &[Way {
            line: "pasta --config-net -- true",
            before: &["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"],
        }],
    },
    Peer {
        name: "systemd-nspawn",
        prepare: nothing,
        // Without systemd as pid 1 there is nobody to register with.
        ways: &[way("systemd-nspawn --quiet --register=no --keep-unit --network-veth -D ROOT /true")],
    },
    Peer {
        name: "firejail",
        prepare: nothing,
        ways: &[way("firejail --quiet --noprofile --net=uplink true")],
    },
    Peer {
        name: "podman",
        prepare: podman,
        ways: &[way("podman run --rm IMAGE /true"), way("podman run --rm -p 8080:80 IMAGE /true")],
    },
    Peer {
        name: "docker",
        prepare: docker,
        ways: &[way("docker run --rm IMAGE /true"), way("docker run --rm -p 8080:80 IMAGE /true")],
    },
];

/// A line of the table in the making.
struct Row {
    way: &'static Way,
    program: String,
    version: String,
    /// Why there are no figures.
    failed: Option<String>,
    network: String,
    sample: Sample,
}

fn main() -> ExitCode {
    support::main_in_cgroup(measure)
}

fn measure(length: Length, report: &mut Report) {
    protect();
    // Orphans go to pid 1, which buries them at once: who asks whether one is alive would find a zombie here.
    set_child_subreaper(false).expect("no subreaper");
    rootfs::make(ROOT, ROOT_WITH_FLOOR);
    let mut rows: Vec<(usize, Row)> = Vec::new();
    let mut hosts = Vec::new();
    for peer in PEERS {
        let Some(program) = installed(peer.name) else {
            rows.extend(peer.ways.iter().map(|way| (0, Row::without(way, "not installed"))));
            continue;
        };
        let host = Host::new();
        if has_cgroup() {
            mount_new("cgroup2", "/sys/fs/cgroup", MsFlags::MS_NOEXEC);
        }
        let prepared = (peer.prepare)(program.as_ref());
        for way in peer.ways {
            let row = Row::new(way, &program, prepared.clone(), &host);
            rows.push((hosts.len(), row));
        }
        hosts.push(host);
    }
    let rounds = length.pick(11, 3);
    for round in 0..rounds {
        for turn in 0..rows.len() {
            let index = (round + turn) % rows.len();
            let (host, row) = &mut rows[index];
            if row.failed.is_none() {
                hosts[*host].enter();
                row.start();
            }
        }
    }
    report.note("rounds", rounds.to_string());
    report.table(table(&rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>()));
}

/// What peers write is gone with this mount namespace: fresh directories where they keep things, a layer over /etc, and the
/// rest of the machine's files read-only.
fn protect() {
    fs::create_dir(HOME).expect("a directory in a fresh tmpfs");
    mount_new("tmpfs", "/tmp", MsFlags::empty());
    mount_new("tmpfs", "/var", MsFlags::empty());
    mount_new("tmpfs", "/dev/shm", MsFlags::empty());
    for directory in ["lib", "tmp", "log", "cache", "lock"] {
        fs::create_dir(Path::new("/var").join(directory)).expect("a directory in a fresh tmpfs");
    }
    std::os::unix::fs::symlink("/run", "/var/run").expect("a link in a fresh tmpfs");
    for directory in ["etc", "etc-work"] {
        fs::create_dir(Path::new("/run/bench").join(directory)).expect("a directory in a fresh tmpfs");
    }
    let layers = "lowerdir=/etc,upperdir=/run/bench/etc,workdir=/run/bench/etc-work";
    // Without overlayfs /etc is read-only, and who wants to write there says so in the table.
    let _ = mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(layers));
    // In a user namespace these may not be taken off.
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let own = statvfs("/").expect("the root directory's file system").flags();
    for (own_flag, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        flags.set(flag, own.contains(own_flag));
    }
    mount(NONE, "/", NONE, flags, NONE).expect("a read-only root directory");
}

/// The path of an installed program.
fn installed(name: &str) -> Option<String> {
    if name == "netbox" {
        return Some(NETBOX.to_owned());
    }
    let directories = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];
    directories.iter().map(|directory| format!("{directory}/{name}")).find(|path| Path::new(path).exists())
}

/// A program with nothing of the caller's around it.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([
        ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"),
        ("HOME", HOME),
        ("CONTAINERS_CONF", PODMAN_SETTINGS),
        ("DOCKER_HOST", DOCKER_SOCKET),
    ]);
    command
}

fn nothing(_program: &Path) -> Result<(), String> {
    Ok(())
}

fn podman(program: &Path) -> Result<(), String> {
    let settings = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
    fs::write(PODMAN_SETTINGS, settings).map_err(|error| format!("{PODMAN_SETTINGS}: {error}"))?;
    import(program)
}

/// Starts the daemon, which lives as long as this benchmark.
fn docker(program: &Path) -> Result<(), String> {
    let daemon = installed("dockerd").ok_or("dockerd is not installed")?;
    let said = "/run/bench/dockerd.log";
    let log = || fs::File::options().append(true).create(true).open(said).map_err(|error| error.to_string());
    let mut started = command(daemon)
        .args(["--host", DOCKER_SOCKET, "--storage-driver", "vfs", "--default-ulimit", "nofile=1024:1024"])
        .args(["--pidfile", "/run/bench/docker.pid"])
        .stdin(Stdio::null())
        .stdout(log()?)
        .stderr(log()?)
        .spawn()
        .map_err(|error| format!("dockerd: {error}"))?;
    let end = Instant::now() + LIMIT;
    while bounded::run(command(program).arg("version"), LIMIT).is_err() {
        if started.try_wait().is_ok_and(|status| status.is_some()) || Instant::now() > end {
            let log = fs::read_to_string(said).unwrap_or_default();
            return Err(format!(
                "dockerd does not answer: {}",
                log.lines().last().unwrap_or("it said nothing")
            ));
        }
        thread::sleep(Duration::from_millis(100));
    }
    import(program)
}

fn import(program: &Path) -> Result<(), String> {
    for (root, image) in [(ROOT, IMAGE), (ROOT_WITH_FLOOR, IMAGE_WITH_FLOOR)] {
        let archive = format!("{root}.tar");
        bounded::run(command("tar").args(["-C", root, "-cf", &archive, "."]), LIMIT)?;
        bounded::run(command(program).args(["import", &archive, image]), LIMIT)?;
    }
    Ok(())
}

impl Row {
    fn without(way: &'static Way, reason: &str) -> Self {
        Self {
            way,
            program: String::new(),
            version: String::new(),
            failed: Some(reason.to_owned()),
            network: String::new(),
            sample: Sample::default(),
        }
    }

    /// Looks at its network, on the host that the calling thread is in.
    fn new(way: &'static Way, program: &str, prepared: Result<(), String>, host: &Host) -> Self {
        let mut row = Self { program: program.to_owned(), ..Self::without(way, "") };
        row.version = version(program);
        row.failed = prepared.err();
        if row.failed.is_none() {
            let server = host.outside().run(|| TcpListener::bind((BEYOND, SERVER_PORT)));
            let _server = server.expect("a server outside");
            row.network = match row.command(true).and_then(|mut command| bounded::run(&mut command, LIMIT)) {
                Ok(Success { output, .. }) => network_of(&output),
                Err(reason) => format!("not known: {reason}"),
            };
        }
        row
    }

    /// What is executed; with the floor program as command, which tells of its network, or with `true`.
    fn command(&self, tells: bool) -> Result<Command, String> {
        let (root, image) = if tells { (ROOT_WITH_FLOOR, IMAGE_WITH_FLOOR) } else { (ROOT, IMAGE) };
        let target = format!("{BEYOND}:{SERVER_PORT}");
        let mut words: Vec<String> = self.way.before.iter().map(|word| (*word).to_owned()).collect();
        words.push(self.program.clone());
        for word in self.way.line.split(' ').skip(1) {
            match word {
                "ROOT" => words.push(root.to_owned()),
                "IMAGE" => words.push(image.to_owned()),
                "true" | "/true" if tells => {
                    let floor = if word == "true" { FLOOR } else { "/floor" };
                    words.extend([floor, "--reach", &target].map(str::to_owned));
                }
                "true" => words.push(format!("{root}/true")),
                other => words.push(other.to_owned()),
            }
        }
        let (first, rest) = words.split_first().ok_or("an empty command line")?;
        let mut command = command(first);
        command.args(rest).current_dir("/");
        Ok(command)
    }

    /// Measures one start.
    fn start(&mut self) {
        thread::sleep(REST);
        match self.command(false).and_then(|mut command| bounded::run(&mut command, LIMIT)) {
            Ok(Success { time, .. }) => self.sample.add(time),
            Err(reason) => self.failed = Some(reason),
        }
    }
}

/// The first word of what it says of its version, in the first line, that begins with a digit.
fn version(program: &str) -> String {
    let Ok(Success { output, .. }) = bounded::run(command(program).arg("--version"), LIMIT) else {
        return "unknown".to_owned();
    };
    let mut words = output.lines().next().unwrap_or_default().split_whitespace();
    let found = words.find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    found.unwrap_or("unknown").trim_end_matches(',').to_owned()
}

/// In words, from what `floor --reach` told.
fn network_of(told: &str) -> String {
    match told.trim().split_once(' ') {
        Some((namespace, _)) if namespace == network().to_string() => "the host's",
        Some((_, "true")) => "own, with a way out",
        Some(_) => "own, no way out",
        None => "not known",
    }
    .to_owned()
}

fn table(rows: &[Row]) -> Table {
    let own = rows.iter().find(|row| row.program == NETBOX).map_or(f64::NAN, |row| row.sample.median());
    let lines = rows.iter().map(|row| {
        let (time, network) = match &row.failed {
            Some(reason) => (f64::NAN, reason),
            None => (row.sample.median(), &row.network),
        };
        vec![
            Cell::Code(row.way.line.to_owned()),
            Cell::Text(row.version.clone()),
            Cell::Number(time),
            Cell::Number(time / own),
            Cell::Text(network.clone()),
        ]
    });
    Table {
        name: "start to end of `true`",
        columns: &["command", "version", "ms", "to netbox", "network"],
        rows: lines.collect(),
    }
}
