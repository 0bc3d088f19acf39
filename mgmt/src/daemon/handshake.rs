//! GlusterFS's programs on glusterd's port: handshake (GETSPEC), portmap, dump. What bricks, mounts and heal services ask.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use ladrillo_transport::program::callback;

use super::node::{Client, Node, is_local_address};
use crate::brick::hash;
use crate::net::record;
use crate::net::rpc::{self, CALLBACK_PROGRAM, Garbage, Input, put_opaque};
use crate::state::model::Volume;
use crate::volgen::{self, names};

/// Longest key of a volfile. Source: our bound; GlusterFS's is NAME_MAX for a volume, and a brick's key holds its path.
const MAX_KEY_BYTES: usize = 8192;
/// Longest extra data we look past.
const MAX_XDATA_BYTES: usize = 1 << 20;
/// Most keys one connection is told of.
const MAX_KEYS: usize = 64;

/// GlusterFS numbers errnos of replies by its own table; for these it is Linux's. Source: gf_errno_to_error.
const ENOENT: i32 = libc::ENOENT;

impl Node {
    /// Answers the handshake program, version 2.
    ///
    /// # Errors
    /// [`Garbage`] when arguments do not decode; `Ok(None)` for a procedure we do not have.
    pub fn handshake(&self, procedure: u32, body: Bytes, client: &Rc<Client>) -> Result<Option<Vec<u8>>, Garbage> {
        let mut input = Input(body);
        match procedure {
            // NULL and PING
            0 => Ok(Some(Vec::new())),
            3 => {
                let mut out = words(&[0, 0]);
                put_opaque(&mut out, b"");
                Ok(Some(out))
            }
            // GETSPEC
            2 => {
                let _flags = input.u32()?;
                let key = input.string(MAX_KEY_BYTES)?;
                let _xdata = input.opaque(MAX_XDATA_BYTES)?;
                Ok(Some(self.getspec(&key, client)))
            }
            // EVENT_NOTIFY: a client reports a change of state; nothing is kept of it.
            5 => {
                let mut out = words(&[0, 0]);
                put_opaque(&mut out, b"");
                Ok(Some(out))
            }
            // GET_VOLUME_INFO: a dictionary with `volname`, `flags`; the answer holds `volume_id`.
            6 => {
                let asked = input.opaque(MAX_XDATA_BYTES)?;
                Ok(Some(self.get_volume_info(&asked)))
            }
            _ => Ok(None),
        }
    }

