//! The promise: names, attributes and contents are those a reference model of a file system has, whichever of two mounts
//! an operation is done on.
//!
//! `LADRILLO_POSIX_SECONDS` (30) says for how long; a failure names its seed, which `LADRILLO_POSIX_SEED` replays.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ladrillo_tests::Cluster;
use ladrillo_tests::posix::{Real, arbitrary_ops, number, run};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// What makes two mounts see each other's changes at once: the kernel keeps neither pages nor names nor attributes.
const COHERENT: &str = "direct-io-mode=enable,attribute-timeout=0,entry-timeout=0,negative-timeout=0";

#[test]
fn two_mounts_of_copies_and_a_model_side_by_side() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    side_by_side(&cluster, number("LADRILLO_POSIX_SECONDS", 30));
    cluster.wait_identical("gv0", Duration::from_secs(30));
}

/// Names are spread over three bricks: renames leave linkto files, directories are everywhere.
#[test]
fn two_mounts_of_distributed_files_and_a_model_side_by_side() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    let bricks: Vec<_> = cluster.servers().iter().map(|n| format!("{}:/mnt/brick1/gv0", n.name())).collect();
    cluster.node(1).gluster(&format!("volume create gv0 {}", bricks.join(" "))).must();
    cluster.node(1).gluster("volume start gv0").must();
    cluster.wait_online("gv0", 3);
    side_by_side(&cluster, number("LADRILLO_POSIX_SECONDS", 30) / 2);
}

fn side_by_side(cluster: &Cluster, seconds: u64) {
    for on in [1, 2] {
        cluster.node(on).sh(&format!("mount -t glusterfs -o {COHERENT} debian1:/gv0 /mnt/gv0")).must();
    }
    let mounts = [cluster.node(1).path("/mnt/gv0"), cluster.node(2).path("/mnt/gv0")];
    // Modes are compared as they were asked for.
    let _ = rustix::process::umask(rustix::fs::Mode::empty());
    let end = Instant::now() + Duration::from_secs(seconds);
    let replay = std::env::var_os("LADRILLO_POSIX_SEED").is_some();
    let first = number("LADRILLO_POSIX_SEED", u64::from(std::process::id()) << 20);
    let (cases, operations) = (Cell::new(0), Cell::new(0));
    for seed in first.. {
        let config = Config {
            cases: 1,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            max_shrink_iters: 400,
            ..Config::default()
        };
        let result = TestRunner::new(config).run(&arbitrary_ops(2, 80), |ops| {
            cases.set(cases.get() + 1);
            operations.set(operations.get() + ops.len());
            let name = format!("case{}", cases.get());
            std::fs::create_dir(mounts[0].join(&name))
                .map_err(|e| TestCaseError::fail(format!("mkdir {name}: {e}")))?;
            let real = Real::new(mounts.iter().map(|mount| mount.join(&name)).collect());
            run(real, &ops).map_err(|e| TestCaseError::fail(e.to_string()))
        });
        if let Err(error) = result {
            panic!("replay with LADRILLO_POSIX_SEED={seed}: {error}");
        }
        if replay || Instant::now() >= end {
            break;
        }
    }
    println!("{} cases, {} operations", cases.get(), operations.get());
    assert!(replay || cases.get() >= 5, "only {} cases", cases.get());
}
