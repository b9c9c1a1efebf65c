//! What `--dry-run` prints, done by the real `ip`, `sysctl` and `nft`, makes the same of a machine as a run does.
//!
//! In namespaces of its own, by `unshare`(1); runs where `NETBOX_PEERS` is 1, as root.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const INSIDE: &str = "NETBOX_TEST_INSIDE";
const NAME: &str = "the_steps_that_are_printed_make_what_a_run_makes";
const NETBOX: &str = env!("CARGO_BIN_EXE_netbox");

/// A host with one interface and a way out, over both families.
const HOST: &str = "
    ip link set lo up
    ip link add eth9 address 02:00:00:00:00:01 type veth peer name other address 02:00:00:00:00:02
    ip link set eth9 addrgenmode none
    ip link set other addrgenmode none
    ip address add 192.0.2.1/24 dev eth9
    ip link set eth9 up
    ip link set other up
    ip route add default via 192.0.2.2
    ip address add 2001:db8::1/64 dev eth9 nodad
    ip -6 route add default via 2001:db8::2
";

/// What the box is to have.
const OPTIONS: [&str; 8] =
    ["-p", "8080:80", "--mac", "02:00:5e:10:00:01", "--snat", "192.0.2.1", "--pool", "10.111.0.0/20"];

/// What there is in a network namespace.
const LOOK: &str = r#"
    ip -d link; ip address; ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all
    ip neighbour | sort
    nft list ruleset
    cd /proc/sys/net
    for link in all default lo eth9 eth0 nb0 out0; do
        for name in forwarding src_valid_mark send_redirects accept_redirects rp_filter; do
            ! test -e ipv4/conf/$link/$name || echo "ipv4 $link $name $(cat ipv4/conf/$link/$name)"
        done
        for name in disable_ipv6 accept_ra accept_redirects forwarding force_forwarding addr_gen_mode; do
            ! test -e ipv6/conf/$link/$name || echo "ipv6 $link $name $(cat ipv6/conf/$link/$name)"
        done
    done
    for name in ip_forward icmp_ratelimit ping_group_range ip_unprivileged_port_start; do
        echo "$name $(cat ipv4/$name)"
    done
"#;

