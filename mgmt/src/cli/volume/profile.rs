//! `volume profile`.

use super::super::words::unambiguous;
use super::super::{Session, Status, xml};
use crate::api::{About, Answer, Failure, Outcome, ProcessStatus, ProfileInfo, Request};

/// Names of the kinds of fops, by GlusterFS's numbers.
const FOPS: [&str; 59] = [
    "NULL",
    "STAT",
    "READLINK",
    "MKNOD",
    "MKDIR",
    "UNLINK",
    "RMDIR",
    "SYMLINK",
    "RENAME",
    "LINK",
    "TRUNCATE",
    "OPEN",
    "READ",
    "WRITE",
    "STATFS",
    "FLUSH",
    "FSYNC",
    "SETXATTR",
    "GETXATTR",
    "REMOVEXATTR",
    "OPENDIR",
    "FSYNCDIR",
    "ACCESS",
    "CREATE",
    "FTRUNCATE",
    "FSTAT",
    "LK",
    "LOOKUP",
    "READDIR",
    "INODELK",
    "FINODELK",
    "ENTRYLK",
    "FENTRYLK",
    "XATTROP",
    "FXATTROP",
    "FGETXATTR",
    "FSETXATTR",
    "RCHECKSUM",
    "SETATTR",
    "FSETATTR",
    "READDIRP",
    "FORGET",
    "RELEASE",
    "RELEASEDIR",
    "GETSPEC",
    "FREMOVEXATTR",
    "FALLOCATE",
    "DISCARD",
    "ZEROFILL",
    "IPC",
    "SEEK",
    "LEASE",
    "COMPOUND",
    "GETACTIVELK",
    "SETACTIVELK",
    "PUT",
    "ICREATE",
    "NAMELINK",
    "COPY_FILE_RANGE",
];
/// Block sizes, by powers of two.
const SIZES: u32 = 32;
/// How many of them stand side by side.
const COLUMNS: usize = 3;

pub(in super::super) fn profile(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (Some(name), Some(word)) = (words.get(2), words.get(3)) else { return session.usage(pattern) };
    let rest: Vec<&str> = words.iter().skip(4).map(String::as_str).collect();
    let nfs = rest.last() == Some(&"nfs");
    match unambiguous(word, ["start", "stop", "info"]) {
        Some("info") if rest.len() <= 3 => {
            let (op, peek) = match rest.as_slice() {
                ["incremental", rest @ ..] => (ProfileInfo::Incremental, rest.first() == Some(&"peek")),
                ["cumulative", ..] => (ProfileInfo::Cumulative, false),
                ["clear", ..] => (ProfileInfo::Clear, false),
                ["peek", ..] => (ProfileInfo::All, true),
                // GlusterFS passes over other words.
                _ => (ProfileInfo::All, false),
            };
            info(session, name, op, peek, nfs)
        }
        Some(word @ ("start" | "stop")) if rest.len() <= 1 => switch(session, name, word == "start"),
        _ => session.usage(pattern),
    }
}

fn switch(session: &mut Session, name: &str, on: bool) -> Status {
    let outcome = match session.ask(&Request::VolumeProfile { name: name.to_owned(), on }) {
        Ok(outcome) => outcome,
        Err(status) => return status,
    };
    if session.options.xml {
        let number = if on { 1 } else { 2 };
        session.console.write(begin(outcome.err().as_ref(), name, number).finish());
        return 0;
    }
    match outcome {
        Ok(_) => {
            let what = if on { "Starting" } else { "Stopping" };
            session.console.out(format_args!("{what} volume profile on {name} has been successful "));
            0
        }
        Err(failure) => refused(session, &failure),
    }
}

fn refused(session: &mut Session, failure: &Failure) -> Status {
    session.console.err(failure);
    failure.op_ret
}

/// How it went, the volume, and which command it was: 1 start, 2 stop, 3 info.
fn begin(failure: Option<&Failure>, name: &str, operation: u32) -> xml::Document {
    let document = failure.map_or_else(|| xml::Document::new(0, 0, ""), xml::failure);
    document.open("volProfile").text("volname", name).text("profileOp", operation)
}

fn info(session: &mut Session, name: &str, op: ProfileInfo, peek: bool, nfs: bool) -> Status {
    let about = About::Profile { op, peek };
    let request = Request::VolumeStatus { name: Some(name.to_owned()), about: Some(about), brick: None };
    let outcome: Outcome = match session.ask(&request) {
        Ok(outcome) => outcome,
        Err(status) => return status,
    };
    let volumes = match outcome {
        Ok(Answer::Status(volumes)) => volumes,
        Ok(_) => Vec::new(),
        Err(failure) if session.options.xml => {
            session.console.write(begin(Some(&failure), name, 3).text("brickCount", 0).finish());
            return 0;
        }
        Err(failure) => return refused(session, &failure),
    };
    let bricks: Vec<&ProcessStatus> = volumes
        .iter()
        .flat_map(|volume| &volume.processes)
        .filter(|process| process.facts.contains_key("info-op"))
        .collect();
    if session.options.xml {
        let document = begin(None, name, 3).text("brickCount", bricks.len());
        session.console.write(bricks.iter().fold(document, |document, brick| brick_xml(document, brick, op)).finish());
        return 0;
    }
    if bricks.is_empty() {
        session.console.err(format_args!("All bricks of volume {name} are down."));
        return 0;
    }
    for brick in bricks {
        let title = format!("{} {}:{}", if nfs { "NFS Server :" } else { "Brick:" }, brick.host, brick.path);
        session.console.write(format!("{title}\n{}\n{}", "-".repeat(title.len()), brick_text(brick, op)));
    }
    0
}

