//! The whole command line against a stand-in for glusterd, compared with what GlusterFS 10.3 printed for the same
//! commands (`tests/golden/commands-10.3.txt`, where ids, ports and process numbers are masked).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;

use super::*;
use crate::api::{Answer, BrickInfo, BrickName, Failure, PeerInfo, ProcessStatus, Request, VolumeInfo, VolumeStatus};

const GOLDEN: &str = include_str!("../../../tests/golden/commands-10.3.txt");

fn uuid(number: usize) -> String {
    format!("UUID-{number:031}")
}

/// A glusterd that says what GlusterFS's says, for the state the golden commands bring about.
#[derive(Default)]
struct Fake {
    peers: Vec<PeerInfo>,
    volumes: Vec<VolumeInfo>,
    created: usize,
    used: Vec<BrickName>,
}

fn peer(name: &str) -> PeerInfo {
    PeerInfo {
        uuid: uuid(host_number(name)),
        hostnames: vec![name.to_owned()],
        connected: true,
        state: 3,
        state_text: "Peer in Cluster".to_owned(),
        is_self: name == "debian1",
    }
}

fn host_number(name: &str) -> usize {
    name.trim_start_matches("debian").parse().unwrap_or(0)
}

fn done(note: &str) -> Outcome {
    Ok(Answer::Done { note: (!note.is_empty()).then(|| note.to_owned()) })
}

fn refuse(errno: i32, message: impl Into<String>) -> Outcome {
    Err(Failure::new(errno, message))
}

/// GlusterFS's errno for most refusals (`EG_INTRNL`).
const INTERNAL: i32 = 30800;

