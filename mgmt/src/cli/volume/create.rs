//! `volume create`.

use super::super::words::{brick, is_internet_address, unambiguous};
use super::super::{Session, Status};
use super::report;
use crate::api::{BrickName, Request};

/// Names GlusterFS has another use for.
const RESERVED: &[&str] = &[
    "volume",
    "type",
    "help",
    "subvolumes",
    "option",
    "end-volume",
    "all",
    "volume_not_in_ring",
    "description",
    "force",
    "snap-max-hard-limit",
    "snap-max-soft-limit",
    "auto-delete",
    "activate-on-create",
];
/// Longest volume name, bytes.
const NAME_BYTES: usize = super::NAME_BYTES;
/// Kinds of volume and transports, which may stand before the bricks in any order.
const KEYWORDS: [&str; 7] =
    ["replica", "transport", "disperse", "redundancy", "disperse-data", "arbiter", "thin-arbiter"];

const REPLICA_2_QUESTION: &str = "Replica 2 volumes are prone to split-brain. Use Arbiter or Replica 3 to avoid this. \
See: http://docs.gluster.org/en/latest/Administrator-Guide/Split-brain-and-ways-to-deal-with-it/.\n\
Do you still want to continue?\n";

const ARBITER_RULE: &str = "For arbiter configuration, replica count must be 2 and arbiter count must be 1. The 3rd brick \
of the replica will be the arbiter";

