//! GlusterFS's programs on glusterd's port: handshake (GETSPEC), portmap, dump. What bricks, mounts and heal services ask.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use ladrillo_translator::Dict;
use ladrillo_transport::program::callback::{self, Callback};
use ladrillo_transport::program::dump;
use ladrillo_transport::program::handshake::{
    self, Answer, EventNotify, Getspec, GetspecReply, VolumeInfo, VolumeInfoReply,
};
use ladrillo_transport::program::portmap::{
    self, BrickByPort, BrickByPortReply, PortByBrick, PortByBrickReply, Signin, Signout,
};
use ladrillo_transport::xdr::DecodeError;
use ladrillo_transport::{Kind, Message};

use super::node::{Client, Node};
use crate::brick::hash;
use crate::net::interfaces::is_local;
use crate::net::rpc;
use crate::state::model::{Brick, Volume};
use crate::volgen::{self, names};

/// Most keys one connection is told of.
const MAX_KEYS: usize = 64;

impl Node {
    /// Answers the handshake program, version 2; `Ok(None)` for a procedure we do not have.
    ///
    /// # Errors
    /// When arguments do not decode.
    pub fn handshake(&self, procedure: u32, body: Bytes, client: &Rc<Client>) -> Result<Option<Message>, DecodeError> {
        Ok(match procedure {
            handshake::PROC_GETSPEC => Some(self.getspec(&Getspec::decode(body)?.key, client)),
            handshake::PROC_PING => Some(Answer::default().encode()),
            // A client reports a change of state; nothing is kept of it.
            handshake::PROC_EVENT_NOTIFY => {
                EventNotify::decode(body)?;
                Some(Answer::default().encode())
            }
            handshake::PROC_GET_VOLUME_INFO => Some(self.get_volume_info(&VolumeInfo::decode(body)?)),
            _ => None,
        })
    }

    fn getspec(&self, key: &str, client: &Rc<Client>) -> Message {
        let local = client.address.is_none_or(|address| self.is_local_caller(address));
        match self.volfile(key, local) {
            Ok(text) => {
                tracing::info!("volfile {key} to {}", describe(client));
                {
                    let mut fetched = client.fetched.borrow_mut();
                    if fetched.len() < MAX_KEYS || fetched.contains_key(key) {
                        fetched.insert(key.to_owned(), hash(text.as_bytes()));
                    }
                }
                let op_ret = i32::try_from(text.len()).unwrap_or(i32::MAX);
                let mut xdata = self.servers_list();
                if let Some(volume) = key.strip_prefix("shd/").filter(|_| local) {
                    // GlusterFS's own heal service writes its pid where this says.
                    xdata.set_str("pidfile", self.places.heal_pid(volume).to_string_lossy().into_owned());
                }
                GetspecReply { op_ret, op_errno: 0, spec: text.into(), xdata }.encode()
            }
            Err(reason) => {
                tracing::warn!("volfile {key} for {}: {reason}", describe(client));
                GetspecReply { op_ret: -1, op_errno: libc::ENOENT, ..GetspecReply::default() }.encode()
            }
        }
    }

