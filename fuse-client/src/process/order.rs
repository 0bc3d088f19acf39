//! `glusterfs --heal-info V -- ORDER`: what commands have a client of the volume do, without a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{Context, Dict, FileType, Fop, FopError, FopResult, Gfid, Reply};

use super::args::Args;
use super::heal_info;
use crate::graph::{Ear, Graph, Heard};
use crate::heal::decide::{Choice, decide, decide_name};
use crate::heal::info::{self, describe};

/// Longest path in bytes, Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Does it and prints what it says. What was refused for a file is printed too, in glfsheal's words, and tells by the exit
/// code.
///
/// # Errors
/// Why it could not be done, for people.
pub(super) async fn run(args: &Args, graph: &Graph, ear: &Ear) -> Result<ExitCode, String> {
    let volume = args.heal_info.as_deref().unwrap_or_default();
    super::run::first_state(ear).await;
    if ear.heard() != Heard::Up {
        return Err(format!("Volume {volume} is not started (Or) All the bricks are not running."));
    }
    let words: Vec<&OsString> = args.order.iter().collect();
    match words.as_slice() {
        [order, path, name] if *order == "getxattr" => {
            let value =
                getxattr(graph, path.as_bytes(), name.as_bytes()).await.map_err(|error| describe(error.errno))?;
            println!("{}", String::from_utf8_lossy(&value).trim_end_matches('\0'));
            Ok(ExitCode::SUCCESS)
        }
        [order, rest @ ..] if *order == "split-brain" => split_brain(graph, volume, rest).await,
        [order] if *order == "granular-entry-heal" => Ok(nothing_to_heal(graph).await),
        _ => {
            Err("getxattr PATH NAME, split-brain ... and granular-entry-heal are the orders that are known".to_owned())
        }
    }
}

/// glfsheal's exit code where a lookup failed.
const LOOKUP_FAILED: u8 = 22;

async fn split_brain(graph: &Graph, volume: &str, words: &[&OsString]) -> Result<ExitCode, String> {
    if graph.replicates.is_empty() {
        return Err(heal_info::not_replicated(volume));
    }
    let (brick, how, file) = match words {
        [how, file] if *how == "bigger-file" => (None, Some(Choice::Bigger), Some(*file)),
        [how, file] if *how == "latest-mtime" => (None, Some(Choice::LatestMtime), Some(*file)),
        [how, brick] if *how == "source-brick" => (Some(*brick), None, None),
        [how, brick, file] if *how == "source-brick" => (Some(*brick), None, Some(*file)),
        _ => return Err("split-brain bigger-file, latest-mtime or source-brick is expected".to_owned()),
    };
    let source = brick.and_then(|brick| place_of(graph, brick));
    if let (Some(brick), None) = (brick, source) {
        println!("\"{}\"- No such brick available in the volume.", brick.to_string_lossy());
        return Ok(ExitCode::FAILURE);
    }
    match (file, source, how) {
        (Some(file), source, how) => {
            let choice = |set: usize| match source {
                Some((of, child)) if of == set => Some(Choice::Child(child)),
                Some(_) => None,
                None => how,
            };
            heal_file(graph, file.as_bytes(), &choice).await
        }
        (None, Some((set, child)), _) => heal_all_from(graph, set, child).await,
        _ => Err("a file is expected".to_owned()),
    }
}

/// The replica set and the child that a brick, `HOST:PATH`, is.
fn place_of(graph: &Graph, brick: &OsString) -> Option<(usize, usize)> {
    let brick = brick.to_str()?;
    graph.bricks.iter().enumerate().find_map(|(set, bricks)| {
        let child = bricks.iter().position(|known| {
            known.as_ref().is_some_and(|(host, path)| brick.strip_prefix(host.as_str()) == Some(&format!(":{path}")))
        })?;
        Some((set, child))
    })
}