/// Why the words make no volume.
enum Refusal {
    /// Said already or too plain to say: the usage text follows.
    Usage,
    /// Good words for what we cannot do yet.
    NotSupported(&'static str),
}

struct Volume {
    replica: u32,
    arbiter: u32,
    transport: String,
    bricks: Vec<BrickName>,
    force: bool,
}

pub(in super::super) fn create(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let Some(name) = words.get(2) else { return session.usage(pattern) };
    if let Err(message) = check_name(name) {
        if !message.is_empty() {
            session.console.err(message);
        }
        return session.usage(pattern);
    }
    let volume = match parse(session, words.get(3..).unwrap_or_default()) {
        Ok(volume) => volume,
        Err(Refusal::Usage) => return session.usage(pattern),
        Err(Refusal::NotSupported(what)) => return session.not_supported(what),
    };
    let request = Request::VolumeCreate {
        name: name.clone(),
        replica: volume.replica,
        arbiter: volume.arbiter,
        bricks: volume.bricks,
        transport: volume.transport,
        force: volume.force || session.options.ignore_warnings,
    };
    match session.ask(&request) {
        Ok(outcome) => {
            let success = "success: please start the volume to access data";
            report(session, "volume create", "volCreate", name, success, outcome)
        }
        Err(status) => status,
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.starts_with('-') {
        return Err(String::new());
    }
    if RESERVED.contains(&name) {
        return Err(format!("\"{name}\" cannot be the name of a volume."));
    }
    if name.contains('/') {
        return Err(String::new());
    }
    if name.len() > NAME_BYTES {
        return Err(format!("Volume name exceeds {NAME_BYTES} characters."));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-')) {
        // The missing space is GlusterFS's.
        Some(bad) => Err(format!(
            "Volume name should not contain \"{bad}\" character.\nVolume names can onlycontain alphanumeric, '-' and '_' \
             characters."
        )),
        None => Ok(()),
    }
}

/// What follows the volume's name.
fn parse(session: &mut Session, words: &[String]) -> Result<Volume, Refusal> {
    let (mut replica, mut transport, mut other_kind) = (None, None, None);
    let mut arbiter = 0;
    let last_is_force = words.last().is_some_and(|w| w == "force");
    let mut rest = words;
    for _ in 0..3 {
        let Some((word, after)) = rest.split_first() else { break };
        let Some(keyword) = unambiguous(word, KEYWORDS) else { break };
        let refuse = |session: &mut Session, message: &str| {
            session.console.err(message);
            Refusal::Usage
        };
        match keyword {
            "replica" => {
                if replica.is_some() {
                    return Err(refuse(session, "replica option given twice"));
                }
                if other_kind.is_some() {
                    return Err(refuse(session, "replicated-dispersed volume is not supported"));
                }
                let (count, mut after) = after.split_first().ok_or(Refusal::Usage)?;
                let mut count = leading_number(count);
                if count < 2 {
                    return Err(refuse(session, "replica count should be greater than 1"));
                }
                match after.first().map(String::as_str) {
                    Some("arbiter") => {
                        if after.get(1).is_none_or(|number| number != "1") || count > 3 {
                            return Err(refuse(session, ARBITER_RULE));
                        }
                        // `replica 2 arbiter 1` means the same as `replica 3 arbiter 1`.
                        (count, arbiter) = (3, 1);
                        after = after.get(2..).unwrap_or_default();
                    }
                    Some("thin-arbiter") => return Err(Refusal::NotSupported("volume create with a thin arbiter")),
                    _ => {}
                }
                if count == 2 && !last_is_force && !session.confirm(REPLICA_2_QUESTION) {
                    return Err(Refusal::Usage);
                }
                replica = Some(count);
                rest = after;
            }
            "transport" => {
                if transport.is_some() {
                    return Err(refuse(session, "'transport' option given more than one time"));
                }
                let (name, after) = after.split_first().ok_or(Refusal::Usage)?;
                transport = Some(match name.to_ascii_lowercase().as_str() {
                    "tcp" => "tcp",
                    "rdma" => "rdma",
                    "tcp,rdma" | "rdma,tcp" => "tcp,rdma",
                    "sdp" => "sdp",
                    _ => return Err(Refusal::Usage),
                });
                rest = after;
            }
            "arbiter" => return Err(refuse(session, "arbiter option must be preceded by replica option.")),
            "thin-arbiter" => return Err(refuse(session, "thin-arbiter option must be preceded by replica option.")),
            _ => {
                if replica.is_some() {
                    return Err(refuse(session, "replicated-dispersed volume is not supported"));
                }
                other_kind = Some("volume create with disperse");
                // Whether a number follows makes no difference to a volume that is refused anyway.
                rest = after;
            }
        }
    }
    if let Some(what) = other_kind {
        return Err(Refusal::NotSupported(what));
    }
    if rest.is_empty() {
        return Err(Refusal::Usage);
    }
    let bricks = parse_bricks(session, if last_is_force { rest.split_last().map_or(rest, |(_, b)| b) } else { rest })?;
    let replica = replica.unwrap_or(1);
    Ok(Volume { replica, arbiter, transport: transport.unwrap_or("tcp").to_owned(), bricks, force: last_is_force })
}

/// As `strtol` reads a number: what comes before the first other character, 0 without any.
fn leading_number(word: &str) -> u32 {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word.get(..digits).and_then(|d| d.parse().ok()).unwrap_or(0)
}

fn parse_bricks(session: &mut Session, words: &[String]) -> Result<Vec<BrickName>, Refusal> {
    let mut bricks: Vec<BrickName> = Vec::new();
    for word in words {
        let Some(parsed) = brick(word) else {
            let usage = "use <HOSTNAME>:<export-dir-abs-path>";
            session.console.err(format_args!("Wrong brick type: {word}, {usage}"));
            return Err(Refusal::Usage);
        };
        if parsed.host == "localhost" || parsed.host == "127.0.0.1" || parsed.host.starts_with("0.") {
            session.console.err(
                "Please provide a valid hostname/ip other than localhost, 127.0.0.1 or loopback address (0.0.0.0 to \
                 0.255.255.255).",
            );
            return Err(Refusal::Usage);
        }
        if !is_internet_address(&parsed.host) {
            session.console.err(format_args!("internet address '{}' does not conform to standards", parsed.host));
        }
        if bricks.contains(&parsed) {
            session.console.err(format_args!("Found duplicate exports {word}"));
            return Err(Refusal::Usage);
        }
        bricks.push(parsed);
    }
    if bricks.is_empty() {
        session.console.err("No bricks specified");
        return Err(Refusal::Usage);
    }
    Ok(bricks)
}
