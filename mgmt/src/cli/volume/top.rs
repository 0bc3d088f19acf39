//! `volume top` (the speed tests), `volume statedump`.

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
    let (mut size, mut count, mut brick) = (None, None, None);
    let mut rest = words.get(4..).unwrap_or_default();
    while let [word, after @ ..] = rest {
        let number = || after.first().and_then(|text| text.parse::<u32>().ok());
        match word.as_str() {
            "nfs" => {
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
                Some(number) if number <= MAX_LISTED => {}
                _ => {
                    session.console.err(format_args!("list-cnt should be between 0 to {MAX_LISTED}"));
                    return session.usage(pattern);
                }
            },
            _ => return session.usage(pattern),
        }
        rest = after.get(1..).unwrap_or_default();
    }
    let about = match (operation, size, count) {
        ("read-perf", Some(block_bytes), Some(blocks)) => About::ReadPerf { block_bytes, blocks },
        ("write-perf", Some(block_bytes), Some(blocks)) => About::WritePerf { block_bytes, blocks },
        (_, None, None) => return session.not_supported(&format!("volume top {operation}")),
        _ => {
            session.console.err("Need to give both 'bs' and 'count'");
            return session.usage(pattern);
        }
    };
    let number = 1 + OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
    let request = Request::VolumeStatus { name: Some(name.clone()), about: Some(about), brick: brick.clone() };
    match session.ask(&request) {
        Ok(Ok(Answer::Status(volumes))) => {
            let measured: Vec<&ProcessStatus> = volumes
                .iter()
                .flat_map(|volume| &volume.processes)
                .filter(|process| process.facts.contains_key("throughput"))
                .collect();
            if measured.is_empty() {
                return unsuccessful(session, "Brick ops failed on localhost. Please check log file for details");
            }
            show(session, &measured, number);
            0
        }
        Ok(Err(failure)) => {
            // The full stop is this command's own.
            let stop = if failure.message.ends_with("is not started") { "." } else { "" };
            unsuccessful(session, &format!("{}{stop}", failure.message))
        }
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

fn show(session: &mut Session, bricks: &[&ProcessStatus], number: usize) {
    let of = |brick: &ProcessStatus, key: &str| {
        brick.facts.get(key).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
    };
    if !session.options.xml {
        for brick in bricks {
            session.console.out(format_args!("Brick: {}:{}", brick.host, brick.path));
            session.console.out(format_args!(
                "Throughput {:.2} MBps time {:.4} secs",
                of(brick, "throughput"),
                of(brick, "time") / 1e6
            ));
        }
        return;
    }
    let document = xml::Document::new(0, 0, "").open("volTop").text("brickCount", bricks.len()).text("topOp", number);
    let document = bricks.iter().fold(document, |document, brick| {
        document
            .open("brick")
            .text("name", format!("{}:{}", brick.host, brick.path))
            .text("members", 0)
            .text("throughput", format!("{:.6}", of(brick, "throughput")))
            .text("timeTaken", format!("{:.6}", of(brick, "time")))
            .close()
    });
    session.console.write(document.finish());
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
