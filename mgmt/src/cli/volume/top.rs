//! `volume top`, `volume statedump`.

use super::super::log::timestamp;
use super::super::words::unambiguous;
use super::super::{Session, Status, xml};
use crate::api::{About, Answer, ProcessStatus, Request};

/// Words of `volume top`, with their numbers in XML. Source: gf1_cli_top_op.
const OPERATIONS: [&str; 8] = ["open", "read", "write", "opendir", "readdir", "read-perf", "write-perf", "clear"];
/// Most names listed.
const MAX_LISTED: u32 = 100;

pub(in super::super) fn top(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (Some(name), Some(operation)) = (words.get(2), words.get(3)) else { return session.usage(pattern) };
    let Some(operation) = unambiguous(operation, OPERATIONS) else { return session.usage(pattern) };
    let is_perf = matches!(operation, "read-perf" | "write-perf");
    let (mut size, mut count, mut brick, mut listed, mut nfs) = (None, None, None, MAX_LISTED, false);
    let mut rest = words.get(4..).unwrap_or_default();
    while let [word, after @ ..] = rest {
        let number = || after.first().and_then(|text| text.parse::<u32>().ok());
        match word.as_str() {
            "nfs" => {
                nfs = true;
                rest = after;
                continue;
            }
            "brick" => match after.first() {
                Some(name) => brick = Some(name.clone()),
                None => return session.usage(pattern),
            },
            "bs" | "count" if is_perf => match number().filter(|number| *number > 0) {
                Some(number) if word == "bs" => size = Some(number),
                Some(number) => count = Some(number),
                None => {
                    session.console.err(format_args!("{word} should be an integer greater than zero"));
                    return session.usage(pattern);
                }
            },
            "list-cnt" => match number() {
                Some(number) if number <= MAX_LISTED => listed = number,
                _ => {
                    session.console.err(format_args!("list-cnt should be between 0 to {MAX_LISTED}"));
                    return session.usage(pattern);
                }
            },
            _ => return session.usage(pattern),
        }
        rest = after.get(1..).unwrap_or_default();
    }
    let number = 1 + OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
    let about = match (size, count) {
        _ if operation == "clear" => About::ClearTop,
        (None, None) => About::Top { list: number as u32, members: listed, measure: None },
        (Some(size), Some(count)) => About::Top { list: number as u32, members: listed, measure: Some((size, count)) },
        _ => {
            session.console.err("Need to give both 'bs' and 'count'");
            return session.usage(pattern);
        }
    };
    let request = Request::VolumeStatus { name: Some(name.clone()), about: Some(about), brick };
    match session.ask(&request) {
        Ok(Ok(Answer::Status(volumes))) => {
            let answered: Vec<&ProcessStatus> = volumes
                .iter()
                .flat_map(|volume| &volume.processes)
                .filter(|process| process.facts.contains_key("top-op"))
                .collect();
            if answered.is_empty() {
                return unsuccessful(session, "Brick ops failed on localhost. Please check log file for details");
            }
            let text = match (session.options.xml, operation) {
                (true, "clear") => cleared_xml(&answered),
                (true, _) => lists_xml(&answered, number),
                (false, "clear") => cleared(&answered, nfs),
                (false, _) => lists(&answered, number, nfs),
            };
            session.console.write(text);
            0
        }
        Ok(Err(failure)) => unsuccessful(session, &failure.message),
        Ok(Ok(_)) => unsuccessful(session, ""),
        Err(status) => status,
    }
}

fn unsuccessful(session: &mut Session, message: &str) -> Status {
    if !message.is_empty() {
        session.console.err(message);
    }
    session.console.err("volume top unsuccessful");
    -1
}

/// `open`, of the numbers of the lists.
const OPEN: usize = 1;
/// `read-perf`, and `write-perf` after it.
const READ_PERF: usize = 6;

fn number<T: std::str::FromStr + Default>(brick: &ProcessStatus, key: &str) -> T {
    brick.facts.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn fact<'b>(brick: &'b ProcessStatus, key: &str) -> &'b str {
    brick.facts.get(key).map_or("", String::as_str)
}

fn is_cleared(brick: &ProcessStatus) -> bool {
    number::<i64>(brick, "stats-cleared") != 0
}

fn cleared(bricks: &[&ProcessStatus], nfs: bool) -> String {
    let lines = bricks.iter().map(|brick| {
        let how = if is_cleared(brick) { "Cleared" } else { "Failed to clear" };
        let what = if nfs { "NFS server on" } else { "brick" };
        format!("{how} stats for {what} {}:{}\n", brick.host, brick.path)
    });
    lines.collect()
}

/// GlusterFS prints nothing here, and fails.
fn cleared_xml(bricks: &[&ProcessStatus]) -> String {
    let document = xml::Document::new(0, 0, "").open("volTop").text("brickCount", bricks.len()).text("topOp", 0);
    let one = |document: xml::Document, brick: &&ProcessStatus| {
        let document = document.open("brick").text("name", format!("{}:{}", brick.host, brick.path));
        document.text("clearStats", if is_cleared(brick) { "Cleared stats." } else { "Failed to clear stats." }).close()
    };
    bricks.iter().fold(document, one).finish()
}

