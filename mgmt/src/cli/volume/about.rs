//! The tables of `volume status V detail|clients|mem|inode|fd|callpool|client-list`, as text and as XML.

use std::collections::BTreeMap;

use super::super::xml::Document;
use crate::api::{About, ProcessStatus, VolumeStatus};

/// What stands between bricks.
const RULE: &str = "----------------------------------------------";
/// And in `detail`.
const LONG_RULE: usize = 78;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Table {
    Detail,
    Clients,
    Mem,
    Inode,
    Fd,
    Callpool,
    ClientList,
}

impl Table {
    /// The table of that word, already completed.
    pub(super) fn named(word: &str) -> Option<Table> {
        Some(match word {
            "detail" => Table::Detail,
            "clients" => Table::Clients,
            "mem" => Table::Mem,
            "inode" => Table::Inode,
            "fd" => Table::Fd,
            "callpool" => Table::Callpool,
            "client-list" => Table::ClientList,
            _ => return None,
        })
    }

    /// What to ask for.
    pub(super) fn question(self) -> About {
        match self {
            Table::Detail => About::Detail,
            Table::Clients | Table::ClientList => About::Clients,
            Table::Mem => About::Mem,
            Table::Inode => About::Inode,
            Table::Fd => About::Fd,
            Table::Callpool => About::Callpool,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Table::Detail => "Status of volume: ",
            Table::Clients | Table::ClientList => "Client connections for volume ",
            Table::Mem => "Memory status for volume : ",
            Table::Inode => "Inode tables for volume ",
            Table::Fd => "FD tables for volume ",
            Table::Callpool => "Pending calls for volume ",
        }
    }
}

/// A brick's facts.
struct Facts<'f>(&'f BTreeMap<String, String>);

impl Facts<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or(0)
    }

    fn or_unknown(&self, key: &str) -> &str {
        Some(self.text(key)).filter(|text| !text.is_empty()).unwrap_or("N/A")
    }

    /// A count, by a bound of ours that no honest brick reaches.
    fn count(&self, key: &str) -> u64 {
        self.number(key).min(1 << 20)
    }
}

fn bricks(volume: &VolumeStatus) -> impl Iterator<Item = &ProcessStatus> {
    volume.processes.iter().filter(|process| process.kind == "Brick")
}

/// One volume as text.
pub(super) fn text(volume: &VolumeStatus, table: Table) -> String {
    let mut text = format!("{}{}\n", table.title(), volume.name);
    match table {
        Table::Detail => {
            for brick in bricks(volume) {
                text += &detail(brick);
            }
            text + " \n"
        }
        Table::ClientList => text + &client_list(volume),
        _ => {
            for brick in bricks(volume) {
                text += &format!("{RULE}\nBrick : {}:{}\n", brick.host, brick.path);
                text += &if brick.online { one(&Facts(&brick.facts), table) } else { "Brick is offline\n".to_owned() };
            }
            text += &format!("{RULE}\n");
            if matches!(table, Table::Clients | Table::Mem) { text + "\n" } else { text }
        }
    }
}

fn detail(brick: &ProcessStatus) -> String {
    let facts = Facts(&brick.facts);
    let known = |shown: Option<String>| shown.unwrap_or_else(|| "N/A".to_owned());
    let port =
        known(brick.tcp_port.or(brick.rdma_port.map(|_| 0)).filter(|_| brick.online).map(|port| port.to_string()));
    let rdma = if brick.online { brick.rdma_port.unwrap_or(0).to_string() } else { "N/A".to_owned() };
    let pid = known(brick.pid.filter(|_| brick.online).map(|pid| pid.to_string()));
    let mut text = format!("{}\n", "-".repeat(LONG_RULE));
    let mut line = |name: &str, value: &str| text += &format!("{name:<20} : {value:<20}\n");
    line("Brick", &format!("Brick {}:{}", brick.host, brick.path));
    line("TCP Port", &port);
    line("RDMA Port", &rdma);
    line("Online", if brick.online { "Y" } else { "N" });
    line("Pid", &pid);
    line("File System", facts.or_unknown("fs_name"));
    line("Device", facts.or_unknown("device"));
    line("Mount Options", facts.or_unknown("mnt_options"));
    line("Inode Size", facts.or_unknown("inode_size"));
    line("Disk Space Free", &size(&facts, "free"));
    line("Total Disk Space", &size(&facts, "total"));
    line("Inode Count", facts.or_unknown("total_inodes"));
    line("Free Inodes", facts.or_unknown("free_inodes"));
    text
}

/// A size for people: `221.2GB`.
fn size(facts: &Facts, key: &str) -> String {
    let Ok(bytes) = facts.text(key).parse::<u64>() else { return "N/A".to_owned() };
    let units = [("PB", 50), ("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes}Bytes"),
    }
}