impl Fake {
    fn volume(&mut self, name: &str) -> Result<&mut VolumeInfo, Failure> {
        let missing = Failure::new(INTERNAL, format!("Volume {name} does not exist"));
        self.volumes.iter_mut().find(|v| v.name == name).ok_or(missing)
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let named = |v: &VolumeInfo| Answer::Volume { name: v.name.clone(), id: v.id.clone() };
        match request {
            Request::PeerProbe { host } => {
                if host == "debian1" || host == "localhost" {
                    return done("Probe on localhost not needed");
                }
                if self.peers.iter().any(|p| p.hostnames.contains(host)) {
                    return done(&format!("Host {host} port 24007 already in peer list"));
                }
                self.peers.push(peer(host));
                done("")
            }
            Request::PeerDetach { host, .. } => {
                let Some(index) = self.peers.iter().position(|p| p.hostnames.contains(host)) else {
                    return refuse(INTERNAL, format!("{host} is not part of cluster"));
                };
                if self.volumes.iter().any(|v| v.bricks.iter().any(|b| b.host == *host)) {
                    let message = format!(
                        "Peer {host} hosts one or more bricks. If the peer is in not recoverable state then use either \
                         replace-brick or remove-brick command with force to remove all bricks from the peer and attempt \
                         the peer detach again."
                    );
                    return Err(Failure { op_ret: 1, op_errno: INTERNAL, message });
                }
                self.peers.remove(index);
                done("")
            }
            Request::PeerStatus => Ok(Answer::Peers(self.peers.clone())),
            Request::PoolList => Ok(Answer::Peers(self.peers.iter().cloned().chain([peer("debian1")]).collect())),
            Request::VolumeCreate { name, replica, arbiter, bricks, transport, .. } => {
                if self.volume(name).is_ok() {
                    return refuse(0, format!("Volume {name} already exists"));
                }
                if let Some(brick) = bricks.iter().find(|b| !b.host.starts_with("debian")) {
                    return refuse(0, format!("Host {} is not in 'Peer in Cluster' state", brick.host));
                }
                if let Some(brick) = bricks.iter().find(|b| self.used.contains(b)) {
                    return refuse(0, format!("{} is already part of a volume", brick.path));
                }
                self.used.extend(bricks.iter().cloned());
                self.created += 1;
                let brick = |b: &BrickName| BrickInfo {
                    host: b.host.clone(),
                    path: b.path.clone(),
                    host_uuid: uuid(host_number(&b.host)),
                };
                let defaults = [
                    ("cluster.granular-entry-heal", "on"),
                    ("storage.fips-mode-rchecksum", "on"),
                    ("transport.address-family", "inet"),
                    ("nfs.disable", "on"),
                    ("performance.client-io-threads", "off"),
                ];
                let volume = VolumeInfo {
                    name: name.clone(),
                    id: uuid(3 + self.created),
                    status: 0,
                    replica: *replica,
                    arbiter: *arbiter,
                    bricks: bricks.iter().map(brick).collect(),
                    transport: transport.clone(),
                    options: defaults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                    snapshot_count: 0,
                };
                self.volumes.push(volume);
                self.volume(name).map(|v| named(v))
            }
            Request::VolumeStart { name, force } => {
                let volume = self.volume(name)?;
                if volume.status == 1 && !force {
                    return refuse(INTERNAL, format!("Volume {name} already started"));
                }
                volume.status = 1;
                Ok(named(volume))
            }
            Request::VolumeStop { name, .. } => {
                let volume = self.volume(name)?;
                if volume.status != 1 {
                    return refuse(INTERNAL, format!("Volume {name} is not in the started state"));
                }
                volume.status = 2;
                Ok(named(volume))
            }
            Request::VolumeDelete { name } => {
                let volume = self.volume(name)?.clone();
                if volume.status == 1 {
                    let message = format!("Volume {name} has been started.Volume needs to be stopped before deletion.");
                    return refuse(INTERNAL, message);
                }
                self.volumes.retain(|v| v.name != *name);
                Ok(named(&volume))
            }
            Request::VolumeInfo { name: None } => Ok(Answer::VolumeInfo(self.volumes.clone())),
            Request::VolumeInfo { name: Some(name) } => self.volume(name).map(|v| Answer::VolumeInfo(vec![v.clone()])),
            Request::VolumeList => Ok(Answer::Names(self.volumes.iter().map(|v| v.name.clone()).collect())),
            Request::VolumeStatus { name, .. } => {
                let name = name.as_deref().unwrap_or_default();
                let volume = self.volume(name)?;
                if volume.status != 1 {
                    return refuse(INTERNAL, format!("Volume {name} is not started"));
                }
                let process = |kind: &str, host: &str, path: &str, port| ProcessStatus {
                    kind: kind.to_owned(),
                    host: host.to_owned(),
                    path: path.to_owned(),
                    peer_uuid: uuid(if host == "localhost" { 1 } else { host_number(host) }),
                    online: true,
                    tcp_port: port,
                    rdma_port: None,
                    pid: Some(1234),
                    facts: Default::default(),
                };
                let bricks = volume.bricks.iter().map(|b| process("Brick", &b.host, &b.path, Some(49152)));
                let heal = ["localhost", "debian2", "debian3"].map(|h| process("Self-heal Daemon", h, h, None));
                let processes = bricks.chain(heal).collect();
                Ok(Answer::Status(vec![VolumeStatus { name: name.to_owned(), processes }]))
            }
            Request::VolumeSet { name, options } => {
                let volume = self.volume(name)?;
                for (key, value) in options {
                    if value == "maybe" {
                        let message = "option self-heal-daemon maybe: 'maybe' is not a valid boolean value";
                        return refuse(INTERNAL, message);
                    }
                    volume.options.insert(0, (key.clone(), value.clone()));
                }
                done("")
            }
            Request::VolumeReset { name, key, .. } => {
                let volume = self.volume(name)?;
                let kept = ["storage.fips-mode-rchecksum", "transport.address-family", "nfs.disable"];
                volume.options.retain(|(k, _)| key.as_ref().map_or(kept.contains(&k.as_str()), |key| key != k));
                done("")
            }
            Request::VolumeGet { name, key } => {
                let volume = self.volume(name)?;
                let set = volume.options.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
                Ok(Answer::Options(vec![(key.clone(), set.unwrap_or_else(|| "auto".to_owned()))]))
            }
            Request::VolumeProfile { name, .. } => self.volume(name).map(|volume| named(volume)),
            Request::ClearLocks { path, .. } if path == "/nofile" => {
                refuse(INTERNAL, "clear-locks getxattr command failed. Reason: No such file or directory")
            }
            Request::ClearLocks { .. } => Ok(Answer::Text("No locks cleared.\nNo locks cleared.".to_owned())),
            Request::VolumeStatedump { name } => self.volume(name).map(|volume| named(volume)),
            Request::AddBricks { name, .. } | Request::RemoveBricks { name, .. } => {
                refuse(INTERNAL, format!("Volume {name} stays as it is"))
            }
            Request::GranularEntryHeal { name, .. } => self.volume(name).and_then(|_| done("")),
            Request::VolumeHeal { name, .. } => {
                if self.volume(name)?.status != 1 {
                    return refuse(INTERNAL, format!("Volume {name} is not started."));
                }
                done("")
            }
            Request::GetSpec { key } => Ok(Answer::Text(format!("volume {key}\nend-volume\n"))),
            Request::UuidGet => Ok(Answer::Text(uuid(1))),
            Request::GetWorkingDirectory => Ok(Answer::Text("/var/lib/glusterd".to_owned())),
        }
    }
}