fn lists(bricks: &[&ProcessStatus], list: usize, nfs: bool) -> String {
    let mut text = String::new();
    for brick in bricks {
        let label = if nfs { "NFS Server :" } else { "Brick:" };
        text += &format!("{label} {}:{}\n", brick.host, brick.path);
        let members = number::<u32>(brick, "members").min(MAX_LISTED);
        if list == OPEN {
            let (open, most) = (number::<u64>(brick, "current-open"), number::<u64>(brick, "max-open"));
            let when = fact(brick, "max-openfd-time");
            text += &format!("Current open fds: {open}, Max open fds: {most}, Max openfd time: {when}\n");
        }
        if brick.facts.contains_key("throughput") {
            let (throughput, time) = (number::<f64>(brick, "throughput"), number::<f64>(brick, "time"));
            text += &format!("Throughput {throughput:.2} MBps time {:.4} secs\n", time / 1e6);
        }
        if members == 0 {
            continue;
        }
        if list < READ_PERF {
            text += "Count\t\tfilename\n=======================\n";
        } else {
            text += &format!("MBps {:<47} {:<26}\n==== {:<47} {:<26}\n", "Filename", "Time", "========", "====");
        }
        for member in 1..=members {
            let name = fact(brick, &format!("filename-{member}"));
            let value = number::<u64>(brick, &format!("value-{member}"));
            if list < READ_PERF {
                text += &format!("{value}\t\t{name}\n");
                continue;
            }
            let seconds = number::<i64>(brick, &format!("time-sec-{member}"));
            let time = format!("{} +0000.{}", date(seconds), fact(brick, &format!("time-usec-{member}")));
            let name = if name.len() < NAME_COLUMN { name.to_owned() } else { format!("...{}", tail(name)) };
            text += &format!("{value:>4} {name:<47} {time:<26}\n");
        }
    }
    text
}

/// Width of names in the lists of throughputs; of longer ones the end is shown. Source: VOL_TOP_PERF_FILENAME_DEF_WIDTH.
const NAME_COLUMN: usize = 47;

/// The last 44 bytes of a name, or fewer where that would cut a character.
fn tail(name: &str) -> &str {
    let mut from = name.len().saturating_sub(NAME_COLUMN - 3);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    name.get(from..).unwrap_or_default()
}

/// `2026-11-23 11:31:08`, in UTC.
fn date(seconds: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    timestamp(time).chars().take(19).collect()
}

fn lists_xml(bricks: &[&ProcessStatus], list: usize) -> String {
    let mut document = xml::Document::new(0, 0, "").open("volTop").text("brickCount", bricks.len()).text("topOp", list);
    for brick in bricks {
        let members = number::<u32>(brick, "members").min(MAX_LISTED);
        document =
            document.open("brick").text("name", format!("{}:{}", brick.host, brick.path)).text("members", members);
        if list == OPEN {
            document = document
                .text("currentOpen", number::<u64>(brick, "current-open"))
                .text("maxOpen", number::<u64>(brick, "max-open"))
                .text("maxOpenTime", fact(brick, "max-openfd-time"));
        }
        if brick.facts.contains_key("throughput") {
            document = document
                .text("throughput", format!("{:.6}", number::<f64>(brick, "throughput")))
                .text("timeTaken", format!("{:.6}", number::<f64>(brick, "time")));
        }
        for member in 1..=members {
            document = document
                .open("file")
                .text("filename", fact(brick, &format!("filename-{member}")))
                .text("count", number::<u64>(brick, &format!("value-{member}")));
            if list >= READ_PERF {
                let seconds = date(number(brick, &format!("time-sec-{member}")));
                let micros = number::<u32>(brick, &format!("time-usec-{member}"));
                document = document.text("time", format!("{seconds}.{micros:06} +0000"));
            }
            document = document.close();
        }
        document = document.close();
    }
    document.finish()
}

/// What a dump may be limited to. Ours hold everything that is asked for and more.
const SECTIONS: [&str; 8] = ["all", "mem", "iobuf", "callpool", "priv", "fd", "inode", "history"];

