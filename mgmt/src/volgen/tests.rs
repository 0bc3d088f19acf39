//! Against what Debian's GlusterFS 10.3 wrote for the same volumes (golden/, paths shortened).

use std::path::Path;

use ladrillo_transport::{Kind, Via};
use uuid::Uuid;

use super::*;
use crate::state::model::{Brick, State, Status, Volume};
use crate::state::workdir;

fn replica3() -> Volume {
    let brick = |n: usize| Brick {
        host: format!("127.1.1.{n}"),
        path: format!("/c/{n}/bricks/gv0-0"),
        host_uuid: Uuid::from_u128(n as u128),
        id: format!("gv0-client-{}", n - 1),
    };
    Volume {
        name: "gv0".into(),
        id: "71a0db9f-15e0-4928-826d-91f50ecdc2c9".parse().unwrap(),
        status: Status::Started,
        replica: 3,
        arbiter: 0,
        bricks: (1..=3).map(brick).collect(),
        transport: "tcp".into(),
        options: [
            ("cluster.granular-entry-heal", "on"),
            ("storage.fips-mode-rchecksum", "on"),
            ("transport.address-family", "inet"),
            ("nfs.disable", "on"),
            ("performance.client-io-threads", "off"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec(),
        version: 2,
        start_count: 1,
        username: "7d62dadc-1235-438e-8d4f-39cf56dc8a6c".into(),
        password: "ed7e2b8b-21a8-4fde-8f83-56677ee37c0c".into(),
    }
}

/// The volume after the `volume set`s of the reference session.
fn replica3_set() -> Volume {
    let mut volume = replica3();
    for (key, value) in [
        ("cluster.self-heal-daemon", "off"),
        ("performance.client-io-threads", "on"),
        ("cluster.quorum-type", "none"),
        ("diagnostics.client-log-level", "DEBUG"),
        ("auth.allow", "127.*"),
        ("performance.cache-size", "1TB"),
    ] {
        volume.set_option(key, value);
    }
    volume
}

fn context(shared_brick_count: u32) -> BrickContext<'static> {
    BrickContext { working_directory: Path::new("/c/1/glusterd"), bind: true, shared_brick_count }
}

macro_rules! golden {
    ($name:literal, $text:expr) => {
        let (ours, theirs) = ($text, include_str!(concat!("golden/", $name)));
        for (number, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
            assert_eq!(ours, theirs, "{} line {}", $name, number + 1);
        }
        assert_eq!(ours, theirs, "{}", $name);
    };
}

#[test]
fn replica_3_is_glusterfs_own() {
    let state = State::default();
    let volume = replica3();
    golden!("replica3-trusted.vol", client(&state, &volume, Kind::Tcp, true));
    golden!("replica3.vol", client(&state, &volume, Kind::Tcp, false));
    golden!("replica3-shd.vol", heal(&state, &volume));
    golden!("replica3-brick.vol", brick(&state, &volume, &volume.bricks[0], context(1)));
    golden!("replica3-brick-elsewhere.vol", brick(&state, &volume, &volume.bricks[1], context(0)));
}

#[test]
fn options_go_to_their_translators() {
    let state = State::default();
    let volume = replica3_set();
    golden!("replica3-set-trusted.vol", client(&state, &volume, Kind::Tcp, true));
    golden!("replica3-set-shd.vol", heal(&state, &volume));
    golden!("replica3-set-brick.vol", brick(&state, &volume, &volume.bricks[0], context(1)));
}

#[test]
fn a_single_brick_is_glusterfs_own() {
    let mut volume = replica3();
    volume.name = "single".into();
    volume.replica = 1;
    volume.bricks.truncate(1);
    volume.bricks[0].path = "/c/1/bricks/single".into();
    volume.username = "3340a8a2-30eb-494e-8c1d-518404843e5a".into();
    volume.password = "7effc866-cb9c-4972-9a6c-65f82a77c402".into();
    volume.options.retain(|(key, _)| !key.starts_with("cluster.") && !key.starts_with("performance."));
    golden!("single-trusted.vol", client(&State::default(), &volume, Kind::Tcp, true));
}

/// The volume a golden `info` is of, with its bricks on one host; that `info` must come out again.
fn imported(name: &str, info: &str) -> Volume {
    let mut volume = workdir::parse_info(Path::new("info"), name, info).unwrap();
    for (index, brick) in volume.bricks.iter_mut().enumerate() {
        brick.path = brick.path.replace('-', "/");
        brick.id = format!("{name}-client-{index}");
    }
    assert_eq!(workdir::info_text(&volume), info);
    volume
}

#[test]
fn distributed_volumes_are_glusterfs_own() {
    let state = State::default();
    let here = BrickContext { working_directory: Path::new("/var/lib/glusterd"), bind: false, shared_brick_count: 6 };
    let volume = imported("d1", include_str!("golden/d1.info"));
    golden!("distribute-trusted.vol", client(&state, &volume, Kind::Tcp, true));
    let volume = imported("dr", include_str!("golden/dr.info"));
    golden!("distributed-replicate-trusted.vol", client(&state, &volume, Kind::Tcp, true));
    let volume = imported("dar", include_str!("golden/dar.info"));
    golden!("distributed-arbiter-trusted.vol", client(&state, &volume, Kind::Tcp, true));
    golden!("distributed-arbiter-shd.vol", heal(&state, &volume));
    golden!("distributed-arbiter-brick.vol", brick(&state, &volume, &volume.bricks[5], here));
    let data = brick(&state, &volume, &volume.bricks[4], here);
    assert!(!data.contains("features/arbiter"), "{data}");
}

#[test]
fn a_read_ahead_that_is_set_joins_the_graph() {
    let mut volume = replica3();
    volume.set_option("performance.read-ahead", "on");
    volume.set_option("performance.stat-prefetch", "off");
    let text = client(&State::default(), &volume, Kind::Tcp, true);
    assert!(text.contains("volume gv0-read-ahead\n    type performance/read-ahead\n    subvolumes gv0-write-behind"));
    assert!(!text.contains("md-cache"));
}

/// As GlusterFS 7 wrote them: each mount has one transport, the brick and the info file have all.
#[test]
fn each_transport_has_its_volfile() {
    let state = State::default();
    let here = BrickContext { working_directory: Path::new("/var/lib/glusterd"), bind: false, shared_brick_count: 1 };
    let mut volume = replica3();
    volume.transport = "tcp,rdma".into();
    assert_eq!(volume.kinds(), [Kind::Tcp, Kind::Rdma]);
    assert!(workdir::info_text(&volume).contains("\ntransport-type=2\n"));
    for (kind, name) in [(Kind::Tcp, "tcp"), (Kind::Rdma, "rdma")] {
        let text = client(&state, &volume, kind, false);
        assert_eq!(text.matches(&format!("option transport-type {name}\n")).count(), 3, "{text}");
    }
    // The heal service, which asks for none, has the first.
    assert!(heal(&state, &volume).contains("option transport-type tcp\n"));
    assert!(brick(&state, &volume, &volume.bricks[0], here).contains("option transport-type tcp,rdma\n"));
    let first = &volume.bricks[0];
    assert_eq!(first.portmap_name(&volume, Kind::Tcp), "/c/1/bricks/gv0-0");
    assert_eq!(first.portmap_name(&volume, Kind::Rdma), "/c/1/bricks/gv0-0.rdma");

    volume.transport = "sdp".into();
    volume.set_option("transport.sdp.via", "smc");
    assert_eq!(workdir::parse_info(Path::new("info"), "gv0", &workdir::info_text(&volume)).unwrap().transport, "sdp");
    let smc = "option transport.sdp.via smc\n";
    assert_eq!(client(&state, &volume, Kind::Sdp(Via::Smc), false).matches(smc).count(), 3);
    assert!(brick(&state, &volume, &volume.bricks[0], here).contains(smc));
    // Its only transport has the brick's own name.
    assert_eq!(volume.bricks[0].portmap_name(&volume, Kind::Sdp(Via::Smc)), "/c/1/bricks/gv0-0");
}