impl Backend for Fake {
    fn reachable(&mut self) -> bool {
        true
    }

    fn call(&mut self, request: &Request, _: Duration) -> io::Result<Outcome> {
        // Through JSON, as on the socket.
        let request = serde_json::from_slice(&serde_json::to_vec(request).map_err(io::Error::other)?)?;
        Ok(self.answer(&request))
    }
}

/// Where a test sees what was written.
#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

/// Runs one command; its output, errors and exit status.
fn run_with(backend: &mut dyn Backend, arguments: &[&str], input: &str) -> (String, String, u8) {
    let (out, err) = (Written::default(), Written::default());
    let mut console = Console::new(out.clone(), err.clone(), input.as_bytes());
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let status = match options::parse(&arguments, &mut console) {
        Ok(Parsed { options, words }) => {
            let mut session = Session { options, console, backend, tree: Tree::new() };
            if words.is_empty() { shell::run(&mut session, false) } else { session.process(&words) }
        }
        Err(status) => status,
    };
    (out.text(), err.text(), exit_status(status))
}

fn mask(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.ends_with(" Y       1234 ") {
            line.replace("49152", "#####").replace("1234 ", "#")
        } else {
            line.replace(">49152<", ">NUMBER<").replace(">1234<", ">NUMBER<")
        }
    });
    let end = if text.ends_with('\n') { "\n" } else { "" };
    lines.collect::<Vec<_>>().join("\n") + end
}

/// The golden steps: command line and everything it printed.
fn golden() -> VecDeque<(String, String)> {
    let mut steps: VecDeque<(String, String)> = VecDeque::new();
    for line in GOLDEN.lines() {
        if let Some(command) = line.strip_prefix("debian1$ ").or_else(|| line.strip_prefix("debian3$ ")) {
            steps.push_back((command.to_owned(), String::new()));
        } else if let Some((_, text)) = steps.back_mut() {
            *text += &format!("{line}\n");
        }
    }
    steps
}

