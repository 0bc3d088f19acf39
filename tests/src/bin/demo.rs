//! `make demo`: the whole promise on one machine, step by step, in private namespaces.
//!
//! Three machines, a replicated volume, a mount; a brick is killed while files are written, reads and writes go on; the
//! brick is started again and heals by itself; the three bricks are compared. `KEEP=1` leaves it all running.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ladrillo_tests::{
    BrickTree, Cluster, Node, Programs, compare_bricks, heal_counts, volume_status, wait_for, wait_until,
};

/// A step's failure, in words.
type Failed = String;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("demo: run as root: it makes network and mount namespaces and mounts FUSE");
        return ExitCode::FAILURE;
    }
    let keep = std::env::var("KEEP").is_ok_and(|k| !k.is_empty() && k != "0");
    let start = Instant::now();
    println!(
        "Three machines on this one: debian1, debian2, debian3, each with namespaces, a link and a disk of its own\n"
    );
    let cluster = Cluster::builder(3).server_programs(Programs::Ours).keep(keep).build();
    let result = show(&cluster);
    match &result {
        Ok(()) => println!("\nAll of it worked, in {:.0?}.", start.elapsed()),
        Err(why) => {
            eprintln!("\nFAILED: {why}\n");
            for node in cluster.nodes() {
                eprintln!("{}", node.log_tails());
            }
        }
    }
    if keep {
        println!("\nStill running. To enter a machine, or take everything down:\n\n{}", cluster.how_to_enter());
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a command on a machine and shows both it and what it printed.
fn run(node: &Node, command: &str) -> Result<String, Failed> {
    println!("{}# {command}", node.name());
    let done = node.sh(command);
    for line in done.stdout.lines().chain(done.stderr.lines()) {
        println!("    {line}");
    }
    if done.ok() { Ok(done.stdout) } else { Err(format!("`{command}` ended with status {}", done.code)) }
}

fn check(what: &str, holds: bool) -> Result<(), Failed> {
    if holds {
        println!("  ok  {what}");
        Ok(())
    } else {
        Err(format!("not so: {what}"))
    }
}

fn show(cluster: &Cluster) -> Result<(), Failed> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    for node in cluster.servers() {
        run(node, "glusterd")?;
    }
    let up = |n: &Node| wait_until(Duration::from_secs(30), || n.gluster("pool list").ok());
    check("every glusterd answers", cluster.servers().iter().all(up))?;
    run(one, "gluster peer probe debian2")?;
    run(one, "gluster peer probe debian3")?;
    let joined = wait_until(Duration::from_secs(30), || {
        one.gluster("peer status").stdout.matches("Peer in Cluster (Connected)").count() == 2
    });
    run(one, "gluster pool list")?;
    check("the three are one pool", joined)?;

    println!("\n-- a volume with three copies, mounted on two machines");
    let bricks = "debian1:/mnt/brick1/gv0 debian2:/mnt/brick1/gv0 debian3:/mnt/brick1/gv0";
    run(one, &format!("gluster volume create gv0 replica 3 {bricks}"))?;
    run(one, "gluster volume start gv0")?;
    let online = |count| {
        wait_until(Duration::from_secs(30), || volume_status(one, "gv0").iter().filter(|b| b.online).count() == count)
    };
    check("all bricks are online", online(3))?;
    for node in [one, two] {
        run(node, "mount -t glusterfs debian1:/gv0 /mnt/gv0")?;
    }
    run(one, "cp -r /etc /mnt/gv0/etc-copy && head -c 10000000 /dev/urandom > /mnt/gv0/big && ls /mnt/gv0")?;
    let same = one.sh("sha256sum < /mnt/gv0/big").stdout == two.sh("sha256sum < /mnt/gv0/big").stdout;
    check("the other machine reads the same", same)?;

    println!("\n-- kill -9 the brick of debian3, and go on");
    let pid = wait_for(Duration::from_secs(10), || {
        volume_status(one, "gv0").into_iter().find(|b| b.name.starts_with("debian3:")).and_then(|b| b.pid)
    });
    let pid = pid.ok_or("no brick runs on debian3")?;
    run(cluster.node(3), &format!("kill -9 {pid}"))?;
    let written = "echo while one copy is away > /mnt/gv0/new && head -c 5000000 /dev/urandom > /mnt/gv0/big && \
                   mkdir /mnt/gv0/dir && for i in $(seq 100); do echo $i > /mnt/gv0/dir/$i; done && \
                   rm -r /mnt/gv0/etc-copy/default";
    run(one, written)?;
    run(two, "cat /mnt/gv0/new; ls /mnt/gv0/dir | wc -l")?;
    check("one brick is shown as down", online(2))?;
    run(one, "gluster volume heal gv0 info summary")?;
    let backlog = |n: &Node| heal_counts(n, "gv0").into_iter().flatten().sum::<u64>();
    check("what the dead brick missed is on record", backlog(one) > 0)?;

    println!("\n-- start it again: it is brought up to date by itself");
    run(one, "gluster volume start gv0 force")?;
    check("all bricks are online", online(3))?;
    let healing = Instant::now();
    let healed = wait_until(Duration::from_secs(120), || {
        let counts = heal_counts(one, "gv0");
        counts.len() == 3 && counts.iter().all(|c| *c == Some(0))
    });
    run(one, "gluster volume heal gv0 info")?;
    check(&format!("nothing is left to heal, after {:.1?}", healing.elapsed()), healed)?;
    let mut differences = Vec::new();
    let same = wait_until(Duration::from_secs(30), || {
        differences = compare_bricks(&cluster.bricks("gv0"));
        differences.is_empty()
    });
    for difference in differences.iter().take(10) {
        println!("    {difference}");
    }
    let files = BrickTree::read(&one.path("/mnt/brick1/gv0")).entries.len();
    check(&format!("the three bricks are identical: {files} files, contents, owners, modes, attributes"), same)?;
    run(cluster.node(3), "cat /mnt/brick1/gv0/new")?;
    Ok(())
}
