//! The whole harness once, on a plain directory, without fio.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ladrillo_benches::phase::PHASES;
use ladrillo_benches::report::Results;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("ladrillo-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("subject")).unwrap();
        Scratch(path)
    }

    fn bench(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ladrillo-bench"));
        command.args(["--subject", &format!("here={}", self.0.join("subject").display())]);
        command.arg("--out").arg(self.0.join("out")).arg("--work").arg(&self.0);
        command
            .args(["--keep-caches", "--quick", "--files", "40", "--entries", "100", "--tree-files", "30"])
            .args(args);
        command.output().unwrap()
    }

    /// What a finished run leaves: its results, nothing else.
    fn is_tidy(&self) -> bool {
        let names = |path: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        names(&self.0.join("subject")).is_empty() && names(&self.0) == ["out", "subject"]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn all_phases_but_fios_on_a_directory() {
    let scratch = Scratch::new("smoke");
    let groups = ["--groups", "small,tree,large"];
    let output = scratch.bench(&groups);
    assert!(output.status.success(), "{}", said(&output));
    assert!(scratch.is_tidy(), "{}", said(&output));
    let results = Results::read(&scratch.0.join("out/results.json")).unwrap();
    let wanted = PHASES.iter().filter(|p| p.programs() != ["fio"]).count();
    // Without git its phases are skipped, and that is said.
    let skipped = if said(&output).contains("git is not installed") { 4 } else { 0 };
    assert_eq!(results.measurements.len(), wanted - skipped, "{}", said(&output));
    for m in &results.measurements {
        assert!(m.error.is_none() && m.amount > 0.0 && m.seconds > 0.0, "{m:?}");
    }
    let of = |phase: &str| results.measurements.iter().find(|m| m.phase == phase).unwrap();
    assert_eq!((of("create_4k_4t").amount, of("mkdir_1t").amount, of("large_create_4t").amount), (40.0, 40.0, 100.0));
    assert!(of("untar").amount > 30.0);
    for name in ["results.md", "rates.svg", "rates.png", "cpu.svg", "cpu.png"] {
        assert!(scratch.0.join("out").join(name).metadata().unwrap().len() > 500, "{name}");
    }
}

#[test]
fn a_phase_alone_makes_what_it_needs() {
    let scratch = Scratch::new("alone");
    let output = scratch.bench(&["--only", "^unlink_1t$", "--only", "^rename_4t$", "--runs", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    let results = Results::read(&scratch.0.join("out/results.json")).unwrap();
    assert_eq!(results.measurements.len(), 4);
    assert!(scratch.is_tidy());
}

#[test]
fn what_fails_on_one_subject_is_told_and_the_rest_goes_on() {
    let scratch = Scratch::new("fails");
    let output = scratch.bench(&["--subject", "wrong=/proc", "--only", "^create_4k_1t$"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let results = Results::read(&scratch.0.join("out/results.json")).unwrap();
    let failed: Vec<&str> =
        results.measurements.iter().filter(|m| m.error.is_some()).map(|m| m.subject.as_str()).collect();
    assert_eq!((failed, results.measurements.len()), (vec!["wrong"], 2));
    let table = std::fs::read_to_string(scratch.0.join("out/results.md")).unwrap();
    assert!(table.contains("- create_4k_1t on wrong: mkdir /proc/"), "{table}");
}

#[test]
fn an_interrupt_leaves_what_was_measured_and_nothing_else() {
    let scratch = Scratch::new("interrupt");
    let subject = scratch.0.join("subject");
    let child = Command::new(env!("CARGO_BIN_EXE_ladrillo-bench"))
        .args(["--subject", &format!("here={}", subject.display()), "--runs", "1000", "--only", "^(mkdir|create)"])
        .args(["--files", "100000"])
        .arg("--out")
        .arg(scratch.0.join("out"))
        .arg("--work")
        .arg(&scratch.0)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let begun = || std::fs::read_dir(&subject).unwrap().next().is_some();
    while !begun() {
        assert!(std::time::Instant::now() < end, "it does not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // SAFETY: kill(2) on our own child, which is not yet waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(Results::read(&scratch.0.join("out/results.json")).unwrap().interrupted);
    assert!(scratch.is_tidy());
}

#[test]
fn mistakes_are_told() {
    let bench = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ladrillo-bench")).args(args).output().unwrap();
        (output.status.code(), said(&output) + &String::from_utf8_lossy(&output.stdout))
    };
    assert_eq!(bench(&[]).0, Some(2));
    assert!(bench(&["--local", "--only", "^nosuch$"]).1.contains("no phase has such a name"));
    assert!(bench(&["--subject", "a=/no/such/directory"]).1.contains("/no/such/directory"));
    let (code, list) = bench(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(PHASES.iter().all(|p| list.contains(p.name) && list.contains(p.what)));
}