fn one(facts: &Facts, table: Table) -> String {
    match table {
        Table::Clients => {
            let count = facts.count("clientcount");
            let mut text = format!("Clients connected : {count}\n");
            // What carries each, where that is not TCP for all: GlusterFS has no such column.
            let with_medium = (0..count).any(|index| !facts.text(&format!("client{index}.medium")).is_empty());
            let mut row = |columns: [&str; 5]| {
                let [name, read, written, version, medium] = columns;
                text += &format!("{name:<48} {read:>15} {written:>15} {version:>15}");
                text += &if with_medium { format!(" {medium}\n") } else { "\n".to_owned() };
            };
            if count > 0 {
                row(["Hostname", "BytesRead", "BytesWritten", "OpVersion", "Transport"]);
                row(["--------", "---------", "------------", "---------", "---------"]);
            }
            for index in 0..count {
                let of = |what: &str| facts.text(&format!("client{index}.{what}"));
                let medium = Some(of("medium")).filter(|medium| !medium.is_empty()).unwrap_or("tcp");
                row([of("hostname"), of("bytesread"), of("byteswrite"), of("opversion"), medium]);
            }
            text
        }
        Table::Mem => {
            let mut text = "Mallinfo\n--------\n".to_owned();
            for (label, key) in MALLINFO {
                text += &format!("{label:<8} : {}\n", facts.number(&format!("mallinfo.{key}")));
            }
            text + " \n"
        }
        Table::Inode => {
            let count = facts.count("conncount");
            let mut text = String::new();
            for index in 0..count {
                if count > 1 {
                    text += &format!("Connection {}:\n", index + 1);
                }
                let of = |what: &str| facts.number(&format!("conn{index}.itable.{what}"));
                text += &format!(
                    "LRU limit     : {}\nActive Inodes : {}\nLRU Inodes    : {}\nPurge Inodes  : {}\n \n",
                    of("lru_limit"),
                    of("active_size"),
                    of("lru_size"),
                    of("purge_size")
                );
            }
            text
        }
        Table::Fd => {
            let mut text = String::new();
            for index in 0..facts.count("conncount") {
                let of = |what: &str| facts.number(&format!("conn{index}.fdtable.{what}"));
                text += &format!(
                    "Connection {}:\nRefCount = {}  MaxFDs = {}  FirstFree = {}\n",
                    index + 1,
                    of("refcount"),
                    of("maxfds"),
                    of("firstfree")
                );
                let open = of("openfds").min(1 << 20);
                if open == 0 {
                    text += "No open fds\n \n";
                    continue;
                }
                for row in [["FD Entry", "PID", "RefCount", "Flags"], ["--------", "---", "--------", "-----"]] {
                    text += &format!("{:<19} {:<19} {:<19} {:<19}\n", row[0], row[1], row[2], row[3]);
                }
                for entry in 0..open {
                    let of = |what: &str| of(&format!("fdentry{entry}.{what}"));
                    text += &format!("{entry:<19} {:<19} {:<19} {:<19}\n", of("pid"), of("refcount"), of("flags"));
                }
                text += " \n";
            }
            text
        }
        Table::Callpool => format!("Pending calls: {}\n", facts.count("callpool.count")),
        Table::Detail | Table::ClientList => String::new(),
    }
}

const MALLINFO: [(&str, &str); 10] = [
    ("Arena", "arena"),
    ("Ordblks", "ordblks"),
    ("Smblks", "smblks"),
    ("Hblks", "hblks"),
    ("Hblkhd", "hblkhd"),
    ("Usmblks", "usmblks"),
    ("Fsmblks", "fsmblks"),
    ("Uordblks", "uordblks"),
    ("Fordblks", "fordblks"),
    ("Keepcost", "keepcost"),
];

/// How many clients of each name there are: as many as the brick with the most of them has.
fn client_list(volume: &VolumeStatus) -> String {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for brick in bricks(volume) {
        let facts = Facts(&brick.facts);
        let mut here: BTreeMap<&str, u64> = BTreeMap::new();
        for index in 0..facts.count("clientcount") {
            let name = brick.facts.get(&format!("client{index}.name")).map_or("unknown", String::as_str);
            *here.entry(name).or_default() += 1;
        }
        for (name, count) in here {
            let known = most.entry(name).or_default();
            *known = count.max(*known);
        }
    }
    let row = |name: &str, count: &str| format!("{name:<48} {count:>15}\n");
    let mut text = row("Name", "count") + &row("-----", "------");
    for (name, count) in &most {
        text += &row(name, &count.to_string());
    }
    let total: u64 = most.values().sum();
    text + &format!("\ntotal clients for volume {} : {total} \n{}\n\n", volume.name, "-".repeat(65))
}

