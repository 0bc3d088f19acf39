//! A cluster: machines on one switch.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::brick::{BrickTree, compare_bricks};
use crate::node::{Node, Programs, address, target_directory, wait_for_init};
use crate::process::Outcome;
use crate::volume::{BrickStatus, volume_status};
use crate::wait::wait_until;

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    servers: usize,
    server_programs: Programs,
    clients: Vec<Programs>,
    brick_size: String,
    keep: bool,
}

/// Machines on one switch. Dropping it takes everything down; after a panic it first prints the ends of the logs.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    servers: usize,
    outer: Child,
    /// The outer namespace's process 1.
    init: u32,
    base: PathBuf,
    keep: bool,
}

impl ClusterBuilder {
    /// Whose glusterd and bricks (ours unless `LADRILLO_TEST_SERVERS=stock`, which checks the tests themselves).
    pub fn server_programs(mut self, programs: Programs) -> ClusterBuilder {
        self.server_programs = programs;
        self
    }

    /// One more machine, which runs no glusterd.
    pub fn client(mut self, programs: Programs) -> ClusterBuilder {
        self.clients.push(programs);
        self
    }

    /// The size of each brick's file system, as `truncate -s` takes it; empty for a plain directory.
    pub fn brick_size(mut self, size: &str) -> ClusterBuilder {
        self.brick_size = size.to_owned();
        self
    }

    /// Leave everything running when the cluster is dropped.
    pub fn keep(mut self, keep: bool) -> ClusterBuilder {
        self.keep = keep;
        self
    }

