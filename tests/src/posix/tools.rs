//! The tests of others: the crates pjdfstest and fsx, which `tools/posix-tools` installs into `target/tools`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::{Node, target_directory};
use crate::process::Outcome;

/// What pjdfstest said of each of its tests.
#[derive(Clone, Debug, Default)]
pub struct PjdfsTest {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, and what they said.
    pub failed: BTreeMap<String, String>,
    /// Tests that did not run.
    pub skipped: Vec<String>,
}

/// The path of an installed tool.
///
/// # Panics
/// When it is not installed: a test that cannot run has failed.
fn tool(name: &str) -> PathBuf {
    let path = target_directory().parent().map(|target| target.join("tools/bin").join(name)).unwrap_or_default();
    assert!(path.exists(), "{} is missing: run tools/posix-tools", path.display());
    path
}

/// Runs all of pjdfstest in `directory` of a machine; `second` is a directory on another file system there.
///
/// # Panics
/// When it does not run to its end.
pub fn pjdfstest(node: &Node, directory: &str, second: &str) -> PjdfsTest {
    let program = tool("pjdfstest");
    // Two users that every Debian has, each with a group of its own. naptime: longer than a tick of the clock that
    // stamps files.
    let configuration = format!(
        "[features]\nposix_fallocate = {{}}\nutime_now = {{}}\nutimensat = {{}}\nrename_ctime = {{}}\n\
         secondary_fs = \"{second}\"\n[settings]\nnaptime = 0.01\nallow_remount = true\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n"
    );
    let run = |patterns: &str| {
        let command = format!(
            "cd /; cat > /run/pjdfstest.toml <<'END'\n{configuration}END\n\
             NO_COLOR=1 RUST_BACKTRACE=0 {} -c /run/pjdfstest.toml -p {directory} {patterns}",
            program.display()
        );
        let outcome = node.sh_within(Duration::from_secs(600), &command);
        assert!(outcome.stdout.contains("Summary: "), "pjdfstest did not get to its end: {outcome}");
        parse(&outcome)
    };
    let mut all = run("");
    // Remounting read-only is refused while an earlier test's file is still open: those again, alone.
    let again = run("erofs");
    all.failed.retain(|name, _| !name.contains("::erofs"));
    all.failed.extend(again.failed);
    all
}

fn parse(outcome: &Outcome) -> PjdfsTest {
    let mut found = PjdfsTest::default();
    let mut last = None;
    for line in outcome.stdout.lines() {
        let mut words = line.split_whitespace();
        match (line.starts_with(char::is_whitespace), words.next(), words.next(), words.next()) {
            (false, Some(_), Some("ok"), None) => found.passed += 1,
            (false, Some(name), Some("skipped"), None) => found.skipped.push(name.to_owned()),
            (false, Some(name), Some("FAILED"), None) => {
                found.failed.insert(name.to_owned(), String::new());
                last = Some(name.to_owned());
                continue;
            }
            (true, Some(_), ..) => {
                if let Some(said) = last.as_ref().and_then(|name| found.failed.get_mut(name)) {
                    *said += line.trim();
                }
                continue;
            }
            _ => {}
        }
        last = None;
    }
    found
}

/// Runs fsx on one file of a machine for some seconds.
///
/// # Panics
/// When fsx finds a mismatch or does not run.
pub fn fsx(node: &Node, file: &str, seed: u64, seconds: u64) {
    let command = format!(
        "cat > /run/fsx.toml <<'END'\nflen = 1000000\n[opsize]\nmax = 140000\n[weights]\nclose_open = 1\nread = 10\n\
         write = 10\nmapread = 6\nmapwrite = 6\ninvalidate = 1\ntruncate = 3\nfsync = 1\nfdatasync = 1\n\
         posix_fallocate = 2\npunch_hole = 2\nsendfile = 2\nposix_fadvise = 1\ncopy_file_range = 2\nEND\n\
         mkdir -p /run/fsx; timeout -s KILL {seconds} {} -f /run/fsx.toml -S {seed} -P /run/fsx {file}\n\
         code=$?; [ $code = 137 ] || {{ echo \"fsx ended by itself: $code\"; exit 1; }}; test -s {file}",
        tool("fsx").display()
    );
    let outcome = node.sh_within(Duration::from_secs(seconds + 60), &command);
    assert!(outcome.ok(), "fsx with seed {seed}: {outcome}");
}
