//! `glusterfs --heal-info V [summary|split-brain] [--xml]`: what `gluster volume heal V info` prints. The XML is that of
//! GlusterFS's glfsheal.

use std::fmt::Write;
use std::path::Path;

use super::args::Args;
use crate::graph::{Ear, Graph, Heard};
use crate::heal::info::{self, BrickBacklog, EntryStatus};

/// Asks and prints.
///
/// # Errors
/// Why nothing can be said, in GlusterFS's words.
pub(super) async fn run(args: &Args, graph: &Graph, ear: &Ear) -> Result<(), String> {
    let volume = args.heal_info.as_deref().unwrap_or_default();
    if graph.replicates.is_empty() {
        return Err(not_replicated(volume));
    }
    super::run::first_state(ear).await;
    if ear.heard() != Heard::Up {
        return Err(format!("Volume {volume} is not started (Or) All the bricks are not running."));
    }
    let mut all = Vec::new();
    for (replicate, bricks) in graph.replicates.iter().zip(&graph.bricks) {
        let names: Vec<String> = bricks
            .iter()
            .map(|brick| brick.as_ref().map_or_else(|| "-".to_owned(), |(host, path)| format!("{host}:{path}")))
            .collect();
        all.extend(info::info(replicate, &names).await);
    }
    let text = match (args.mount_point.as_deref().and_then(Path::to_str), args.xml) {
        (None, false) => info::print(&all),
        (Some("summary"), false) => info::print_summary(&all),
        (Some("split-brain"), false) => info::print_split_brain(&all),
        (None, true) => xml(&all, false, |_| true),
        (Some("summary"), true) => xml(&all, true, |_| true),
        (Some("split-brain"), true) => xml(&all, false, |status| status == EntryStatus::SplitBrain),
        (other, _) => return Err(format!("heal info {}: summary and split-brain are known", other.unwrap_or("?"))),
    };
    print!("{text}");
    Ok(())
}

/// What is said of a volume that has nothing to heal.
pub(super) fn not_replicated(volume: &str) -> String {
    format!("This command is supported for only volumes of replicate type. Volume {volume} is not of type replicate")
}

/// The document of a failure.
pub(super) fn xml_failure(reason: &str) -> String {
    document("", -1, libc::EIO, reason)
}

fn document(bricks: &str, op_ret: i32, op_errno: i32, reason: &str) -> String {
    let bricks =
        if bricks.is_empty() { "    <bricks/>\n".to_owned() } else { format!("    <bricks>\n{bricks}    </bricks>\n") };
    let reason =
        if reason.is_empty() { "<opErrstr/>".to_owned() } else { format!("<opErrstr>{}</opErrstr>", escape(reason)) };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<cliOutput>\n  <healInfo>\n{bricks}  </healInfo>\n  \
         <opRet>{op_ret}</opRet>\n  <opErrno>{op_errno}</opErrno>\n  {reason}\n</cliOutput>\n"
    )
}

fn xml(backlogs: &[BrickBacklog], summary: bool, shown: impl Fn(EntryStatus) -> bool) -> String {
    let mut out = String::new();
    for backlog in backlogs {
        let entries: Vec<_> = backlog.entries.iter().filter(|entry| shown(entry.status)).collect();
        let _ = writeln!(out, "      <brick hostUuid=\"-\">\n        <name>{}</name>", escape(&backlog.brick));
        let of = |status| entries.iter().filter(|entry| entry.status == status).count().to_string();
        let unreachable = backlog.errno.filter(|_| backlog.count == 0);
        let state = match (backlog.errno, unreachable) {
            (None, _) => "Connected".to_owned(),
            (Some(errno), Some(_)) => info::describe(errno),
            (Some(errno), None) => {
                format!("Failed to process entries completely. ({})", info::describe(errno))
            }
        };
        if summary {
            element(&mut out, "status", &state);
            let counts = [
                ("totalNumberOfEntries", entries.len().to_string()),
                ("numberOfEntriesInHealPending", of(EntryStatus::Pending)),
                ("numberOfEntriesInSplitBrain", of(EntryStatus::SplitBrain)),
                ("numberOfEntriesPossiblyHealing", of(EntryStatus::Healing)),
            ];
            for (name, count) in counts {
                element(&mut out, name, if unreachable.is_some() { "-" } else { &count });
            }
        } else {
            for entry in &entries {
                let _ = writeln!(out, "        <file gfid=\"{}\">{}</file>", entry.gfid, escape(&entry.path));
            }
            let count = entries.len().to_string();
            element(&mut out, "status", &state);
            element(&mut out, "numberOfEntries", if unreachable.is_some() { "-" } else { &count });
        }
        out.push_str("      </brick>\n");
    }
    document(&out, 0, 0, "")
}

fn element(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "        <{name}>{}</{name}>", escape(text)); // writing to a string cannot fail
}

/// Text of an element; control characters, which XML cannot hold, become question marks.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('?'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::Gfid;

    use super::*;
    use crate::heal::info::BacklogEntry;

    #[test]
    fn xml_is_glfsheals() {
        let entry = BacklogEntry { path: "/a&b\u{1}".into(), gfid: Gfid::ROOT, status: EntryStatus::Pending };
        let backlogs = [
            BrickBacklog { brick: "h:/b".into(), errno: None, entries: vec![entry], count: 1 },
            BrickBacklog { brick: "g:/b".into(), errno: Some(libc::ENOTCONN), entries: Vec::new(), count: 0 },
        ];
        let text = xml(&backlogs, false, |_| true);
        for part in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<cliOutput>\n  <healInfo>\n    <bricks>\n",
            "        <name>h:/b</name>\n        <file gfid=\"00000000-0000-0000-0000-000000000001\">/a&amp;b?</file>\n",
            "        <status>Connected</status>\n        <numberOfEntries>1</numberOfEntries>\n      </brick>\n",
            "        <status>Transport endpoint is not connected</status>\n        <numberOfEntries>-</numberOfEntries>\n",
            "  <opRet>0</opRet>\n  <opErrno>0</opErrno>\n  <opErrstr/>\n</cliOutput>\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let text = xml(&backlogs, true, |_| true);
        assert!(text.contains("<numberOfEntriesInHealPending>1</numberOfEntriesInHealPending>"));
        assert!(text.contains("<totalNumberOfEntries>-</totalNumberOfEntries>"));
        assert!(xml(&backlogs, false, |status| status == EntryStatus::SplitBrain).contains("<numberOfEntries>0<"));
        assert!(xml_failure("no <volume>").contains("<opErrstr>no &lt;volume&gt;</opErrstr>"));
    }
}
