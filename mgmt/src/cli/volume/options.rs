//! `volume set`, `reset`, `get`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use super::super::{Session, Status, text, xml};
use super::failed;
use crate::api::{Answer, Request};
use crate::option;

/// Where GlusterFS keeps its named sets of options.
const GROUPS: &str = "/var/lib/glusterd/groups";
/// Said of an option of the pool that is asked for by a volume. The blanks are GlusterFS's.
const GLOBAL_WARNING: &str = "Warning: support to get                                         global option value using \
volume get                                         <volname>` will be deprecated from                                  \
\x20      next release. Consider using `volume                                         get all` instead for global options";
/// Longest file of such a set, bytes.
const GROUP_BYTES: u64 = 1 << 20;

pub(in super::super) fn set(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let rest = words.get(2..).unwrap_or_default();
    let (name, options) = match rest {
        [what] if what == "help" => {
            session.console.out(text::option_help());
            return 0;
        }
        [what] if what == "help-xml" => {
            session.console.out(xml::option_help());
            return 0;
        }
        [name, group, set] if group == "group" => match read_group(set.trim()) {
            Ok(options) => (name, options),
            Err(message) => {
                session.console.err(message);
                return -1;
            }
        },
        [name, pairs @ ..] if pairs.len() >= 2 => match pair_up(pairs) {
            Some(options) => (name, options),
            None => return session.usage(pattern),
        },
        _ => return session.usage(pattern),
    };
    for (key, value) in &options {
        let question = match (key.as_str(), value.as_str()) {
            ("cluster.enable-shared-storage", "disable") => {
                "Disabling cluster.enable-shared-storage will delete the shared storage volume(gluster_shared_storage), \
                 which is used by snapshot scheduler, geo-replication and NFS-Ganesha. Do you still want to continue?"
            }
            ("nfs.disable", "off") => {
                "Gluster NFS is being deprecated in favor of NFS-Ganesha Enter \"yes\" to continue using Gluster NFS"
            }
            _ => continue,
        };
        if !session.confirm(question) {
            session.console.err("Aborted by user.");
            return -1;
        }
    }
    let request = Request::VolumeSet { name: name.clone(), options };
    match session.ask(&request) {
        Ok(Ok(answer)) => {
            let note = if let Answer::Done { note } = answer { note } else { None };
            if session.options.xml {
                let document = xml::Document::new(0, 0, "");
                session.console.write(xml::sentence(document, "volSet", "Set volume successful"));
            } else {
                session.console.out("volume set: success");
                if let Some(note) = note {
                    session.console.out(note);
                }
            }
            0
        }
        Ok(Err(failure)) if session.options.xml => {
            session.console.write(xml::sentence(xml::failure(&failure), "volSet", "Set volume unsuccessful"));
            0
        }
        Ok(Err(failure)) => {
            let separator = if failure.message.is_empty() { "" } else { ": " };
            session.console.err(format_args!("volume set: failed{separator}{failure}"));
            failure.op_ret
        }
        Err(status) => status,
    }
}

/// `KEY VALUE KEY VALUE...`; `None` when a value is missing or empty, or `group` is among the keys.
fn pair_up(words: &[String]) -> Option<Vec<(String, String)>> {
    let mut options = Vec::new();
    for pair in words.chunks(2) {
        let [key, value] = pair else { return None };
        // Values of users' own options are kept as they are.
        let value = if key.starts_with("user.") { value.as_str() } else { value.trim() };
        if value.is_empty() || key == "group" {
            return None;
        }
        options.push((key.clone(), value.to_owned()));
    }
    Some(options)
}

/// The options of a named set: `KEY=VALUE` lines, `#` begins a comment.
fn read_group(name: &str) -> Result<Vec<(String, String)>, String> {
    let path = format!("{GROUPS}/{name}");
    let invalid = || format!("'{path}' file format not valid.");
    if name.is_empty() || name.contains('/') {
        return Err(format!("Unable to open file '{path}'. Error: Invalid argument"));
    }
    let file = File::open(&path).map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default();
        format!("Unable to open file '{path}'. Error: {reason}")
    })?;
    let mut options = Vec::new();
    for line in BufReader::new(file.take(GROUP_BYTES)).lines() {
        let line = line.map_err(|_| invalid())?;
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').filter(|(k, v)| !k.is_empty() && !v.is_empty()).ok_or_else(invalid)?;
        options.push((key.to_owned(), value.trim_end_matches('\r').to_owned()));
    }
    if options.is_empty() { Err(invalid()) } else { Ok(options) }
}

pub(in super::super) fn reset(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let (name, key, force) = match words.get(2..).unwrap_or_default() {
        [name] => (name, None, false),
        [name, force] if force == "force" => (name, None, true),
        [name, key] => (name, Some(key), false),
        [name, key, force] if force == "force" => (name, Some(key), true),
        _ => return session.usage(pattern),
    };
    let key = key.filter(|key| *key != "all").cloned();
    match session.ask(&Request::VolumeReset { name: name.clone(), key, force }) {
        Ok(Ok(answer)) => {
            let message = match answer {
                Answer::Done { note: Some(note) } => note,
                _ => "reset volume successful".to_owned(),
            };
            if session.options.xml {
                session.console.write(xml::sentence(xml::Document::new(0, 0, ""), "volReset", &message));
            } else {
                session.console.out(format_args!("volume reset: success: {message}"));
            }
            0
        }
        Ok(Err(failure)) => {
            let plain = "reset volume unsuccessful";
            let message = if failure.message.is_empty() { plain } else { failure.message.as_str() };
            if session.options.xml {
                session.console.write(xml::sentence(xml::failure(&failure), "volReset", message));
                return 0;
            }
            session.console.err(format_args!("volume reset: failed: {message}"));
            failure.op_ret
        }
        Err(status) => status,
    }
}

pub(in super::super) fn get(session: &mut Session, pattern: &'static str, words: &[String]) -> Status {
    let [_, _, name, key] = words else { return session.usage(pattern) };
    match session.ask(&Request::VolumeGet { name: name.clone(), key: key.clone() }) {
        Ok(Ok(Answer::Options(options))) if !options.is_empty() => {
            let mut options = options;
            if let [(key, value)] = options.as_mut_slice()
                && name != "all"
                && option::find(key).is_some_and(|entry| entry.is(option::GLOBAL))
            {
                if !session.options.xml {
                    session.console.out(GLOBAL_WARNING);
                }
                if let Some(bare) = value.strip_suffix(" (DEFAULT)") {
                    *value = bare.to_owned();
                }
            }
            let text = if session.options.xml { xml::options(&options) } else { text::options(&options) };
            session.console.write(text);
            0
        }
        Ok(Err(mut failure)) => {
            // Of this command, scripts see no number.
            failure.op_errno = 0;
            let separator = if failure.message.is_empty() { "" } else { ": " };
            let message = format!("volume get option: failed{separator}{failure}");
            if session.options.xml {
                session.console.write(xml::sentence(xml::failure(&failure), "volGetopts", &message));
            } else {
                session.console.err(message);
            }
            failure.op_ret
        }
        Ok(outcome) => {
            failed(session, outcome, "volume get option failed. Check the cli/glusterd log file for more details")
        }
        Err(status) => status,
    }
}