/// `choice` tells for each replica set what is chosen there; `None`: it is not asked.
async fn heal_file(graph: &Graph, file: &[u8], choice: &dyn Fn(usize) -> Option<Choice>) -> Result<ExitCode, String> {
    let shown = String::from_utf8_lossy(file).into_owned();
    if !file.starts_with(b"/") {
        println!("<FILE> must be absolute path w.r.t. the volume, starting with '/'");
        return Ok(ExitCode::FAILURE);
    }
    let path = match file.iter().rposition(|byte| *byte != b'/') {
        Some(last) => file.get(..=last).unwrap_or_default(),
        None => b"/",
    };
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (directory, name) = (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default());
    if !name.is_empty() {
        let parent = match resolve(graph, directory).await {
            Ok(parent) => parent,
            Err(error) => {
                let directory = if directory.is_empty() { b"/" } else { directory };
                println!("Lookup failed on {}:{}", String::from_utf8_lossy(directory), describe(error.errno));
                return Ok(ExitCode::FAILURE);
            }
        };
        // First which inode it is, where bricks do not agree.
        let entry = Entry { parent, name: Bytes::copy_from_slice(name) };
        for (set, replicate) in graph.replicates.iter().enumerate() {
            let Some(choice) = choice(set) else { continue };
            match decide_name(replicate, &entry, choice).await {
                None => {}
                Some(Ok(())) => {
                    println!("GFID split-brain resolved for file {shown}");
                    return Ok(ExitCode::SUCCESS);
                }
                Some(Err(why)) => {
                    println!("{why} for file {shown}");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    let found = match resolve(graph, path).await {
        Ok(gfid) => gfid,
        Err(error) => {
            println!("Lookup failed on {shown}:{}.", describe(error.errno));
            return Ok(ExitCode::from(LOOKUP_FAILED));
        }
    };
    let is_directory = kind_of(graph, found).await == Some(FileType::Directory);
    if is_directory {
        match (0..graph.replicates.len()).find_map(choice) {
            Some(Choice::Bigger) => {
                println!("'bigger-file' not a valid option for directories.");
                return Ok(ExitCode::FAILURE);
            }
            Some(Choice::Child(_)) => {
                println!("'source-brick' option used on a directory ({shown}). Performing conservative merge.");
            }
            _ => {}
        }
    }
    let mut outcome: Option<Result<(), String>> = None;
    for (set, replicate) in graph.replicates.iter().enumerate() {
        let Some(choice) = choice(set) else { continue };
        if let Some(here) = decide(replicate, found, choice).await
            && outcome.as_ref().is_none_or(Result::is_err)
        {
            outcome = Some(here);
        }
    }
    match outcome.unwrap_or_else(|| Err("File not in split-brain".to_owned())) {
        Ok(()) => {
            println!("Healed {shown}.");
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            println!("Healing {shown} failed: {}.", why.trim_end_matches('.'));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn kind_of(graph: &Graph, gfid: Gfid) -> Option<FileType> {
    let fop = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
    match graph.top.submit(&Context::root(), fop).await {
        Ok(Reply::Lookup { iatt, .. }) => iatt.file_type(),
        _ => None,
    }
}

/// Everything in split-brain that a brick's indices list, healed from that brick.
async fn heal_all_from(graph: &Graph, set: usize, child: usize) -> Result<ExitCode, String> {
    let Some(replicate) = graph.replicates.get(set) else { return Err("no such replica set".to_owned()) };
    let listed = match info::listed(replicate, child).await {
        Ok(listed) => listed,
        Err(error) => {
            println!("Status: {}\nNumber of healed entries: -\n", describe(error.errno));
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut healed = 0u64;
    for gfid in listed {
        match decide(replicate, gfid, Choice::Child(child)).await {
            Some(Ok(())) => {
                println!("Healed gfid:{gfid}.");
                healed += 1;
            }
            Some(Err(why)) => println!("Healing gfid:{gfid} failed: {}.", why.trim_end_matches('.')),
            None => println!("Lookup failed on gfid:{gfid}:{}.", describe(errno::ENOENT)),
        }
    }
    println!("Status: Connected\nNumber of healed entries: {healed}\n");
    Ok(ExitCode::SUCCESS)
}

/// Whether the way directories are marked may be changed: only while nothing is marked.
async fn nothing_to_heal(graph: &Graph) -> ExitCode {
    for replicate in &graph.replicates {
        if replicate.up() != replicate.everyone() {
            println!(
                "One or more bricks could be down. Please execute the command again after bringing all bricks online and \
                 finishing any pending heals"
            );
            return ExitCode::FAILURE;
        }
        for child in replicate.everyone().iter() {
            match info::listed(replicate, child).await {
                Ok(listed) if listed.is_empty() => {}
                Ok(_) => {
                    println!(
                        "One or more entries need heal. Please execute the command again after there are no entries to be \
                         healed"
                    );
                    return ExitCode::FAILURE;
                }
                Err(error) => {
                    println!("Command failed - {}. Please check the logs for more details", describe(error.errno));
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// An xattr, or an order in the form of one, of what is at `path`.
async fn getxattr(graph: &Graph, path: &[u8], name: &[u8]) -> FopResult<Bytes> {
    let gfid = resolve(graph, path).await?;
    let name = Bytes::copy_from_slice(name);
    let fop = Fop::Getxattr { gfid, name: name.clone(), xdata: Dict::new() };
    match graph.top.submit(&Context::root(), fop).await? {
        Reply::Xattrs { xattrs, .. } => {
            xattrs.bytes(&name).cloned().ok_or_else(|| FopError::new(errno::ENODATA, "no such xattr"))
        }
        _ => Err(FopError::new(errno::EIO, "another answer than to GETXATTR")),
    }
}

/// The inode at `path`, name by name; symlinks are not followed, and `..` is a name like another.
///
/// # Errors
/// Those of LOOKUP; ENAMETOOLONG.
pub(super) async fn resolve(graph: &Graph, path: &[u8]) -> FopResult<Gfid> {
    if path.len() >= MAX_PATH_BYTES {
        return Err(FopError::new(errno::ENAMETOOLONG, "the path is too long"));
    }
    let mut at = lookup(graph, Gfid::ROOT, None).await?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        at = lookup(graph, Gfid::NULL, Some(Entry { parent: at, name: Bytes::copy_from_slice(name) })).await?;
    }
    Ok(at)
}

async fn lookup(graph: &Graph, gfid: Gfid, entry: Option<Entry>) -> FopResult<Gfid> {
    match graph.top.submit(&Context::root(), Fop::Lookup { gfid, entry, xdata: Dict::new() }).await? {
        Reply::Lookup { iatt, .. } => Ok(iatt.gfid),
        _ => Err(FopError::new(errno::EIO, "another answer than to LOOKUP")),
    }
}
