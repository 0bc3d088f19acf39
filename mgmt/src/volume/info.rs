//! `volume info`, `volume list`, `volume status`, `peer status`: answered from what this node has applied, leader or not.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use ladrillo_transport::Kind;

use crate::api::{About, Answer, BrickInfo, Outcome, PeerInfo, ProcessStatus, VolumeInfo, VolumeStatus};
use crate::daemon::node::Node;
use crate::daemon::peer::{PeerAnswer, PeerCall};
use crate::option::parse_bool;
use crate::state::model::{State, Status, Volume};
use crate::volume::about::patience;
use crate::volume::profile::check_question;

/// How long a node may take to say what runs on it.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

fn describe(state: &State, volume: &Volume) -> VolumeInfo {
    let mut options = volume.options.clone();
    options.extend(state.global_options.iter().cloned());
    VolumeInfo {
        name: volume.name.clone(),
        id: volume.id.to_string(),
        status: volume.status.number(),
        replica: volume.replica,
        arbiter: volume.arbiter,
        bricks: volume
            .bricks
            .iter()
            .map(|brick| BrickInfo {
                host: brick.host.clone(),
                path: brick.path.clone(),
                host_uuid: brick.host_uuid.to_string(),
            })
            .collect(),
        transport: volume.transport.clone(),
        options,
        snapshot_count: 0,
    }
}

impl Node {
    /// `volume info`.
    pub fn volume_info(&self, name: Option<&str>) -> Outcome {
        let infos = match name {
            Some(name) => {
                let volume = self.volume(name)?;
                vec![self.store.with_state(|state| describe(state, &volume))]
            }
            None => {
                self.store.with_state(|state| state.volumes.values().map(|volume| describe(state, volume)).collect())
            }
        };
        Ok(Answer::VolumeInfo(infos))
    }

    /// `volume list`.
    pub fn volume_names(&self) -> Outcome {
        Ok(Answer::Names(self.store.with_state(|state| state.volumes.keys().cloned().collect())))
    }

    /// `peer status` and `pool list`.
    pub fn peers(&self, with_self: bool) -> Outcome {
        let own = self.uuid();
        let mut infos: Vec<PeerInfo> = self
            .others()
            .into_iter()
            .map(|peer| PeerInfo {
                uuid: peer.uuid.to_string(),
                connected: self.is_connected(peer.uuid),
                hostnames: peer.hostnames,
                state: 3,
                state_text: "Peer in Cluster".to_owned(),
                is_self: false,
            })
            .collect();
        if with_self {
            infos.push(PeerInfo {
                uuid: own.to_string(),
                hostnames: vec!["localhost".to_owned()],
                connected: true,
                state: 3,
                state_text: "Peer in Cluster".to_owned(),
                is_self: true,
            });
        }
        Ok(Answer::Peers(infos))
    }

    /// `volume status`.
    pub async fn volume_status(&self, name: Option<&str>, about: Option<&About>, only: Option<&str>) -> Outcome {
        if let Some(name) = name {
            check_question(&self.volume(name)?, about)?;
        }
        let tag = self.tag();
        let own = self.uuid();
        let timeout = about.map_or(STATUS_TIMEOUT, |about| patience(Some(about)) + STATUS_TIMEOUT);
        let others = self.others().into_iter().filter(|peer| self.is_connected(peer.uuid));
        let asked = join_all(others.map(|peer| async move {
            let call = PeerCall::Status {
                tag,
                volume: name.map(str::to_owned),
                about: about.cloned(),
                brick: only.map(str::to_owned),
            };
            match self.call(&peer, &call, timeout).await {
                Ok(PeerAnswer::Status(status)) => (peer.uuid, status),
                _ => (peer.uuid, Vec::new()),
            }
        }));
        let (here, asked) = futures::join!(self.own_status(name, about, only), asked);
        let mut answers = vec![(own, here)];
        answers.extend(asked);
        let volumes: Vec<Volume> = self.store.with_state(|state| {
            state.volumes.values().filter(|volume| name.is_none_or(|name| volume.name == name)).cloned().collect()
        });
        let mut statuses = Vec::new();
        for volume in volumes.into_iter().filter(|volume| volume.status == Status::Started) {
            let lines = |uuid| {
                answers
                    .iter()
                    .filter(move |(from, _)| *from == uuid)
                    .flat_map(|(_, status)| status)
                    .filter(|status| status.name == volume.name)
                    .flat_map(|status| &status.processes)
            };
            // Bricks of nodes that do not answer are not shown, as in GlusterFS.
            let mut processes: Vec<ProcessStatus> = volume
                .bricks
                .iter()
                .filter_map(|brick| {
                    lines(brick.host_uuid).find(|line| line.kind == "Brick" && line.path == brick.path).cloned()
                })
                .collect();
            for (uuid, _) in &answers {
                let host = if *uuid == own { "localhost".to_owned() } else { self.name_of(*uuid) };
                processes.extend(lines(*uuid).filter(|line| line.kind != "Brick").map(|line| ProcessStatus {
                    host: host.clone(),
                    path: host.clone(),
                    ..line.clone()
                }));
            }
            statuses.push(VolumeStatus { name: volume.name.clone(), processes });
        }
        Ok(Answer::Status(statuses))
    }