fn cleared(brick: &ProcessStatus) -> &'static str {
    if brick.facts.get("stats-cleared").is_some_and(|text| text != "0") {
        "Cleared stats."
    } else {
        "Failed to clear stats."
    }
}

fn brick_text(brick: &ProcessStatus, op: ProfileInfo) -> String {
    if op == ProfileInfo::Clear {
        return format!("{}\n", cleared(brick));
    }
    Figures::all(brick).iter().map(Figures::text).collect()
}

fn brick_xml(document: xml::Document, brick: &ProcessStatus, op: ProfileInfo) -> xml::Document {
    let document = document.open("brick").text("brickName", format!("{}:{}", brick.host, brick.path));
    if op == ProfileInfo::Clear {
        return document.text("clearStats", cleared(brick)).close();
    }
    Figures::all(brick).iter().fold(document, |document, figures| figures.xml(document)).close()
}

/// Those of one interval, or of all the time (-1).
struct Figures<'b> {
    brick: &'b ProcessStatus,
    interval: i64,
}

/// One kind of fop.
struct Row {
    name: &'static str,
    hits: u64,
    /// Nanoseconds; `None` where none was measured.
    latency: Option<[f64; 3]>,
    share: f64,
}

impl Figures<'_> {
    fn all(brick: &ProcessStatus) -> Vec<Figures<'_>> {
        let intervals = ["cumulative", "interval"].iter().filter_map(|key| brick.facts.get(*key)?.parse().ok());
        intervals.map(|interval| Figures { brick, interval }).collect()
    }

    fn get<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.brick.facts.get(&format!("{}-{key}", self.interval))?.parse().ok()
    }

    fn count(&self, key: &str) -> u64 {
        self.get(key).unwrap_or(0)
    }

    /// Size, reads, writes.
    fn blocks(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        (0..SIZES).map(|power| {
            let size = 1u64 << power;
            (size, self.count(&format!("read-{size}")), self.count(&format!("write-{size}")))
        })
    }

    /// In the order of their numbers.
    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = FOPS
            .iter()
            .enumerate()
            .filter_map(|(number, name)| {
                let of = |what: &str| self.get::<f64>(&format!("{number}-{what}latency"));
                let latency = of("avg").zip(of("min")).zip(of("max")).map(|((avg, min), max)| [avg, min, max]);
                let hits = self.count(&format!("{number}-hits"));
                (hits > 0).then_some(Row { name, hits, latency, share: 0.0 })
            })
            .collect();
        let spent = |row: &Row| row.hits as f64 * row.latency.map_or(0.0, |[avg, ..]| avg);
        let total: f64 = rows.iter().map(spent).sum();
        if total > 0.0 {
            for row in &mut rows {
                row.share = 100.0 * (spent(row) / total);
            }
        }
        rows
    }

    fn text(&self) -> String {
        let mut text = match self.interval {
            -1 => "Cumulative Stats:\n".to_owned(),
            interval => format!("Interval {interval} Stats:\n"),
        };
        let blocks: Vec<_> = self.blocks().filter(|(_, reads, writes)| *reads > 0 || *writes > 0).collect();
        for line in blocks.chunks(COLUMNS) {
            let cells = |cell: fn(&(u64, u64, u64)) -> String| line.iter().map(cell).collect::<String>();
            let (sizes, reads, writes) = (
                cells(|(size, ..)| format!("{size:>19}b+ ")),
                cells(|(_, reads, _)| format!("{reads:>21} ")),
                cells(|(.., writes)| format!("{writes:>21} ")),
            );
            text += &format!("   Block Size:{sizes}\n No. of Reads:{reads}\nNo. of Writes:{writes}\n");
            if line.len() == COLUMNS {
                text += " \n";
            }
        }
        let mut rows = self.rows();
        rows.sort_by(|a, b| a.share.total_cmp(&b.share));
        let heads = [
            ["%-latency", "Avg-latency", "Min-Latency", "Max-Latency", "No. of calls", "Fop"],
            ["---------", "-----------", "-----------", "-----------", "------------", "----"],
        ];
        for [share, avg, min, max, hits, name] in heads.into_iter().filter(|_| !rows.is_empty()) {
            text += &format!("{share:>10} {avg:>13} {min:>13} {max:>13} {hits:>14} {name:>11}\n");
        }
        for Row { name, hits, latency, share } in &rows {
            let [avg, min, max] = latency.unwrap_or_default();
            text += &format!("{share:>10.2} {avg:>10.2} ns {min:>10.2} ns {max:>10.2} ns {hits:>14} {name:>11}\n");
        }
        let sums = [
            ("Duration", "duration", "seconds"),
            ("Data Read", "total-read", "bytes"),
            ("Data Written", "total-write", "bytes"),
        ];
        text += " \n";
        for (name, key, unit) in sums {
            text += &format!("{name:>12}: {} {unit}\n", self.count(key));
        }
        text + " \n"
    }

    fn xml(&self, document: xml::Document) -> xml::Document {
        let mut document =
            document.open(if self.interval == -1 { "cumulativeStats" } else { "intervalStats" }).open("blockStats");
        for (size, reads, writes) in self.blocks() {
            document = document.open("block").text("size", size).text("reads", reads).text("writes", writes).close();
        }
        document = document.close().open("fopStats");
        for Row { name, hits, latency, .. } in self.rows() {
            // Those that were only counted are left out, as in GlusterFS.
            let Some([avg, min, max]) = latency else { continue };
            document = document
                .open("fop")
                .text("name", name)
                .text("hits", hits)
                .text("avgLatency", format!("{avg:.6}"))
                .text("minLatency", format!("{min:.6}"))
                .text("maxLatency", format!("{max:.6}"))
                .close();
        }
        document
            .close()
            .text("duration", self.count("duration"))
            .text("totalRead", self.count("total-read"))
            .text("totalWrite", self.count("total-write"))
            .close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What GlusterFS 10.3 printed of one run.
    const GOLDEN: &str = include_str!("../golden/io-stats-10.3.txt");

    fn golden(command: &str) -> &'static str {
        let rest = GOLDEN.split_once(&format!("$ gluster {command}\n")).unwrap().1;
        rest.split("$ gluster").next().unwrap()
    }

    /// The bricks' answers, from the XML.
    fn answers(xml: &str) -> Vec<ProcessStatus> {
        let value = |line: &str| line.split(['<', '>']).nth(2).unwrap_or_default().to_owned();
        let mut bricks: Vec<ProcessStatus> = Vec::new();
        let (mut interval, mut size, mut fop) = (0, String::new(), 0);
        for line in xml.lines().map(str::trim) {
            let name = line.trim_start_matches('<').split(['>', '/']).next().unwrap();
            if name == "brickName" {
                let (host, path) = value(line).split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
                let facts = BTreeMap::from([("info-op".to_owned(), "1".to_owned())]);
                let (kind, peer_uuid) = ("Brick".to_owned(), String::new());
                bricks.push(ProcessStatus {
                    kind,
                    host,
                    path,
                    peer_uuid,
                    online: true,
                    tcp_port: None,
                    rdma_port: None,
                    pid: None,
                    facts,
                });
                continue;
            }
            let Some(brick) = bricks.last_mut() else { continue };
            match name {
                "cumulativeStats" => interval = -1,
                "intervalStats" => interval = 1,
                "size" => size = value(line),
                "name" => fop = FOPS.iter().position(|known| *known == value(line)).unwrap(),
                _ => {}
            }
            let key = match name {
                "cumulativeStats" => "cumulative".to_owned(),
                "intervalStats" => "interval".to_owned(),
                "reads" => format!("{interval}-read-{size}"),
                "writes" => format!("{interval}-write-{size}"),
                "hits" => format!("{interval}-{fop}-hits"),
                "avgLatency" | "minLatency" | "maxLatency" => {
                    format!("{interval}-{fop}-{}", name.to_ascii_lowercase())
                }
                "duration" => format!("{interval}-duration"),
                "totalRead" => format!("{interval}-total-read"),
                "totalWrite" => format!("{interval}-total-write"),
                _ => continue,
            };
            let value = if name.ends_with("Stats") { interval.to_string() } else { value(line) };
            brick.facts.insert(key, value);
        }
        bricks
    }

    #[test]
    fn a_profile_looks_as_glusterfs_prints_it() {
        let wanted = golden("--xml volume profile gv0 info");
        let bricks = answers(wanted);
        assert_eq!(bricks.len(), 2);
        let document = begin(None, "gv0", 3).text("brickCount", bricks.len());
        let document = bricks.iter().fold(document, |document, brick| brick_xml(document, brick, ProfileInfo::All));
        assert_eq!(document.finish(), wanted);
        let mut text = String::new();
        for mut brick in bricks {
            brick.facts.remove("interval");
            // What is only counted is not in the XML.
            brick.facts.insert("-1-42-hits".to_owned(), "9".to_owned());
            brick.facts.insert("-1-43-hits".to_owned(), "7".to_owned());
            text += &format!(
                "Brick: gold:{}\n-----------------\n{}",
                brick.path,
                brick_text(&brick, ProfileInfo::Cumulative)
            );
        }
        assert_eq!(text, golden("volume profile gv0 info cumulative"));
    }
}
