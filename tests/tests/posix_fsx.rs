//! The promise: what was written is what is read: by fsx on one mount, and by operations that alternate between two
//! mounts, while a brick is killed and healed as well.
//!
//! `LADRILLO_POSIX_SECONDS` (30) says for how long each; a failure names its seed, which `LADRILLO_POSIX_SEED` replays.

use std::time::{Duration, Instant};

use ladrillo_tests::posix::{Op, Pair, Real, SLOTS, arbitrary_contents_op, fsx, number};
use ladrillo_tests::{Cluster, wait_until_healed};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// What makes two mounts see each other's changes at once: the kernel keeps neither pages nor names nor attributes.
const COHERENT: &str = "direct-io-mode=enable,attribute-timeout=0,entry-timeout=0,negative-timeout=0";

fn seed() -> u64 {
    number("LADRILLO_POSIX_SEED", u64::from(std::process::id()))
}

#[test]
fn fsx_on_one_mount() {
    let cluster = Cluster::builder(3).build().with_volume("gv0");
    let seconds = number("LADRILLO_POSIX_SECONDS", 30);
    fsx(cluster.node(1), "/mnt/gv0/fsx", seed(), seconds);
    cluster.wait_identical("gv0", Duration::from_secs(30));
}

#[test]
fn two_mounts_while_a_brick_is_killed_and_healed() {
    let cluster = Cluster::builder(3).build();
    cluster.form_pool();
    cluster.create_replicated("gv0");
    for on in [1, 2] {
        cluster.node(on).sh(&format!("mount -t glusterfs -o {COHERENT} debian1:/gv0 /mnt/gv0")).must();
    }
    let seed = seed();
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mounts = [cluster.node(1).path("/mnt/gv0"), cluster.node(2).path("/mnt/gv0")];
    let mut pair = Pair::new(Real::new(mounts.to_vec()));
    let path = || "f".to_owned();
    let mut log: Vec<Op> = vec![Op::Create { mount: 0, path: path(), mode: 0o644, exclusive: true }];
    // Two slots on each mount, one of them appending.
    log.extend((0..SLOTS).map(|slot| Op::Open {
        mount: slot % 2,
        path: path(),
        slot,
        append: slot >= SLOTS / 2,
        truncate: false,
    }));
    for op in log.clone() {
        pair.step(&op).unwrap_or_else(|error| panic!("{error}"));
    }
    let limit = Duration::from_secs(number("LADRILLO_POSIX_SECONDS", 30));
    let start = Instant::now();
    let ops = arbitrary_contents_op();
    // A third of the time with all bricks, one with two, one while the third is healed.
    let mut phase = 0;
    while start.elapsed() < limit {
        let now = (3 * start.elapsed().as_millis() / limit.as_millis().max(1)) as u32;
        if now > phase {
            phase = now;
            match phase {
                1 => cluster.kill_brick("gv0", 2),
                _ => drop(cluster.node(1).gluster("volume start gv0 force").must()),
            }
        }
        let op = ops.new_tree(&mut runner).unwrap_or_else(|e| panic!("{e}")).current();
        // Files that only grow get slow: appends are many.
        let op = if pair.steps() % 50 == 49 { Op::SlotTruncate { slot: 0, size: 1000 } } else { op };
        log.push(op.clone());
        if let Err(error) = pair.step(&op) {
            let last = &log[log.len().saturating_sub(12)..];
            panic!("seed {seed}, phase {phase}, {:?} after the start: {error}\nbefore it: {last:#?}", start.elapsed());
        }
    }
    pair.finish().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    println!("{} operations, seed {seed}", pair.steps());
    assert!(pair.steps() > 300, "only {} operations", pair.steps());
    drop(pair);
    cluster.wait_online("gv0", 3);
    wait_until_healed(cluster.node(1), "gv0", 3, Duration::from_secs(60));
    cluster.wait_identical("gv0", Duration::from_secs(30));
}