    /// This node's lines of `volume status`.
    pub async fn own_status(&self, name: Option<&str>, about: Option<&About>, only: Option<&str>) -> Vec<VolumeStatus> {
        let own = self.uuid().to_string();
        let ports = self.store.local().ports;
        let volumes: Vec<Volume> = self.store.with_state(|state| {
            state.volumes.values().filter(|volume| name.is_none_or(|name| volume.name == name)).cloned().collect()
        });
        let mut statuses: Vec<VolumeStatus> = volumes
            .iter()
            .filter(|volume| volume.status == Status::Started)
            .map(|volume| {
                let mut processes: Vec<ProcessStatus> = self
                    .own_bricks(volume)
                    .into_iter()
                    .map(|brick| {
                        let pid = self.brick_daemon(volume, brick, &[]).pid();
                        let port = |wants_tcp: bool| {
                            let kind = volume.kinds().into_iter().find(|kind| (*kind == Kind::Tcp) == wants_tcp)?;
                            ports.get(&brick.portmap_name(volume, kind)).copied().filter(|_| pid.is_some())
                        };
                        ProcessStatus {
                            kind: "Brick".to_owned(),
                            host: brick.host.clone(),
                            path: brick.path.clone(),
                            peer_uuid: own.clone(),
                            online: pid.is_some(),
                            tcp_port: port(true),
                            rdma_port: port(false),
                            pid,
                            facts: BTreeMap::new(),
                        }
                    })
                    .collect();
                let has_heal = volume.is_replicated()
                    && volume.option("cluster.self-heal-daemon").and_then(parse_bool).unwrap_or(true);
                if has_heal {
                    let pid = self.heal_daemon(&volume.name).pid();
                    processes.push(ProcessStatus {
                        kind: "Self-heal Daemon".to_owned(),
                        host: own.clone(),
                        path: own.clone(),
                        peer_uuid: own.clone(),
                        online: pid.is_some(),
                        tcp_port: None,
                        rdma_port: None,
                        pid,
                        facts: BTreeMap::new(),
                    });
                }
                VolumeStatus { name: volume.name.clone(), processes }
            })
            .collect();
        if let Some(about) = about {
            // All at once: those that hang cost the others nothing.
            let asked = statuses.iter_mut().flat_map(|status| {
                let volume = volumes.iter().find(|volume| volume.name == status.name);
                status.processes.iter_mut().filter_map(move |process| Some((volume?, process)))
            });
            join_all(asked.map(|(volume, process)| async move {
                let wanted = only.is_none_or(|only| only == format!("{}:{}", process.host, process.path));
                let brick = volume.bricks.iter().find(|brick| brick.path == process.path && brick.host == process.host);
                if let Some(brick) = brick.filter(|_| process.online && process.kind == "Brick" && wanted) {
                    process.facts = self.about_brick(volume, brick, about).await;
                }
            }))
            .await;
        }
        statuses
    }
}