    /// Whether a caller is on this machine and so gets the credentials of the pool's own processes.
    fn is_local_caller(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            v4 => v4,
        };
        is_local(address)
    }

    /// The volfile of a key.
    ///
    /// # Errors
    /// Why there is none.
    pub fn volfile(&self, key: &str, trusted: bool) -> Result<String, String> {
        let find = |name: &str| -> Result<Volume, String> {
            self.store
                .with_state(|state| state.volumes.get(name).cloned())
                .ok_or_else(|| format!("volume {name} does not exist"))
        };
        if let Some(name) = key.strip_prefix("shd/") {
            let volume = find(name)?;
            if !volume.is_replicated() {
                return Err(format!("volume {name} keeps no copies"));
            }
            return Ok(self.store.with_state(|state| volgen::heal(state, &volume)));
        }
        if key == "gluster/glustershd" {
            // All volumes' heal graphs, one after the other; each has its own top.
            let texts: Vec<String> = self.store.with_state(|state| {
                state
                    .volumes
                    .values()
                    .filter(|volume| self.wants_heal(volume))
                    .map(|volume| volgen::heal(state, volume))
                    .collect()
            });
            return if texts.is_empty() { Err("no volume wants healing".to_owned()) } else { Ok(texts.join("\n")) };
        }
        let name = key.strip_prefix('/').unwrap_or(key);
        if let Ok(volume) = find(name) {
            let kind = volume.kinds().first().copied().unwrap_or(Kind::Tcp);
            return Ok(self.store.with_state(|state| volgen::client(state, &volume, kind, trusted)));
        }
        // Mounts that ask for a transport: `V.tcp`, `V.rdma`, as GlusterFS has them, and `V.sdp`.
        if let Some((volume, asked)) = name.rsplit_once('.')
            && matches!(asked, "tcp" | "rdma" | "sdp")
            && let Ok(volume) = find(volume)
        {
            let kind =
                volume.kinds().into_iter().find(|kind| kind.name() == asked).ok_or_else(|| {
                    format!("volume {} has no transport {asked}, only {}", volume.name, volume.transport)
                })?;
            return Ok(self.store.with_state(|state| volgen::client(state, &volume, kind, trusted)));
        }
        let (volume_name, _) = name.split_once('.').ok_or_else(|| format!("volume {name} does not exist"))?;
        let volume = find(volume_name)?;
        let brick = volume
            .bricks
            .iter()
            .find(|brick| names::brick(&volume, brick) == name)
            .ok_or_else(|| format!("volume {volume_name} has no such brick"))?;
        self.work.brick_volfile(&volume, brick).map_err(|error| error.to_string())
    }

    /// The other servers a client may ask: `host:port `.
    fn servers_list(&self) -> Dict {
        let servers: String = self
            .others()
            .iter()
            .filter(|peer| self.is_connected(peer.uuid))
            .map(|peer| format!("{}:{} ", peer.name(), peer.port))
            .collect();
        let mut dict = Dict::new();
        if !servers.is_empty() {
            dict.set_str("servers-list", servers);
        }
        dict
    }

    fn get_volume_info(&self, asked: &VolumeInfo) -> Message {
        let name = asked.dict.text("volname").unwrap_or_default();
        match self.store.with_state(|state| state.volumes.get(name).map(|volume| volume.id)) {
            Some(id) => {
                let mut dict = Dict::new();
                dict.set_str("volume_id", id.to_string());
                VolumeInfoReply { dict, ..VolumeInfoReply::default() }.encode()
            }
            None => VolumeInfoReply {
                op_ret: -1,
                op_errno: libc::EINVAL,
                error: format!("Volume {name} does not exist"),
                dict: Dict::new(),
            }
            .encode(),
        }
    }

    /// Answers the portmap program, version 1; `Ok(None)` for a procedure we do not have.
    ///
    /// # Errors
    /// When arguments do not decode.
    pub fn portmap(&self, procedure: u32, body: Bytes, client: &Rc<Client>) -> Result<Option<Message>, DecodeError> {
        let is_local = || client.address.is_none_or(|address| self.is_local_caller(address));
        Ok(match procedure {
            portmap::PROC_PORTBYBRICK => Some(
                match self.port_of(&PortByBrick::decode(body)?.brick) {
                    Some(port) => PortByBrickReply { status: 1, port: i32::from(port), ..PortByBrickReply::default() },
                    None => PortByBrickReply { op_ret: -1, op_errno: libc::ENOENT, ..PortByBrickReply::default() },
                }
                .encode(),
            ),
            portmap::PROC_BRICKBYPORT => {
                let port = BrickByPort::decode(body)?.port;
                let brick = self.store.local().ports.into_iter().find(|(_, known)| i32::from(*known) == port);
                let op_ret = if brick.is_some() { 0 } else { -1 };
                let brick = brick.map(|(path, _)| path).unwrap_or_default();
                Some(BrickByPortReply { op_ret, brick, ..BrickByPortReply::default() }.encode())
            }
            portmap::PROC_SIGNIN => {
                let Signin { brick, port, .. } = Signin::decode(body)?;
                let port = u16::try_from(port).ok().filter(|port| *port > 0);
                // Only this machine's bricks, and only those we know, may say where they are.
                let known = self.find_port_name(&brick).map(|(volume, own, name)| (names::brick(&volume, &own), name));
                if let (Some(port), Some((key, brick)), true) = (port, known, is_local()) {
                    // This is the connection it keeps, not the one it fetched its volfile over: it is told of changes here,
                    // the first time of those it may have missed in between.
                    client.fetched.borrow_mut().insert(key, 0);
                    tracing::info!("brick {brick} is up on port {port}");
                    self.signed_in.borrow_mut().insert(brick.clone(), port);
                    if let Err(error) = self.update_local(|local| {
                        local.ports.insert(brick, port);
                    }) {
                        tracing::error!("{error}");
                    }
                }
                Some(portmap::Status::default().encode())
            }
            portmap::PROC_SIGNOUT => {
                let brick = Signout::decode(body)?.brick;
                if is_local() {
                    let name = self.find_port_name(&brick).map_or(brick, |(_, _, name)| name);
                    self.signed_in.borrow_mut().remove(&name);
                }
                Some(portmap::Status::default().encode())
            }
            _ => None,
        })
    }

    /// The port of a brick of this node that runs.
    fn port_of(&self, asked: &str) -> Option<u16> {
        let ports = self.store.local().ports;
        let (volume, brick, name) = self.find_port_name(asked)?;
        self.brick_daemon(&volume, &brick, &[]).pid()?;
        let signed_in = self.signed_in.borrow().get(&name).copied();
        signed_in.or_else(|| ports.get(&name).copied())
    }

    /// The brick of this node, and the name its port is known under here, of a name at the portmapper: the path for TCP,
    /// `path.rdma` as in GlusterFS 7, `path.sdp`. A path alone is a brick's only transport, too.
    fn find_port_name(&self, asked: &str) -> Option<(Volume, Brick, String)> {
        let find = |path: &str, wanted: Option<&str>| {
            self.store.with_state(|state| {
                state.volumes.values().find_map(|volume| {
                    let brick = self.own_bricks(volume).into_iter().find(|brick| brick.path == path)?.clone();
                    let kinds = volume.kinds();
                    let kind = match wanted {
                        Some(suffix) => kinds.into_iter().find(|kind| kind.portmap_suffix() == suffix)?,
                        None => kinds.into_iter().next()?,
                    };
                    let name = brick.portmap_name(volume, kind);
                    Some((volume.clone(), brick, name))
                })
            })
        };
        find(asked, None).or_else(|| {
            let (path, suffix) = asked.split_at(asked.rfind('.')?);
            find(path, Some(suffix).filter(|suffix| matches!(*suffix, ".rdma" | ".sdp")))
        })
    }

    /// Answers the dump program, version 1: which programs there are. `None` for a procedure we do not have.
    pub fn dump(&self, procedure: u32) -> Option<Message> {
        let programs = [
            (handshake::NAME_GLUSTERD, handshake::PROGRAM, handshake::VERSION),
            (portmap::NAME, portmap::PROGRAM, portmap::VERSION),
            (dump::NAME, dump::PROGRAM, dump::VERSION),
            ("Ladrillo CLI", rpc::CLI_PROGRAM, rpc::OWN_VERSION),
            ("Ladrillo peer", rpc::PEER_PROGRAM, rpc::OWN_VERSION),
        ];
        let programs = programs.map(|(name, number, version)| dump::Program {
            name: name.to_owned(),
            number: u64::from(number),
            version: u64::from(version),
        });
        (procedure == dump::PROC_DUMP)
            .then(|| dump::Reply { programs: programs.to_vec(), ..dump::Reply::default() }.encode())
    }

    /// Sends an event to the heal service of a volume on this node; whether there is one to hear it.
    pub async fn tell_heal_service(&self, volume: &str, event: i32) -> bool {
        let key = format!("shd/{volume}");
        let clients: Vec<Rc<Client>> = self.clients.borrow().iter().filter_map(std::rc::Weak::upgrade).collect();
        let body = EventNotify { op: event, dict: Dict::new() }.encode();
        let call = rpc::call(next_xid(), callback::PROGRAM, callback::VERSION, callback::PROC_EVENT_NOTIFY, body);
        let Ok(record) = call else { return false };
        let mut heard = false;
        for client in clients {
            let local = client.address.is_none_or(|address| self.is_local_caller(address));
            if local && client.fetched.borrow().contains_key(&key) {
                heard |= client.outgoing.try_send(record.clone()).is_ok();
            }
        }
        heard
    }

    /// Tells connections whose volfile is another now to fetch it (callback FETCHSPEC).
    pub fn tell_clients(&self) {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|client| client.strong_count() > 0);
        for client in clients.iter().filter_map(std::rc::Weak::upgrade) {
            let local = client.address.is_none_or(|address| self.is_local_caller(address));
            let mut changed = false;
            for (key, seen) in client.fetched.borrow_mut().iter_mut() {
                let Ok(text) = self.volfile(key, local) else { continue };
                let now = hash(text.as_bytes());
                changed |= now != *seen;
                *seen = now;
            }
            if changed
                && let Ok((procedure, body)) = Callback::Fetchspec.encode()
                && let Ok(record) = rpc::call(next_xid(), callback::PROGRAM, callback::VERSION, procedure, body)
                && client.outgoing.try_send(record).is_err()
            {
                tracing::warn!("{} does not read; it is not told of its new volfile", describe(&client));
            }
        }
    }
}

fn next_xid() -> u32 {
    static XID: AtomicU32 = AtomicU32::new(1);
    XID.fetch_add(1, Ordering::Relaxed)
}

fn describe(client: &Client) -> String {
    client.address.map_or_else(|| "a local caller".to_owned(), |address| address.to_string())
}