    fn getspec(&self, key: &str, client: &Rc<Client>) -> Vec<u8> {
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
                let mut out = words(&[i32::try_from(text.len()).unwrap_or(i32::MAX), 0]);
                put_opaque(&mut out, text.as_bytes());
                put_opaque(&mut out, &self.servers_list());
                out
            }
            Err(reason) => {
                tracing::warn!("volfile {key} for {}: {reason}", describe(client));
                let mut out = words(&[-1, ENOENT]);
                put_opaque(&mut out, b"");
                put_opaque(&mut out, b"");
                out
            }
        }
    }

    /// Whether a caller is on this machine and so gets the credentials of the pool's own processes.
    fn is_local_caller(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            v4 => v4,
        };
        is_local_address(address)
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
            return Ok(self.store.with_state(|state| volgen::client(state, &volume, trusted)));
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

    /// GlusterFS's `servers-list` (a dictionary of one string): the other servers a client may ask, `host:port `.
    fn servers_list(&self) -> Vec<u8> {
        let servers: String = self
            .others()
            .iter()
            .filter(|peer| self.is_connected(peer.uuid))
            .map(|peer| format!("{}:{} ", peer.name(), peer.port))
            .collect();
        if servers.is_empty() { Vec::new() } else { dictionary(&[("servers-list", servers.as_bytes())]) }
    }

    fn get_volume_info(&self, asked: &[u8]) -> Vec<u8> {
        let name = dictionary_get(asked, "volname");
        let volume = name.and_then(|name| self.store.with_state(|state| state.volumes.get(&name).cloned()));
        match volume {
            Some(volume) => {
                let mut out = words(&[0, 0]);
                put_opaque(&mut out, b"");
                put_opaque(&mut out, &dictionary(&[("volume_id", volume.id.to_string().as_bytes())]));
                out
            }
            None => {
                let mut out = words(&[-1, libc::EINVAL]);
                put_opaque(&mut out, b"Volume does not exist");
                put_opaque(&mut out, b"");
                out
            }
        }
    }

    /// Answers the portmap program, version 1.
    ///
    /// # Errors
    /// [`Garbage`] when arguments do not decode; `Ok(None)` for a procedure we do not have.
    pub fn portmap(&self, procedure: u32, body: Bytes, client: &Rc<Client>) -> Result<Option<Vec<u8>>, Garbage> {
        let mut input = Input(body);
        match procedure {
            0 => Ok(Some(Vec::new())),
            // PORTBYBRICK
            1 => {
                let brick = input.string(MAX_KEY_BYTES)?;
                Ok(Some(match self.port_of(&brick) {
                    Some(port) => words(&[0, 0, 1, i32::from(port)]),
                    None => words(&[-1, ENOENT, 0, 0]),
                }))
            }
            // BRICKBYPORT
            2 => {
                let port = input.i32()?;
                let brick = self.store.local().ports.into_iter().find(|(_, known)| i32::from(*known) == port);
                let mut out = words(&[if brick.is_some() { 0 } else { -1 }, 0, i32::from(brick.is_some())]);
                put_opaque(&mut out, brick.map(|(path, _)| path).unwrap_or_default().as_bytes());
                Ok(Some(out))
            }
            // SIGNIN
            4 => {
                let (brick, port) = (input.string(MAX_KEY_BYTES)?, input.i32()?);
                let port = u16::try_from(port).ok().filter(|port| *port > 0);
                // Only this machine's bricks, and only those we know, may say where they are.
                let known = self.store.with_state(|state| {
                    state.volumes.values().any(|volume| self.own_bricks(volume).iter().any(|own| own.path == brick))
                });
                let local = client.address.is_none_or(|address| self.is_local_caller(address));
                if let (Some(port), true, true) = (port, known, local) {
                    tracing::info!("brick {brick} is up on port {port}");
                    self.signed_in.borrow_mut().insert(brick.clone(), port);
                    if let Err(error) = self.update_local(|state| {
                        state.ports.insert(brick, port);
                    }) {
                        tracing::error!("{error}");
                    }
                }
                Ok(Some(words(&[0, 0])))
            }
            // SIGNOUT
            5 => {
                let brick = input.string(MAX_KEY_BYTES)?;
                let local = client.address.is_none_or(|address| self.is_local_caller(address));
                if local {
                    self.signed_in.borrow_mut().remove(&brick);
                }
                Ok(Some(words(&[0, 0])))
            }
            _ => Ok(None),
        }
    }

    /// The port of a brick of this node that runs.
    fn port_of(&self, path: &str) -> Option<u16> {
        let ports = self.store.local().ports;
        let (volume, brick) = self.store.with_state(|state| {
            state.volumes.values().find_map(|volume| {
                let brick = self.own_bricks(volume).into_iter().find(|brick| brick.path == path)?.clone();
                Some((volume.clone(), brick))
            })
        })?;
        self.brick_daemon(&volume, &brick, 0).pid()?;
        let signed_in = self.signed_in.borrow().get(path).copied();
        signed_in.or_else(|| ports.get(path).copied())
    }

    /// Answers the dump program, version 1: which programs there are.
    ///
    /// # Errors
    /// [`Garbage`] when arguments do not decode; `Ok(None)` for a procedure we do not have.
    pub fn dump(&self, procedure: u32, body: Bytes) -> Result<Option<Vec<u8>>, Garbage> {
        match procedure {
            0 => Ok(Some(Vec::new())),
            // DUMP: gfsid in; gfsid, op_ret, op_errno, then a list of (next, name, number, version) out.
            1 => {
                let mut input = Input(body);
                let id: Vec<u8> = (0..2)
                    .map(|_| input.u32())
                    .collect::<Result<Vec<_>, _>>()?
                    .iter()
                    .flat_map(|word| word.to_be_bytes())
                    .collect();
                let mut out = id;
                out.extend(words(&[0, 0]));
                for (name, program, version) in [
                    ("GlusterFS Handshake", rpc::HANDSHAKE_PROGRAM, 2u64),
                    ("Gluster Portmap", rpc::PORTMAP_PROGRAM, 1),
                    ("GF-DUMP", rpc::DUMP_PROGRAM, 1),
                    ("Ladrillo CLI", rpc::CLI_PROGRAM, 1),
                    ("Ladrillo peer", rpc::PEER_PROGRAM, 1),
                ] {
                    out.extend_from_slice(&1u32.to_be_bytes());
                    put_opaque(&mut out, name.as_bytes());
                    out.extend_from_slice(&u64::from(program).to_be_bytes());
                    out.extend_from_slice(&version.to_be_bytes());
                }
                out.extend_from_slice(&0u32.to_be_bytes());
                Ok(Some(out))
            }
            _ => Ok(None),
        }
    }

    /// Sends an event to the heal service of a volume on this node; whether there is one to hear it.
    pub async fn tell_heal_service(&self, volume: &str, event: i32) -> bool {
        let key = format!("shd/{volume}");
        let clients: Vec<Rc<Client>> = self.clients.borrow().iter().filter_map(std::rc::Weak::upgrade).collect();
        let mut body = words(&[event]);
        put_opaque(&mut body, b"");
        let call = rpc::encode_call(next_xid(), CALLBACK_PROGRAM, 1, callback::PROC_EVENT_NOTIFY, &body);
        let Ok(record) = record::mark(&call) else { return false };
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
            if changed {
                if let Ok(record) = record::mark(&rpc::encode_call(next_xid(), CALLBACK_PROGRAM, 1, 1, b""))
                    && client.outgoing.try_send(record).is_err()
                {
                    tracing::warn!("{} does not read; it is not told of its new volfile", describe(&client));
                }
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

fn words(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// GlusterFS's dictionary of strings. Source: dict_serialize: count, then key length, value length, key, NUL, value; strings
/// carry their NUL.
fn dictionary(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = words(&[i32::try_from(pairs.len()).unwrap_or(0)]);
    for (key, value) in pairs {
        out.extend(words(&[i32::try_from(key.len()).unwrap_or(0), i32::try_from(value.len() + 1).unwrap_or(0)]));
        out.extend_from_slice(key.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// A string of such a dictionary.
fn dictionary_get(data: &[u8], wanted: &str) -> Option<String> {
    let mut rest = data;
    let word = |rest: &mut &[u8]| -> Option<usize> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        usize::try_from(u32::from_be_bytes(*head)).ok()
    };
    let count = word(&mut rest)?;
    for _ in 0..count.min(1024) {
        let (key_length, value_length) = (word(&mut rest)?, word(&mut rest)?);
        let key = rest.get(..key_length)?;
        let value = rest.get(key_length + 1..(key_length + 1).checked_add(value_length)?)?;
        if key == wanted.as_bytes() {
            let text = value.strip_suffix(b"\0").unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        rest = rest.get(key_length + 1 + value_length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_reads_back_and_cuts_are_no_panic() {
        let data = dictionary(&[("a", b"1"), ("volname", b"gv0")]);
        assert_eq!(dictionary_get(&data, "volname").as_deref(), Some("gv0"));
        for length in 0..data.len() {
            assert_eq!(dictionary_get(&data[..length], "volname"), None, "{length}");
        }
    }
}