/// Adds what the table holds of a brick to its `<node>`.
pub(in super::super) fn xml(document: Document, brick: &ProcessStatus, table: Table) -> Document {
    let facts = Facts(&brick.facts);
    match table {
        Table::Detail => {
            let mut document = document;
            for (element, key) in [
                ("sizeTotal", "total"),
                ("sizeFree", "free"),
                ("device", "device"),
                ("blockSize", "block_size"),
                ("mntOptions", "mnt_options"),
                ("fsName", "fs_name"),
                ("inodeSize", "inode_size"),
                ("inodesTotal", "total_inodes"),
                ("inodesFree", "free_inodes"),
            ] {
                if let Some(value) = brick.facts.get(key) {
                    document = document.text(element, value);
                }
            }
            document
        }
        _ if !brick.online => document,
        Table::Clients => {
            let count = facts.count("clientcount");
            let clients = document.open("clientsStatus").text("clientCount", count);
            (0..count)
                .fold(clients, |document, index| {
                    let of = |what: &str| facts.text(&format!("client{index}.{what}"));
                    let document = document
                        .open("client")
                        .text("hostname", of("hostname"))
                        .text("bytesRead", of("bytesread"))
                        .text("bytesWrite", of("byteswrite"))
                        .text("opVersion", of("opversion"));
                    match of("medium") {
                        "" => document.close(),
                        medium => document.text("transport", medium).close(),
                    }
                })
                .close()
        }
        Table::Mem => MALLINFO
            .iter()
            .fold(document.open("memStatus").open("mallinfo"), |document, (_, key)| {
                document.text(key, facts.number(&format!("mallinfo.{key}")))
            })
            .close()
            .open("mempool")
            .close()
            .close(),
        Table::Inode => {
            let count = facts.count("conncount");
            (0..count)
                .fold(document.open("inodeStatus").text("connections", count), |document, index| {
                    let of = |what: &str| facts.number(&format!("conn{index}.itable.{what}"));
                    document
                        .open("connection")
                        .text("activeSize", of("active_size"))
                        .text("lruSize", of("lru_size"))
                        .text("purgeSize", of("purge_size"))
                        .close()
                })
                .close()
        }
        Table::Fd => {
            let count = facts.count("conncount");
            (0..count)
                .fold(document.open("fdStatus").text("connections", count), |document, index| {
                    let of = |what: &str| facts.number(&format!("conn{index}.fdtable.{what}"));
                    let open = of("openfds").min(1 << 20);
                    let table = document
                        .open("connection")
                        .open("fdTable")
                        .text("refCount", of("refcount"))
                        .text("maxFds", of("maxfds"))
                        .text("firstFree", of("firstfree"))
                        .text("openFds", open);
                    (0..open)
                        .fold(table, |document, entry| {
                            let of = |what: &str| of(&format!("fdentry{entry}.{what}"));
                            document
                                .open("fd")
                                .text("entry", entry + 1)
                                .text("pid", of("pid"))
                                .text("refCount", of("refcount"))
                                .text("flags", of("flags"))
                                .close()
                        })
                        .close()
                        .close()
                })
                .close()
        }
        Table::Callpool => document.open("callpoolStatus").text("count", facts.count("callpool.count")).close(),
        Table::ClientList => document,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brick(facts: &[(&str, &str)]) -> VolumeStatus {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let process = ProcessStatus {
            kind: "Brick".to_owned(),
            host: "h".to_owned(),
            path: "/b".to_owned(),
            peer_uuid: String::new(),
            online: true,
            tcp_port: Some(49152),
            rdma_port: None,
            pid: Some(7),
            facts,
        };
        VolumeStatus { name: "v".to_owned(), processes: vec![process] }
    }

    #[test]
    fn clients_are_listed_as_glusterfs_lists_them() {
        let volume = brick(&[
            ("clientcount", "1"),
            ("client0.hostname", "127.0.0.1:49128"),
            ("client0.bytesread", "6736"),
            ("client0.byteswrite", "8140"),
            ("client0.opversion", "100000"),
            ("client0.name", "fuse"),
        ]);
        // What 10.3 printed, with this brick's name.
        let wanted = "Client connections for volume v\n----------------------------------------------\nBrick : h:/b\n\
Clients connected : 1\n\
Hostname                                               BytesRead    BytesWritten       OpVersion\n\
--------                                               ---------    ------------       ---------\n\
127.0.0.1:49128                                             6736            8140          100000\n\
----------------------------------------------\n\n";
        assert_eq!(text(&volume, Table::Clients), wanted);
        let wanted = "Client connections for volume v\n\
Name                                                       count\n\
-----                                                     ------\n\
fuse                                                           1\n\
\n\
total clients for volume v : 1 \n\
-----------------------------------------------------------------\n\n";
        assert_eq!(text(&volume, Table::ClientList), wanted);
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, wanted) in [
            ("512", "512Bytes"),
            ("1024", "1.0KB"),
            ("237460897792", "221.2GB"),
            ("270553174016", "252.0GB"),
            ("x", "N/A"),
        ] {
            let facts = BTreeMap::from([("free".to_owned(), bytes.to_owned())]);
            assert_eq!(size(&Facts(&facts), "free"), wanted);
        }
    }

    #[test]
    fn a_brick_that_claims_too_much_is_bounded() {
        let volume = brick(&[("callpool.count", "99999999999999")]);
        assert!(text(&volume, Table::Callpool).contains("Pending calls: 1048576\n"));
        let mut silent = brick(&[]);
        silent.processes[0].online = false;
        assert!(text(&silent, Table::Mem).contains("Brick is offline\n"));
    }
}