#[test]
fn prints_what_glusterfs_prints() {
    let mut fake = Fake::default();
    let mut compared = 0;
    for (command, wanted) in golden() {
        // Another program's output, another machine's view, and a glusterd that is not there.
        let elsewhere = ["heal gv0 info", "/nowhere", "head -n 1"].iter().any(|w| command.contains(w));
        if elsewhere || command == "gluster --xml peer status" && wanted.contains("debian1") {
            continue;
        }
        let (input, words) = match command.split_once(" | ") {
            Some((echo, words)) => {
                let said = echo.trim_start_matches("echo ").trim_start_matches("printf ").trim_matches('\'');
                (said.replace("\\n", "\n").trim_end().to_owned() + "\n", words)
            }
            None => (String::new(), command.trim_end_matches(" </dev/null")),
        };
        let arguments: Vec<&str> = words.split(' ').skip(1).collect();
        let (out, err, code) = run_with(&mut fake, &arguments, &input);
        let mut got = mask(&out);
        if !err.is_empty() {
            got += &format!("[stderr]\n{}", mask(&err));
        }
        got += &format!("[exit status {code}]\n\n");
        // The golden file's last blank line is its end.
        assert_eq!(got.trim_end(), wanted.trim_end(), "\n$ {command}");
        compared += 1;
    }
    assert!(compared > 120, "only {compared} commands were compared");
}

#[test]
fn every_beginning_of_a_command_means_one_thing() {
    let mut fake = Fake::default();
    let (full, _, _) = run_with(&mut fake, &["volume", "list"], "");
    for short in [["vol", "list"], ["volume", "li"], ["v", "lis"]] {
        assert_eq!(run_with(&mut fake, &short, "").0, full, "{short:?}");
    }
    let (out, _, code) = run_with(&mut fake, &["p", "list"], "");
    assert!(out.starts_with("unrecognized word: p (position 0)"), "{out}");
    assert_eq!(code, 1);
}

#[test]
fn what_we_cannot_do_yet_says_so() {
    let mut fake = Fake::default();
    for words in [
        "volume rebalance gv0 start",
        "volume remove-brick gv0 debian1:/a start",
        "snapshot create s gv0",
        "volume geo-replication a b::c start",
        "volume quota gv0 enable",
        "volume bitrot gv0 enable",
        "nfs-ganesha enable",
        "get-state",
        "volume create v disperse 3 redundancy 1 a:/a b:/b c:/c",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let (out, err, code) = run_with(&mut fake, &words, "");
        assert!(err.ends_with(": not supported yet\n") && out.is_empty(), "{words:?}: {out}{err}");
        assert_eq!(code, 1, "{words:?}");
    }
    let (out, _, _) = run_with(&mut fake, &["--xml", "volume", "rebalance", "gv0", "start"], "");
    assert!(out.contains("<opErrstr>volume rebalance: not supported yet</opErrstr>"), "{out}");
}

/// Every command, cut off after each word and with odd words added, ends with an exit status.
#[test]
fn odd_words_are_refused_not_fatal() {
    let odd = ["", " ", "-", "--", "ü\u{0}", "\u{feff}", &"x".repeat(100_000), "a:/b", ":", "99999999999999999999"];
    for command in commands::COMMANDS {
        let words: Vec<&str> =
            command.pattern.split([' ', '\n']).filter(|w| !w.is_empty() && !w.contains("info")).collect();
        for length in 1..=words.len() {
            let head = words.get(..length).unwrap_or_default();
            for word in odd {
                let mut fake = Fake::default();
                let mut line = vec!["--mode=script"];
                line.extend_from_slice(head);
                line.push(word);
                run_with(&mut fake, &line, "");
                line.push(word);
                run_with(&mut fake, &line, "n\n");
            }
        }
    }
}