pub(in super::super) fn statedump(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (Some(name), Some(rest)) = (words.get(2), words.get(3..)) else { return session.usage(pattern) };
    match rest.first().map(String::as_str) {
        Some("client") => return session.not_supported("volume statedump client"),
        Some("nfs" | "quotad") => return session.not_supported(&format!("volume statedump {}", rest.join(" "))),
        _ => {}
    }
    if rest.iter().any(|word| !SECTIONS.contains(&word.as_str())) {
        let status = session.usage(pattern);
        session.console.out("Error parsing options");
        return status;
    }
    match session.ask(&Request::VolumeStatedump { name: name.clone() }) {
        Ok(outcome) if session.options.xml => {
            let (document, output) = match &outcome {
                Ok(_) => (xml::Document::new(0, 0, ""), "Volume statedump successful"),
                Err(failure) => (xml::failure(failure), failure.message.as_str()),
            };
            session.console.write(xml::sentence(document, "volStatedump", output));
            0
        }
        Ok(Ok(_)) => {
            session.console.out("volume statedump: success");
            0
        }
        Ok(Err(failure)) => {
            session.console.err(format_args!("volume statedump: failed: {failure}"));
            failure.op_ret
        }
        Err(status) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../golden/io-stats-10.3.txt");

    fn golden(command: &str) -> &'static str {
        let rest = GOLDEN.split_once(&format!("$ gluster {command}\n")).unwrap().1;
        rest.split("$ gluster").next().unwrap()
    }

    fn brick(path: &str, facts: &[(&str, &str)]) -> ProcessStatus {
        ProcessStatus {
            kind: "Brick".to_owned(),
            host: "gold".to_owned(),
            path: path.to_owned(),
            peer_uuid: String::new(),
            online: true,
            tcp_port: None,
            rdma_port: None,
            pid: None,
            facts: facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn lists_look_as_glusterfs_prints_them() {
        let members = |names: &[(&'static str, &'static str)]| -> Vec<(String, String)> {
            let mut facts = vec![("members".to_owned(), names.len().to_string())];
            for (n, (name, value)) in names.iter().enumerate() {
                facts.push((format!("filename-{}", n + 1), (*name).to_owned()));
                facts.push((format!("value-{}", n + 1), (*value).to_owned()));
            }
            facts
        };
        let with = |path: &str, list: Vec<(String, String)>, facts: &[(&str, &str)]| {
            let mut made = brick(path, facts);
            made.facts.extend(list);
            made
        };
        let open = |path: &str, at: &str, count: usize| {
            let names = [("/f5", "1"), ("/f4", "1"), ("/f3", "1"), ("/f2", "1")];
            let at = format!("2026-11-23 11:31:08.{at} +0000");
            with(path, members(&names[..count]), &[("current-open", "0"), ("max-open", "2"), ("max-openfd-time", &at)])
        };
        let two = |count| [open("/d/b1", "818595", count), open("/d/b2", "818623", count)];
        let [a, b] = two(4);
        assert_eq!(lists(&[&a, &b], OPEN, false), golden("volume top gv0 open"));
        let [a, b] = two(1);
        assert_eq!(lists_xml(&[&a, &b], OPEN), golden("--xml volume top gv0 open list-cnt 1"));
        let a = with("/d/b1", members(&[]), &[]);
        let b = with("/d/b2", members(&[("/f4", "3"), ("/f3", "3")]), &[]);
        assert_eq!(lists(&[&a, &b], 2, false), golden("volume top gv0 read list-cnt 2"));
        let times = |micros: &[&'static str]| -> Vec<(String, String)> {
            let mut facts = Vec::new();
            for (n, micros) in micros.iter().enumerate() {
                facts.push((format!("time-sec-{}", n + 1), "1795433468".to_owned()));
                facts.push((format!("time-usec-{}", n + 1), (*micros).to_owned()));
            }
            facts
        };
        let mut b = with("/d/b2", members(&[("/f5", "0"), ("/f4", "0"), ("/f3", "0"), ("/f2", "0")]), &[]);
        b.facts.extend(times(&["818820", "818214", "817150", "816285"]));
        assert_eq!(lists(&[&a, &b], READ_PERF, false), golden("volume top gv0 read-perf"));
        let speed = [("throughput", "85.333333"), ("time", "3.000000")];
        let a = with("/d/b1", members(&[]), &speed);
        let mut b = with("/d/b2", members(&[("/f5", "0"), ("/f4", "0")]), &speed);
        b.facts.extend(times(&["818820", "818214"]));
        let wanted = golden("--xml volume top gv0 read-perf bs 256 count 1 list-cnt 2");
        assert_eq!(lists_xml(&[&a, &b], READ_PERF), wanted);
        let mut a = with("/d/b1", members(&[("/f5", "0"), ("/f4", "0")]), &[("throughput", "13.47"), ("time", "19")]);
        a.facts.extend(times(&["812708", "807651"]));
        let wanted = golden("volume top gv0 write-perf bs 256 count 1 brick gold:/d/b1 list-cnt 2");
        assert_eq!(lists(&[&a], READ_PERF + 1, false), wanted);
    }

    #[test]
    fn what_bricks_claim_is_bounded_and_long_names_are_cut_at_characters() {
        let liar = brick("/d/b1", &[("members", "4000000000"), ("time-sec-1", "-5")]);
        assert_eq!(lists(&[&liar], 2, true).lines().count(), 3 + MAX_LISTED as usize);
        assert!(lists_xml(&[&liar], READ_PERF).len() < 100_000);
        let name = format!("/{}", "ü".repeat(40));
        assert_eq!(tail(&name), "ü".repeat(22));
    }
}
