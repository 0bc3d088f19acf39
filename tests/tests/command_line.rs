//! The promise: `gluster` prints what GlusterFS 10.3 prints, byte for byte, and exits as it does.
//!
//! `tests/golden/commands-10.3.txt` and `volumes-10.3.txt` are what Debian's gluster printed for the commands below, in their
//! order, ids, ports and process numbers masked. To make them anew:
//! `LADRILLO_TEST_SERVERS=stock CAPTURE=1 cargo test -p ladrillo-tests --test command_line`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ladrillo_tests::{Cluster, wait_until};

/// Commands by the machine they run on. `WAIT` waits until both peers are connected.
const COMMANDS: &[(usize, &str)] = &[
    (1, "gluster --version | head -n 1"),
    (1, "gluster --print-logdir"),
    (1, "gluster --print-statedumpdir"),
    (1, "gluster --help"),
    (1, "gluster help"),
    (1, "gluster peer help"),
    (1, "gluster volume help"),
    (1, "gluster snapshot help"),
    (1, "gluster global help"),
    (1, "gluster volume quota help"),
    (1, "gluster volume bitrot help"),
    (1, "gluster nonsense"),
    (1, "gluster vol"),
    (1, "gluster volume nonsense"),
    (1, "gluster volume st"),
    (1, "gluster --nonsense volume info"),
    (1, "gluster --mode=nonsense volume info"),
    (1, "gluster --timeout=0 volume info"),
    (1, "gluster --log-level=nonsense volume info"),
    (1, "gluster --glusterd-sock=/nowhere volume info"),
    (1, "gluster peer status"),
    (1, "gluster --xml peer status"),
    (1, "gluster pool list"),
    (1, "gluster --xml pool list"),
    (1, "gluster volume info"),
    (1, "gluster --xml volume info"),
    (1, "gluster volume list"),
    (1, "gluster --xml volume list"),
    (1, "gluster volume status"),
    (1, "gluster --xml volume status"),
    (1, "gluster peer probe"),
    (1, "gluster peer probe a b"),
    (1, "gluster peer probe bad_name!"),
    (1, "gluster peer probe debian1"),
    (1, "gluster --xml peer probe localhost"),
    (1, "gluster peer probe debian2"),
    (1, "gluster --xml peer probe debian3"),
    (1, "WAIT"),
    (1, "gluster peer probe debian2"),
    (1, "gluster --xml peer probe debian2"),
    (1, "gluster peer status"),
    (3, "gluster --xml peer status"),
    (1, "gluster pool list"),
    (1, "gluster --xml pool list"),
    (1, "gluster system:: uuid get"),
    (1, "gluster --xml system:: uuid get"),
    (1, "gluster system:: getwd"),
    (1, "gluster system:: help"),
    (1, "gluster volume create"),
    (1, "gluster volume create gv0"),
    (1, "gluster volume create gv0 debian1"),
    (1, "gluster volume create gv0 replica"),
    (1, "gluster volume create gv0 replica 1 debian1:/mnt/brick1/gv0"),
    (1, "gluster volume create gv0 replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0"),
    (1, "gluster volume create gv0 replica 3 debian1:relative debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (
        1,
        "gluster volume create gv0 replica 3 localhost:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0",
    ),
    (1, "gluster volume create gv0 replica 3 unknown:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (1, "gluster volume create all replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (1, "gluster volume create g.v replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (1, "gluster volume create gv0 replica 2 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 </dev/null"),
    (1, "echo n | gluster volume create gv0 replica 2 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0"),
    (1, "gluster volume create gv0 replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (1, "gluster volume create gv0 replica 3 debian1:/mnt/brick1/a debian2:/mnt/brick1/a debian3:/mnt/brick1/a"),
    (1, "gluster --xml volume create gv0 replica 3 debian1:/mnt/brick1/a debian2:/mnt/brick1/a debian3:/mnt/brick1/a"),
    (1, "gluster volume info"),
    (1, "gluster volume info gv0"),
    (1, "gluster volume info nothere"),
    (1, "gluster --xml volume info nothere"),
    (1, "gluster --xml volume info gv0"),
    (1, "gluster --xml volume info"),
    (1, "gluster volume info a b"),
    (1, "gluster volume create gv1 replica 3 debian1:/mnt/brick1/gv1 debian2:/mnt/brick1/gv1 debian3:/mnt/brick1/gv1"),
    (1, "gluster volume list"),
    (1, "gluster --xml volume list"),
    (1, "gluster volume info"),
    (1, "gluster --xml volume info"),
    (1, "gluster volume info all"),
    (1, "gluster --mode=script volume delete gv1"),
    (1, "gluster volume status gv0"),
    (1, "gluster --xml volume status gv0"),
    (1, "gluster volume status"),
    (1, "gluster volume heal gv0"),
    (1, "gluster --mode=script volume stop gv0"),
    (1, "gluster volume start nothere"),
    (1, "gluster --xml volume start nothere"),
    (1, "gluster volume start gv0 nonsense"),
    (1, "gluster volume start gv0"),
    (1, "gluster volume start gv0"),
    (1, "gluster --xml volume start gv0"),
    (1, "gluster --xml volume start gv0 force"),
    (1, "ONLINE"),
    (1, "gluster volume status gv0"),
    (1, "gluster --xml volume status gv0"),
    (1, "gluster --xml volume status"),
    (1, "gluster volume status nothere"),
    (1, "gluster --xml volume status nothere"),
    (1, "gluster volume status gv0 nonsense"),
    (1, "gluster volume status all nonsense"),
    (1, "gluster v i gv0"),
    (1, "gluster vol inf gv0"),
    (1, "gluster volume get gv0 cluster.quorum-type"),
    (1, "gluster volume get nothere all"),
    (1, "gluster --xml volume get gv0 cluster.quorum-type"),
    (1, "gluster volume set"),
    (1, "gluster volume set gv0 cluster.quorum-type"),
    (1, "gluster volume set gv0 cluster.self-heal-daemon maybe"),
    (1, "gluster volume set gv0 network.ping-timeout 20"),
    (1, "gluster --xml volume set gv0 performance.cache-size 64MB"),
    (1, "gluster volume set gv0 cluster.eager-lock on user.note hello"),
    (1, "gluster volume set nothere network.ping-timeout 20"),
    (1, "gluster volume get gv0 network.ping-timeout"),
    (1, "gluster volume info gv0"),
    (1, "gluster volume reset gv0 network.ping-timeout"),
    (1, "gluster volume reset gv0"),
    (1, "gluster volume reset nothere"),
    (1, "gluster volume info gv0"),
    (1, "gluster volume heal gv0"),
    (1, "gluster volume heal gv0 full"),
    (1, "gluster volume heal nothere"),
    (1, "gluster volume heal gv0 nonsense"),
    (1, "gluster volume heal"),
    (1, "gluster volume heal gv0 info"),
    (1, "gluster volume heal gv0 info summary"),
    (1, "gluster volume heal gv0 info split-brain"),
    (1, "gluster --xml volume heal gv0 info"),
    (1, "gluster volume stop gv0 </dev/null"),
    (1, "echo n | gluster volume stop gv0"),
    (1, "echo maybe | gluster volume stop gv0"),
    (1, "gluster --mode=script volume stop nothere"),
    (1, "gluster --mode=script volume delete gv0"),
    (1, "gluster --mode=script peer detach debian2"),
    (1, "gluster --mode=script peer detach nothere"),
    (1, "echo y | gluster volume stop gv0"),
    (1, "gluster --mode=script volume stop gv0"),
    (1, "gluster --mode=script --xml volume stop gv0"),
    (1, "gluster volume info gv0"),
    (1, "gluster volume status gv0"),
    (1, "gluster --mode=script volume start gv0"),
    (1, "gluster --mode=script --xml volume stop gv0"),
    (1, "echo y | gluster volume delete gv0"),
    (1, "gluster --mode=script volume delete gv0"),
    (1, "gluster --mode=script --xml volume delete gv0"),
    (1, "gluster volume create gv0 replica 3 debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0"),
    (1, "printf 'volume list\\npeer nonsense\\npool list\\n' | gluster"),
    (1, "echo n | gluster peer detach debian3"),
    (1, "gluster --mode=script peer detach debian3"),
    (1, "gluster --mode=script --xml peer detach debian2"),
    (1, "gluster pool list"),
];

/// Kinds of volumes and what is done with them, on one machine.
const VOLUMES: &[(usize, &str)] = &[
    (1, "gluster volume create d debian1:/mnt/brick1/d1 debian1:/mnt/brick1/d2"),
    (1, "gluster --xml volume create dr replica 3 debian1:/mnt/brick1/dr{1,2,3,4,5,6}"),
    (1, "gluster --xml volume create dr replica 3 debian1:/mnt/brick1/dr{1,2,3,4,5,6} force"),
    (1, "gluster volume create ar replica 2 arbiter 1 debian1:/mnt/brick1/ar{1,2,3} force"),
    (1, "gluster volume create dar replica 3 arbiter 1 debian1:/mnt/brick1/dar{1,2,3,4,5,6} force"),
    (1, "gluster volume create bad replica 3 arbiter 2 debian1:/mnt/brick1/x{1,2,3} force"),
    (1, "gluster volume create bad replica 4 arbiter 1 debian1:/mnt/brick1/x{1,2,3,4} force"),
    (1, "gluster volume create bad arbiter 1 debian1:/mnt/brick1/x{1,2,3} force"),
    (1, "gluster volume create bad replica 3 arbiter debian1:/mnt/brick1/x{1,2,3} force"),
    (1, "gluster volume create bad debian1:/mnt/brick1/x1 debian1:/mnt/brick1/x1"),
    (1, "gluster volume info"),
    (1, "gluster --xml volume info all"),
    (1, "gluster volume list"),
    (1, "gluster volume get d all"),
    (1, "gluster --xml volume get dr all"),
    (1, "gluster volume get all all"),
    (1, "gluster --xml volume get all all"),
    (1, "gluster volume get d nope"),
    (1, "gluster volume get d cluster.quorum-typ"),
    (1, "gluster volume get d open-behind"),
    (1, "gluster --xml volume get d nope"),
    (1, "gluster volume get all quorum-type"),
    (1, "gluster volume get d cluster.brick-multiplex"),
    (1, "gluster volume set d features.quota on"),
    (1, "gluster volume set d features.bitrot on"),
    (1, "gluster volume set d cluster.self-heal-daemon off"),
    (1, "gluster volume set dr cluster.granular-entry-heal off"),
    (1, "gluster volume set dr cluster.quorum-count 4"),
    (1, "gluster volume set d cluster.brick-multiplex on"),
    (1, "gluster volume set all cluster.eager-lock on"),
    (1, "gluster volume set all cluster.op-version 100000"),
    (1, "gluster volume set all cluster.server-quorum-ratio 80"),
    (1, "gluster volume set d eager-lock on"),
    (1, "gluster volume set d server.statedump-path /nowhere"),
    (1, "gluster --xml volume set d cluster.lookup-optimize maybe"),
    (1, "gluster --xml volume set d cluster.min-free-disk 20%"),
    (1, "gluster volume set d geo-replication.indexing on"),
    (1, "gluster volume info d"),
    (1, "gluster volume reset d nope"),
    (1, "gluster volume reset d geo-replication.indexing"),
    (1, "gluster volume reset d nfs.disable"),
    (1, "gluster volume reset d"),
    (1, "gluster volume info d"),
    (1, "gluster --xml volume reset d force"),
    (1, "gluster --xml volume reset nothere"),
    (1, "gluster volume reset all"),
    (1, "gluster volume statedump d"),
    (1, "gluster --xml volume statedump nothere"),
    (1, "gluster volume start d"),
    (1, "gluster volume start dr"),
    (1, "SERVICES dr 7"),
    (1, "gluster volume status d"),
    (1, "gluster --xml volume status dr"),
    (1, "gluster volume status dr shd"),
    (1, "gluster --xml volume status dr shd"),
    (1, "gluster volume status d debian1:/mnt/brick1/d2"),
    (1, "gluster --xml volume status d debian1:/mnt/brick1/d2"),
    (1, "gluster volume status d debian1:/mnt/brick1/nope"),
    (1, "gluster --xml volume status d debian1:/mnt/brick1/nope"),
    (1, "gluster volume status d quotad"),
    (1, "gluster volume status d detail"),
    (1, "gluster --xml volume status d detail"),
    (1, "gluster volume status d clients"),
    (1, "gluster volume status d fd"),
    (1, "gluster --xml volume status d fd"),
    (1, "gluster volume status d tasks"),
    (1, "gluster --xml volume status d tasks"),
    (1, "gluster --xml volume status ar detail"),
    (1, "gluster volume status d nonsense fd"),
    (1, "gluster volume status d shd fd"),
    (1, "gluster volume top d read-perf bs 4096"),
    (1, "gluster volume top d nonsense"),
    (1, "gluster volume top d open list-cnt 101"),
    (1, "gluster volume statedump d"),
    (1, "gluster --xml volume statedump d all"),
    (1, "gluster volume statedump d nonsense"),
    (1, "gluster volume add-brick d debian1:/mnt/brick1/d3"),
    (1, "gluster --xml volume add-brick d debian1:/mnt/brick1/d3"),
    (1, "gluster --xml volume add-brick d debian1:/mnt/brick1/d4"),
    (1, "gluster volume add-brick d nonsense"),
    (1, "gluster volume add-brick d"),
    (1, "gluster volume add-brick nothere debian1:/mnt/brick1/y"),
    (1, "gluster volume add-brick dr debian1:/mnt/brick1/y force"),
    (1, "gluster --xml volume add-brick dr debian1:/mnt/brick1/y{1,2,3}"),
    (1, "gluster volume add-brick dr debian1:/mnt/brick1/y{1,2,3} force"),
    (1, "gluster volume info"),
    (1, "gluster volume remove-brick d debian1:/mnt/brick1/d1"),
    (1, "echo n | gluster volume remove-brick d debian1:/mnt/brick1/d1 force"),
    (1, "gluster --mode=script volume remove-brick dr debian1:/mnt/brick1/dr1 force"),
    (1, "gluster --mode=script volume remove-brick dr debian1:/mnt/brick1/dr{1,2,3} force"),
    (1, "gluster --mode=script --xml volume remove-brick d debian1:/mnt/brick1/nope force"),
    (1, "gluster --mode=script volume remove-brick nothere debian1:/mnt/brick1/d1 force"),
    (1, "gluster volume info dr"),
];

/// Ids, ports, process numbers: equal ones get equal masks, in order of appearance.
#[derive(Default)]
struct Masks {
    uuids: HashMap<String, usize>,
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit() && !b.is_ascii_uppercase(),
        })
}

impl Masks {
    fn apply(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if rest.is_char_boundary(36) && rest.len() >= 36 && is_uuid(&rest[..36]) {
                let next = self.uuids.len() + 1;
                let number = *self.uuids.entry(rest[..36].to_owned()).or_insert(next);
                if rest.starts_with("00000000-0000-0000-0000-000000000000") {
                    out += &rest[..36];
                } else {
                    out += &format!("UUID-{number:031}");
                }
                rest = &rest[36..];
            } else {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        out.lines().map(mask_numbers).collect::<Vec<_>>().join("\n") + if text.ends_with('\n') { "\n" } else { "" }
    }
}

/// Ports and process numbers in `volume status`, text and XML.
fn mask_numbers(line: &str) -> String {
    for tag in ["port", "tcp", "pid"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        if let Some((before, rest)) = line.split_once(&open)
            && let Some((value, after)) = rest.split_once(&close)
            && value.parse::<u32>().is_ok_and(|v| v > 0)
        {
            return format!("{before}{open}NUMBER{close}{after}");
        }
    }
    // What `detail` says of this machine's disks.
    for tag in ["sizeFree", "inodesFree", "device", "inodeSize"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        if let Some((before, rest)) = line.split_once(&open)
            && let Some((_, after)) = rest.split_once(&close)
        {
            return format!("{before}{open}FIGURE{close}{after}");
        }
    }
    if let Some((name, _)) = line.split_once(" : ")
        && matches!(name.trim(), "TCP Port" | "Pid" | "Device" | "Disk Space Free" | "Free Inodes")
    {
        return format!("{name} : FIGURE");
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    // Two rows of figures: "... 49152 0 Y 1234" of a brick and "... N/A N/A Y 1234" of a service.
    if let [.., port, _, "Y", pid] = words.as_slice() {
        let is_number = |value: &str| value.parse::<u32>().is_ok_and(|v| v > 0);
        let mut masked = line.trim_end().to_owned();
        // The last word, and a whole one: 49 is also how a port begins.
        if is_number(pid) {
            masked.truncate(masked.len() - pid.len());
            masked.push('#');
        }
        if is_number(port) {
            masked = masked.replacen(&format!(" {port} "), &format!(" {} ", "#".repeat(port.len())), 1);
        }
        return masked;
    }
    line.to_owned()
}

/// Peers, and the self-heal daemons of other machines, are listed in no order to rely on: put in order of name.
fn in_order(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut out, mut blocks, mut at) = (String::new(), Vec::new(), 0);
    while at < lines.len() {
        let until = |end: &str| lines[at..].iter().position(|l| l.trim() == end).map_or(1, |last| last + 1);
        let length = match lines[at].trim() {
            "<node>" => until("</node>"),
            "<peer>" => until("</peer>"),
            "" if lines.get(at + 1).is_some_and(|l| l.starts_with("Hostname: ")) => 4.min(lines.len() - at),
            _ => 1,
        };
        let block = lines[at..at + length].join("\n") + "\n";
        match sort_key(&block) {
            Some(key) => blocks.push((key, block)),
            None => {
                blocks.sort();
                out.extend(blocks.drain(..).map(|(_, block)| block));
                out += &block;
            }
        }
        at += length;
    }
    blocks.sort();
    out.extend(blocks.drain(..).map(|(_, block)| block));
    if text.ends_with('\n') { out } else { out.trim_end_matches('\n').to_owned() }
}

/// What a block of lines is put in order by, if it is one of those.
fn sort_key(block: &str) -> Option<String> {
    let after = |tag: &str, end: &str| block.split_once(tag)?.1.split(end).next().map(|name| name.trim().to_owned());
    if block.contains("Self-heal Daemon") {
        // The machine that answers comes first among these...
        let name = after("<path>", "<").or_else(|| after("Self-heal Daemon on ", " "));
        return name.map(|n| if n == "localhost" { String::new() } else { n });
    }
    let pool = block.starts_with("UUID-").then(|| block.split('\t').nth(1).map(|n| n.trim().to_owned())).flatten();
    let peer = block.trim_start().starts_with("<peer>").then(|| after("<hostname>", "<")).flatten();
    // ...and last among those.
    let name = pool.or(peer).or_else(|| after("Hostname: ", "\n"))?;
    Some(if name == "localhost" { "~".to_owned() } else { name })
}

fn run(servers: usize, commands: &[(usize, &str)]) -> String {
    let cluster = Cluster::builder(servers).build();
    for node in cluster.servers() {
        node.start_glusterd();
    }
    let mut masks = Masks::default();
    // Known from the start, so that numbers do not depend on who is listed first.
    for node in cluster.servers() {
        masks.apply(&node.sh("gluster system:: uuid get").must().stdout);
    }
    let mut transcript = String::new();
    for (on, command) in commands {
        let node = cluster.node(*on);
        match *command {
            "WAIT" => {
                let joined = wait_until(Duration::from_secs(30), || {
                    cluster
                        .servers()
                        .iter()
                        .all(|n| n.gluster("peer status").stdout.matches("Peer in Cluster (Connected)").count() == 2)
                });
                assert!(joined, "{}", node.gluster("peer status"));
                continue;
            }
            "ONLINE" => {
                let all = wait_until(Duration::from_secs(30), || {
                    cluster.servers().iter().all(|n| n.gluster("volume status gv0").stdout.matches(" Y ").count() == 6)
                });
                assert!(all, "{}", node.gluster("volume status gv0"));
                continue;
            }
            _ => {}
        }
        if let Some((volume, count)) = command.strip_prefix("SERVICES ").and_then(|rest| rest.split_once(' ')) {
            let wanted: usize = count.parse().unwrap();
            let status = format!("volume status {volume}");
            let all =
                wait_until(Duration::from_secs(30), || node.gluster(&status).stdout.matches(" Y ").count() == wanted);
            assert!(all, "{}", node.gluster(&status));
            continue;
        }
        let done = node.sh(command);
        transcript += &format!("debian{on}$ {command}\n");
        transcript += &in_order(&masks.apply(&done.stdout));
        if !done.stderr.is_empty() {
            transcript += &format!("[stderr]\n{}", masks.apply(&done.stderr));
        }
        transcript += &format!("[exit status {}]\n\n", done.code);
    }
    transcript
}

/// The steps of a transcript: command and what it printed.
fn steps(transcript: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in transcript.lines() {
        if line.starts_with("debian") && line.contains("$ gluster") || line.starts_with("debian1$ ") {
            found.push((line.to_owned(), String::new()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

#[test]
fn commands_print_what_glusterfs_prints() {
    compare("commands-10.3.txt", run(3, COMMANDS));
}

#[test]
fn volumes_of_all_kinds_are_shown_as_glusterfs_shows_them() {
    compare("volumes-10.3.txt", run(1, VOLUMES));
}

fn compare(name: &str, got: String) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var("CAPTURE").is_ok() {
        fs::write(&golden, got).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&golden).unwrap();
    let (wanted, got) = (steps(&wanted), steps(&got));
    assert_eq!(wanted.len(), got.len(), "the list of commands changed: capture it anew");
    let mut different = Vec::new();
    for ((command, wanted), (_, got)) in wanted.iter().zip(&got) {
        if wanted != got {
            different.push(format!("{command}\n<<< GlusterFS 10.3\n{wanted}>>> ours\n{got}"));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), wanted.len(), different.join("\n"));
}