/// Runs a shell script and returns what it printed.
fn shell(words: &[&str], script: &str) -> String {
    let (program, arguments) = words.split_first().unwrap();
    let output = Command::new(program).args(arguments).args(["sh", "-ec", script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} {script}: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A look, without what is chosen anew each time or comes about some time later: the id, the IPv6 prefix, indexes,
/// namespace numbers, the state of a link that is up, what the kernel makes of an address.
fn plain(look: &str, chosen: &Chosen) -> Vec<String> {
    let mut lines = Vec::new();
    let look = look.replace(&chosen.id, "ID").replace(&chosen.prefix, "PREFIX");
    for line in look.lines().filter(|line| !line.contains("proto kernel")) {
        let (mut words, mut kept) = (line.split_whitespace().peekable(), Vec::new());
        if words
            .peek()
            .is_some_and(|word| word.ends_with(':') && word[..word.len() - 1].parse::<u32>().is_ok())
        {
            words.next();
        }
        while let Some(word) = words.next() {
            match word {
                "state" | "qdisc" | "link-netns" | "link-netnsid" => drop(words.next()),
                flags if flags.starts_with('<') => kept.push(format!("up {}", flags.contains("UP"))),
                name if name.ends_with(':') => kept.push(name.split('@').next().unwrap().to_owned()),
                other => kept.push(other.to_owned()),
            }
        }
        lines.push(kept.join(" "));
    }
    lines
}

/// What each run chooses.
struct Chosen {
    id: String,
    prefix: String,
}

/// The host, the gateway and the box after a run.
fn of_a_run() -> ([String; 3], Chosen) {
    shell(&["env"], HOST);
    let mut netbox = Command::new(NETBOX)
        .args(["run"])
        .args(OPTIONS)
        .args(["--", "sh", "-c", "echo $NETBOX_ID $NETBOX_IPV6 $$; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(netbox.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let [id, address, pid] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line:?}") };
    let chosen = Chosen { id: id.to_owned(), prefix: address.strip_suffix("10").unwrap().to_owned() };
    let looks = [
        shell(&["env"], LOOK),
        shell(&[NETBOX, "gateway"], LOOK),
        shell(&["nsenter", "--net", "--target", pid], LOOK),
    ];
    netbox.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(netbox.wait().unwrap().success());
    (looks, chosen)
}

/// The same after the steps of a dry run.
fn of_the_steps() -> ([String; 3], Chosen) {
    shell(&["env"], &format!("{HOST} mount -t tmpfs none /run; ip netns add BOX"));
    let said = shell(&["env"], &format!("{NETBOX} run --dry-run {} -- true", OPTIONS.join(" ")));
    let (steps, rest) = said.split_once("# RULES on the host\n").unwrap();
    let (host, rest) = rest.split_once("# RULES in the gateway\n").unwrap();
    let (gateway, _) = rest.split_once("# as user").unwrap();
    fs::write("/run/host.nft", host).unwrap();
    fs::write("/run/gateway.nft", gateway).unwrap();
    // The rulesets are printed with the elements that the steps add to them; the box is a named namespace here.
    let done = steps.lines().filter(|line| {
        !line.contains("nft 'add element") && !line.starts_with("mount ") && !line.starts_with("unshare ")
    });
    let script: String = done
        .map(|line| match line {
            "nft -f RULES" => "nft -f /run/host.nft\n".to_owned(),
            line => line.replace("nft -f RULES", "nft -f /run/gateway.nft") + "\n",
        })
        .collect();
    shell(&["env"], &script);
    let inside = |name| shell(&["ip", "netns", "exec", name], LOOK);
    let chosen = Chosen { id: "example0".to_owned(), prefix: "fd6e:6265:7861::".to_owned() };
    ([shell(&["env"], LOOK), inside("GATEWAY"), inside("BOX")], chosen)
}

/// Runs one part of the test in namespaces of its own, by starting the test once more.
fn inside(part: &str) -> String {
    let output = Command::new("timeout")
        .args(["60", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec"])
        .arg("mount -t tmpfs none /run; exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(INSIDE, part)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{part}: {}\n{out}{err}", output.status);
    let found: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("seen: ")).collect();
    assert!(found.len() > 100, "{part}: {out}{err}");
    found.join("\n")
}

#[test]
fn the_steps_that_are_printed_make_what_a_run_makes() {
    let seen = |looks: [String; 3], chosen: &Chosen| {
        for (place, look) in ["host", "gateway", "box"].iter().zip(looks) {
            plain(&look, chosen).iter().for_each(|line| println!("seen: {place}: {line}"));
        }
    };
    match std::env::var(INSIDE).as_deref() {
        Ok("run") => {
            let (looks, chosen) = of_a_run();
            seen(looks, &chosen);
        }
        Ok(_) => {
            let (looks, chosen) = of_the_steps();
            seen(looks, &chosen);
        }
        Err(_) if std::env::var("NETBOX_PEERS").as_deref() != Ok("1") => {
            println!("{NAME}: switched off, NETBOX_PEERS is not 1");
        }
        Err(_) if !nix::unistd::geteuid().is_root() => {
            assert_ne!(std::env::var("NETBOX_LIVE").as_deref(), Ok("required"), "{NAME} takes root");
            println!("{NAME}: not tested: takes root");
        }
        Err(_) => {
            let (run, steps) = (inside("run"), inside("steps"));
            let different = run.lines().zip(steps.lines()).find(|(run, steps)| run != steps);
            assert_eq!(different, None, "a run and the steps");
            assert!(run.contains("PREFIX10/128") && run.contains("nbID"), "{run}");
            assert_eq!(run.lines().count(), steps.lines().count());
        }
    }
}
