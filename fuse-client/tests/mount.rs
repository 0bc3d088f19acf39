//! Real mounts of the `glusterfs` program over real bricks, in namespaces of their own: what applications see. The
//! checks are in `mount.sh`. Needs root and /dev/fuse; says so and does nothing elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Fewest checks that must have run: a script that ends early is no success.
const CHECKS: usize = 41;

fn run(glusterfsd: &Path, name: &str) {
    let root = rustix::process::geteuid().is_root();
    if !root || !Path::new("/dev/fuse").exists() || !glusterfsd.exists() {
        eprintln!("skipped: needs root, /dev/fuse and {}", glusterfsd.display());
        return;
    }
    let directory = std::env::temp_dir().join(format!("ladrillo-mount-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let output = Command::new("timeout")
        .args(["400", "unshare", "-mpnu", "--fork", "--mount-proc", "--kill-child", "bash"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount.sh"))
        .env("DIRECTORY", &directory)
        .env("GLUSTERFS", env!("CARGO_BIN_EXE_glusterfs"))
        .env("GLUSTERFSD", glusterfsd)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    let good = !said.contains("FAILED") && said.contains("\ndone") && passed >= CHECKS;
    if !good {
        for log in ["a.log", "b.log", "brick.log"] {
            let text = std::fs::read_to_string(directory.join(log)).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            eprintln!("--- {log}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
    let _ = std::fs::remove_dir_all(&directory);
    assert!(good, "{passed} checks passed:\n{said}");
}

/// Over a brick of GlusterFS 10.
#[test]
fn over_a_stock_brick() {
    run(Path::new("/usr/sbin/glusterfsd"), "stock");
}

/// Over our own brick, where it has been built beside this program.
#[test]
fn over_our_brick() {
    run(&PathBuf::from(env!("CARGO_BIN_EXE_glusterfs")).with_file_name("glusterfsd"), "ours");
}
