//! The promise: `make bench` brings clusters up by itself, measures them beside the disk, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ladrillo_tests::wait_until;

/// Where `make build` puts the programs.
fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let target = own.parent().and_then(Path::parent).expect("target/debug/deps").to_owned();
    for program in ["ladrillo-bench", "glusterd", "glusterfsd", "glusterfs", "gluster"] {
        assert!(target.join(program).exists(), "{program} is not built: run `make build` first");
    }
    target
}

/// Processes whose command line speaks of `path`.
fn processes(path: &Path) -> Vec<String> {
    let path = path.to_string_lossy();
    let lines = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let raw = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&raw).replace('\0', " ");
        line.contains(&*path).then_some(line)
    });
    lines.collect()
}

#[test]
fn a_cluster_is_measured_and_gone() {
    let programs = programs();
    let base = std::env::temp_dir().join(format!("ladrillo-bench-cluster-{}", std::process::id()));
    std::fs::create_dir_all(base.join("work")).expect("a directory");
    let (out, log) = (base.join("out"), base.join("log"));
    let output = std::fs::File::create(&log).expect("a log");
    let status = Command::new("timeout")
        .args(["--signal=INT", "--kill-after=30", "120"])
        .arg(programs.join("ladrillo-bench"))
        .args(["--cluster", &format!("ours={}", programs.display()), "--local", "--keep-caches"])
        .args(["--volume-type", "distribute", "--quick", "--files", "30", "--only", "^(create_4k|stat_warm|mkdir)_1t$"])
        .arg("--work")
        .arg(base.join("work"))
        .arg("--out")
        .arg(&out)
        .stderr(output.try_clone().expect("a log"))
        .stdout(output)
        .status()
        .expect("timeout(1) runs");
    let said = std::fs::read_to_string(&log).expect("a log");
    assert!(status.success(), "{status}\n{said}");
    let table = std::fs::read_to_string(out.join("results.md")).expect("a table");
    assert!(table.contains("- **ours**: glusterfs 10.3 (ladrillo") && table.contains("distribute"), "{table}");
    // The daemons' processor time was found: between creating a file on a volume and on the disk there is a difference.
    let row = table.lines().find(|l| l.starts_with("| create_4k_1t | op/s |")).expect("figures");
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let daemons = |cell: &str| -> f64 {
        let inner = cell.split_once('(').and_then(|(_, rest)| rest.split_once(" / ")).expect("daemons / machine");
        inner.0.parse().expect("a number")
    };
    assert!(daemons(cells[4]) > 20.0 && daemons(cells[6]) == 0.0, "{row}");
    let gone = wait_until(Duration::from_secs(20), || processes(&base).is_empty());
    assert!(gone, "still there: {:?}", processes(&base));
    let left: Vec<_> = std::fs::read_dir(base.join("work")).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(&base).expect("it can be removed");
}