    /// Brings it up: machines wired, no glusterd yet.
    ///
    /// # Panics
    /// When this process may not make namespaces, or a program is not built.
    pub fn build(self) -> Cluster {
        if self.server_programs == Programs::Ours || self.clients.contains(&Programs::Ours) {
            for program in ["gluster", "glusterd", "glusterfs", "glusterfsd"] {
                let path = target_directory().join(program);
                assert!(path.exists(), "{} is not built: run `make build` first", path.display());
            }
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir().join(format!(
            "ladrillo-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&base).unwrap_or_else(|e| panic!("{}: {e}", base.display()));
        let total = self.servers + self.clients.len();
        let hosts = base.join("hosts");
        let mut names = String::from("127.0.0.1 localhost\n");
        for index in 1..=total {
            names += &format!("{} debian{index}\n", address(index));
        }
        fs::write(&hosts, names).unwrap_or_else(|e| panic!("{}: {e}", hosts.display()));

        let script = format!(
            "set -e; ip link set lo up; ip link add switch type bridge; ip link set switch up; touch {}/ready; {}",
            base.display(),
            if self.keep { "while :; do sleep 1000; done" } else { "read -r _ || true" }
        );
        let outer = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", &script])
            .stdin(if self.keep { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::null())
            .stderr(fs::File::create(base.join("init.log")).map_or(Stdio::null(), Stdio::from))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start unshare: {e}"));
        let init = wait_for_init(outer.id(), &base);
        let mut cluster = Cluster { nodes: Vec::new(), servers: self.servers, outer, init, base, keep: self.keep };
        for index in 1..=total {
            let programs = if index <= self.servers {
                self.server_programs
            } else {
                self.clients.get(index - self.servers - 1).copied().unwrap_or(Programs::Ours)
            };
            let size = if index <= self.servers { self.brick_size.as_str() } else { "" };
            let node = Node::start(init, index, programs, &cluster.base, &hosts, size, self.keep);
            let (port, pid) = (format!("port{index}"), node.init.to_string());
            cluster.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
            cluster.ip(&["link", "set", &port, "master", "switch", "up"]);
            node.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", address(index))).must();
            cluster.nodes.push(node);
        }
        cluster
    }
}

impl Cluster {
    /// A cluster of `servers` machines with bricks.
    pub fn builder(servers: usize) -> ClusterBuilder {
        let stock = std::env::var("LADRILLO_TEST_SERVERS").is_ok_and(|v| v == "stock");
        let server_programs = if stock { Programs::Stock } else { Programs::Ours };
        ClusterBuilder { servers, server_programs, clients: Vec::new(), brick_size: "2G".to_owned(), keep: false }
    }

    /// Machine `index`, counted from 1 as its name is.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index - 1]
    }

    /// The machines with bricks.
    pub fn servers(&self) -> &[Node] {
        &self.nodes[..self.servers]
    }

    /// All machines.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Starts every server's glusterd and probes them into one pool.
    pub fn form_pool(&self) {
        for node in self.servers() {
            node.start_glusterd();
        }
        for node in &self.servers()[1..] {
            self.node(1).gluster(&format!("peer probe {}", node.name())).must();
        }
        let wanted = self.servers - 1;
        for node in self.servers() {
            let joined = wait_until(Duration::from_secs(60), || {
                node.gluster("peer status").stdout.matches("Peer in Cluster (Connected)").count() == wanted
            });
            assert!(joined, "{} does not see its peers: {}", node.name(), node.gluster("peer status"));
        }
    }

    /// Creates and starts a volume with one brick per server, `replica` of all of them.
    pub fn create_replicated(&self, volume: &str) {
        self.create(volume, &format!("replica {}", self.servers));
    }

    /// Creates and starts a volume with one brick per server, of a kind: `replica 3 arbiter 1`, or nothing.
    pub fn create(&self, volume: &str, kind: &str) {
        let bricks: Vec<String> = self.servers().iter().map(|n| format!("{}:/mnt/brick1/{volume}", n.name())).collect();
        self.node(1).gluster(&format!("volume create {volume} {kind} {}", bricks.join(" "))).must();
        self.node(1).gluster(&format!("volume start {volume}")).must();
        self.wait_online(volume, self.servers);
    }

    /// Waits until `count` bricks of a volume are shown as online.
    pub fn wait_online(&self, volume: &str, count: usize) {
        let online = wait_until(Duration::from_secs(60), || {
            volume_status(self.node(1), volume).iter().filter(|b| b.online).count() == count
        });
        let status = self.node(1).gluster(&format!("volume status {volume}"));
        assert!(online, "not {count} bricks of {volume} are online: {status}");
    }

    /// The status of one server's brick of a volume.
    pub fn brick_status(&self, volume: &str, server: usize) -> Option<BrickStatus> {
        let name = format!("{}:/mnt/brick1/{volume}", self.node(server).name());
        // Asked of the brick's own machine: it knows even when the others are cut off.
        volume_status(self.node(server), volume).into_iter().find(|b| b.name == name)
    }

    /// Kills the brick process of one server with SIGKILL and waits until it is gone.
    pub fn kill_brick(&self, volume: &str, server: usize) {
        let pid = self.brick_status(volume, server).and_then(|b| b.pid);
        let pid = pid.unwrap_or_else(|| panic!("no brick of {volume} runs on {}", self.node(server).name()));
        self.node(server).kill(&pid.to_string());
    }

    /// Mounts a volume, and checks that it is FUSE that answers there.
    pub fn mount(&self, on: usize, volume: &str, directory: &str) -> Outcome {
        let outcome = self.node(on).mount(self.node(1), volume, directory).must();
        self.node(on).sh(&format!("stat -f -c %T {directory} | grep -q fuse")).must();
        outcome
    }

    /// A directory tree to copy from, with files, directories and symlinks, as a tar file at `path` on machine `on`.
    /// Its files are below `tree/`.
    pub fn make_tar(&self, on: usize, path: &str, files: usize) {
        self.node(on)
            .sh(&format!(
                "set -e; d=$(mktemp -d); mkdir $d/tree; cd /usr/share
                 find . -xdev -type f -size -64k -print0 | sort -z | head -z -n {files} | \
                     tar cf - --no-recursion --null -T - | tar xf - -C $d/tree
                 for i in $(seq 50); do ln -s target$i $d/tree/link$i; done
                 tar cf {path} -C $d tree; rm -rf $d"
            ))
            .must();
    }

    /// A pool, a started volume of that name, and it mounted on `/mnt/VOLUME` of the first two machines.
    pub fn with_volume(self, volume: &str) -> Cluster {
        self.form_pool();
        self.create_replicated(volume);
        for on in 1..=2.min(self.servers) {
            self.mount(on, volume, &format!("/mnt/{volume}"));
        }
        self
    }

    /// The servers' bricks of a volume made by [`Cluster::create_replicated`], as they are on disk.
    pub fn bricks(&self, volume: &str) -> Vec<(String, BrickTree)> {
        let read = |n: &Node| (n.name().to_owned(), BrickTree::read(&n.path(&format!("/mnt/brick1/{volume}"))));
        self.servers().iter().map(read).collect()
    }

    /// Waits until the bricks of a volume are equal, file by file, and their heal indices empty.
    ///
    /// # Panics
    /// When they still differ after `limit`: with the differences.
    pub fn wait_identical(&self, volume: &str, limit: Duration) {
        let mut last = Vec::new();
        let same = wait_until(limit, || {
            let mut bricks = self.bricks(volume);
            if self.node(1).programs() == Programs::Stock {
                // GlusterFS does not heal the times it keeps beside a file (its ctime after a rename, for one).
                bricks.iter_mut().for_each(|(_, tree)| tree.forget_xattr("trusted.glusterfs.mdata"));
            }
            last = compare_bricks(&bricks);
            last.is_empty()
        });
        let shown = last.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(same, "{} differences between the bricks of {volume}:\n{shown}", last.len());
    }

    fn ip(&self, args: &[&str]) {
        let done = Command::new("nsenter")
            .args(["-t", &self.init.to_string(), "-n", "--", "ip"])
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("cannot run ip: {e}"));
        assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// How to look inside, and how to take it down, for a cluster that is kept.
    pub fn how_to_enter(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text += &format!("nsenter -t {} -m -n -u -p bash    # {}\n", node.init, node.name());
        }
        text + &format!("kill -9 {} && rm -rf {}    # takes all of it down\n", self.init, self.base.display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{}", node.log_tails());
            }
        }
        if self.keep {
            return;
        }
        for node in &mut self.nodes {
            node.stop();
        }
        drop(self.outer.stdin.take());
        let _ = Command::new("kill").args(["-9", &self.init.to_string()]).stderr(Stdio::null()).status();
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let _ = fs::remove_dir_all(&self.base);
    }
}
