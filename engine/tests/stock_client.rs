//! Debian's GlusterFS 10.3 (client, heal daemon, glusterd) on bricks of ours, each test in namespaces of its own.

use std::path::Path;
use std::process::Command;

fn play(script: &str, limit_s: u32) {
    if !Path::new("/usr/sbin/glusterfs").exists() {
        println!("skipped: no GlusterFS is installed here to check against");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces and trusted xattrs need root");
        return;
    }
    let directory = std::env::temp_dir().join(format!("ladrillo-{}-{script}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(format!("{script}.sh"));
    // --kill-child: whatever happens to us, nothing of it stays.
    let output = Command::new("timeout")
        .args(["--kill-after=5", &limit_s.to_string()])
        .args(["unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--mount-proc", "--kill-child", "bash"])
        .arg(path)
        .env("T", &directory)
        .env("BRICK", env!("CARGO_BIN_EXE_glusterfsd"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.trim_end().ends_with("PASSED");
    if passed {
        std::fs::remove_dir_all(&directory).unwrap();
    }
    assert!(
        passed,
        "{script} ({}; its files are in {}):\n{said}\n{}",
        output.status,
        directory.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn one_brick_under_the_stock_client() {
    play("one_brick", 240);
}

#[test]
fn three_bricks_under_stock_replicate_and_heal() {
    play("three_bricks", 300);
}

#[test]
fn bricks_under_stock_glusterd() {
    play("stock_glusterd", 300);
}

#[test]
fn a_brick_changes_hands_in_place() {
    play("adopted", 120);
}

#[test]
fn a_brick_with_a_failing_disk_ends() {
    play("health", 90);
}

#[test]
fn pings_are_answered_while_a_disk_hangs() {
    play("hang", 60);
}

#[test]
fn waiting_locks_are_interrupted_and_mandatory_ones_hold() {
    play("locks", 60);
}