#[test]
fn a_glusterd_that_is_silent_or_foreign_is_named() {
    struct Broken(io::ErrorKind);
    impl Backend for Broken {
        fn reachable(&mut self) -> bool {
            self.0 != io::ErrorKind::ConnectionRefused
        }
        fn call(&mut self, _: &Request, _: Duration) -> io::Result<Outcome> {
            Err(io::Error::new(self.0, "not ours"))
        }
    }
    let refused = "Connection failed. Please check if gluster daemon is operational.\n";
    let list = ["volume", "list"];
    let run = |kind| run_with(&mut Broken(kind), &list, "");
    assert_eq!(run(io::ErrorKind::ConnectionRefused), (refused.to_owned(), String::new(), 1));
    assert_eq!(run(io::ErrorKind::UnexpectedEof), (refused.to_owned(), String::new(), 1));
    assert_eq!(run(io::ErrorKind::TimedOut), ("Error : Request timed out\n".to_owned(), String::new(), 1));
    assert_eq!(run(io::ErrorKind::InvalidData), (String::new(), "not ours\n".to_owned(), 1));
    // Help needs nobody.
    let (help, _, code) = run_with(&mut Broken(io::ErrorKind::ConnectionRefused), &["peer", "help"], "");
    assert!(help.contains("peer probe") && code == 0);
}

/// As cli_print_brick_status and cli_xml_output_vol_status of GlusterFS print ports: 0 in text, N/A in XML where a brick
/// has the other transport only.
#[test]
fn each_transport_has_its_column() {
    let line = |online, tcp_port, rdma_port| {
        let process = ProcessStatus {
            kind: "Brick".to_owned(),
            host: "h".to_owned(),
            path: "/b".to_owned(),
            peer_uuid: String::new(),
            online,
            tcp_port,
            rdma_port,
            pid: Some(7),
            facts: Default::default(),
        };
        let status = VolumeStatus { name: "v".to_owned(), processes: vec![process] };
        let xml = xml::volume_status(std::slice::from_ref(&status), true);
        let between = |open: &str, close: &str| xml.split(open).nth(1)?.split(close).next().map(str::to_owned);
        let ports: Option<String> =
            between("<ports>", "</ports>").map(|ports| ports.split_whitespace().collect::<String>());
        (text::volume_status(&status).lines().nth(3).unwrap_or_default()[44..].to_owned(), ports.unwrap_or_default())
    };
    assert_eq!(
        line(true, Some(49152), Some(49153)),
        ("49152     49153      Y       7    ".to_owned(), "<tcp>49152</tcp><rdma>49153</rdma>".to_owned())
    );
    assert_eq!(
        line(true, None, Some(49153)),
        ("0         49153      Y       7    ".to_owned(), "<tcp>N/A</tcp><rdma>49153</rdma>".to_owned())
    );
    assert_eq!(
        line(false, None, Some(49153)),
        ("N/A       N/A        N       N/A  ".to_owned(), "<tcp>N/A</tcp><rdma>N/A</rdma>".to_owned())
    );
}

#[test]
fn a_long_brick_name_goes_on_in_the_next_line() {
    let process = ProcessStatus {
        kind: "Brick".to_owned(),
        host: "a-rather-long-host-name.example.org".to_owned(),
        path: "/data/brick1/gv0".to_owned(),
        peer_uuid: String::new(),
        online: false,
        tcp_port: None,
        rdma_port: None,
        pid: None,
        facts: Default::default(),
    };
    let status = VolumeStatus { name: "gv0".to_owned(), processes: vec![process] };
    let text = text::volume_status(&status);
    let tail: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(
        tail,
        [
            "Brick a-rather-long-host-name.example.org:/",
            "data/brick1/gv0                             N/A       N/A        N       N/A  ",
            " "
        ]
    );
}

#[test]
fn peers_with_other_names_and_bad_xml_characters() {
    let mut odd = peer("debian2");
    odd.hostnames = vec!["debian2".to_owned(), "10.0.0.2".to_owned(), "a<b>&\u{1}".to_owned()];
    odd.connected = false;
    let text = text::peer_status(std::slice::from_ref(&odd));
    assert!(text.contains("State: Peer in Cluster (Disconnected)\nOther names:\n10.0.0.2\n"), "{text}");
    let xml = xml::peers(&[odd]);
    assert!(xml.contains("<hostname>a&lt;b&gt;&amp;\u{fffd}</hostname>"), "{xml}");
    assert!(xml.contains("<connected>0</connected>"));
}
