//! SETVOLUME and its kin: who may use this brick. Source of the rules: server-handshake.c, auth/addr and auth/login of
//! GlusterFS 10.3.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::option::Options;
use ladrillo_translator::{Dict, Value};
use ladrillo_transport::Message;
use ladrillo_transport::program::{fop4, handshake as wire};
use ladrillo_transport::rpc::{AcceptStatus, CallHeader};

use super::Client;
use crate::host_names::{HostNames, is_host_name};

/// A refusal: errno and the sentence the client logs.
type Refusal = (i32, String);

impl Client {
    pub(super) fn handshake(&mut self, header: &CallHeader, body: Bytes) {
        let answer = match header.procedure {
            0 => Ok(Message::default()),
            wire::PROC_SETVOLUME => wire::Setvolume::decode(body).map(|request| self.set_volume(&request.dict)),
            wire::PROC_PING => Ok(ladrillo_transport::program::dump::PingReply::default().encode()),
            wire::PROC_SET_LK_VER => wire::SetLkVer::decode(body)
                .map(|request| wire::SetLkVerReply { op_ret: 0, op_errno: 0, lk_ver: request.lk_ver }.encode()),
            // A brick has no volfiles; clients ask glusterd.
            wire::PROC_GETSPEC => wire::Getspec::decode(body).map(|_| {
                wire::GetspecReply { op_ret: -1, op_errno: errno::ENOENT, ..wire::GetspecReply::default() }.encode()
            }),
            _ => return self.refuse(header.xid, AcceptStatus::ProcUnavail),
        };
        match answer {
            Ok(body) => self.reply(header.xid, AcceptStatus::Success, body),
            Err(e) => {
                tracing::warn!(peer = %self.outgoing.peer(), error = %e, "garbage arguments in a handshake");
                self.refuse(header.xid, AcceptStatus::GarbageArgs);
            }
        }
    }

    fn set_volume(&mut self, request: &Dict) -> Message {
        let mut answer = Dict::new();
        let (op_ret, op_errno) = match self.admit(request, &mut answer) {
            Ok(()) => (0, 0),
            Err((errno, sentence)) => {
                tracing::warn!(peer = %self.outgoing.peer(), errno, reason = %sentence, "client refused");
                answer.set_str("ERROR", sentence);
                (-1, errno)
            }
        };
        wire::Answer { op_ret, op_errno, dict: answer }.encode()
    }

    fn admit(&mut self, request: &Dict, answer: &mut Dict) -> Result<(), Refusal> {
        let text = |key: &str| request.text(key).map(str::to_owned);
        let subvolume =
            text("remote-subvolume").ok_or((errno::EINVAL, "No remote-subvolume option specified".to_owned()))?;
        let graph = self.shared.graph.clone();
        if !graph.exports(&subvolume) {
            return Err((errno::ENOENT, format!("remote-subvolume \"{subvolume}\" is not found")));
        }
        let up = graph.is_up();
        answer.set_int("child_up", i64::from(up));
        if !up {
            return Err((errno::EAGAIN, "Not received child_up for this xlator".to_owned()));
        }
        let uid = text("process-uuid").ok_or((errno::EINVAL, "UUID not specified".to_owned()))?;
        if uid.len() > 1024 {
            return Err((errno::EINVAL, "UUID is too long".to_owned()));
        }
        if let Some(ours) = graph.volume_id() {
            if let Some(theirs) = text("volume-id")
                && theirs != ours.to_string()
            {
                return Err((
                    errno::EINVAL,
                    "Volume-ID different, possible case of same brick re-used in another volume".to_owned(),
                ));
            }
            answer.set_str("volume-id", ours.to_string());
        }
        match request.int("fops-version") {
            None => return Err((errno::EINVAL, "No FOP version number specified".to_owned())),
            Some(version) if version != i64::from(fop4::PROGRAM) => {
                let management = request.int("mgmt-version").unwrap_or(0);
                return Err((
                    errno::EINVAL,
                    format!("version mismatch: client({version}) - client-mgmt({management})"),
                ));
            }
            Some(_) => {}
        }
        if text("subdir-mount").is_some_and(|d| !d.is_empty() && d != "/") {
            return Err((errno::EOPNOTSUPP, "mounting a sub-directory is not supported by this brick yet".to_owned()));
        }
        authenticate(&graph.server_options(), graph.hosts(), &subvolume, self.peer, request)?;
        if self.session.is_some() {
            // A second SETVOLUME on one connection changes nothing for the same client, and is refused for another.
            if self.session.as_ref().is_some_and(|s| s.uid == uid && s.subvolume == subvolume) {
                self.fill(answer);
                return Ok(());
            }
            return Err((errno::EINVAL, "this connection belongs to another client already".to_owned()));
        }
        let session = self.shared.join(&uid, &subvolume, &self.outgoing);
        tracing::info!(
            client = %uid, peer = %self.outgoing.peer(), version = request.text("client-version").unwrap_or("?"),
            "accepted client"
        );
        self.session = Some(session);
        self.fill(answer);
        Ok(())
    }

    fn fill(&self, answer: &mut Dict) {
        // Clients read the key "ERROR" and expect this word in it.
        answer.set_str("ERROR", "Success");
        answer.set_str("process-uuid", self.shared.process_uuid.clone());
        answer.set("clnt-lk-version", Value::Uint(0));
        answer.set("transport-ptr", Value::Uint(1));
    }
}

/// auth.addr.SUBVOLUME.allow and .reject, auth.login.SUBVOLUME.allow with auth.login.USER.password. As stock: a module
/// that rejects wins; one that accepts suffices; a volfile without any auth option admits (hand-written ones).
fn authenticate(
    options: &Options,
    hosts: &HostNames,
    subvolume: &str,
    peer: Option<SocketAddr>,
    request: &Dict,
) -> Result<(), Refusal> {
    let refuse = || Err((errno::EACCES, "Authentication failed".to_owned()));
    let address = peer.map(|p| p.ip().to_canonical());
    let port = peer.map_or(0, |p| p.port());
    let listed = |list: &str| list.split(',').map(str::trim).any(|pattern| address_matches(pattern, address, hosts));
    if options.get(&format!("auth.addr.{subvolume}.reject")).is_some_and(listed) {
        return refuse();
    }
    let addr_allow = options.get(&format!("auth.addr.{subvolume}.allow"));
    let login_allow = options.get(&format!("auth.login.{subvolume}.allow"));
    if port >= 1024 && options.get("rpc-auth-allow-insecure") == Some("off") {
        return refuse();
    }
    if let Some(users) = login_allow
        && let Some(user) = request.text("username")
    {
        if !users.split(',').any(|u| u.trim() == user) {
            return refuse();
        }
        let expected = options.get(&format!("auth.login.{user}.password"));
        return match (expected, request.text("password")) {
            (Some(expected), Some(given)) if same(expected, given) => Ok(()),
            _ => refuse(),
        };
    }
    match (addr_allow, login_allow) {
        (Some(list), _) if listed(list) => Ok(()),
        (None, None) => Ok(()),
        _ => refuse(),
    }
}

/// Compares secrets in a time that does not tell how much of them agrees.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// `*`, `192.168.*`, a literal address, a network `10.0.0.0/8`, or a host's name; `!` before it negates. A name whose
/// addresses are not known matches nobody, negated or not.
fn address_matches(pattern: &str, address: Option<IpAddr>, hosts: &HostNames) -> bool {
    if let Some(rest) = pattern.strip_prefix('!') {
        let known = !is_host_name(rest) || hosts.addresses(rest).is_some();
        return known && !address_matches(rest, address, hosts);
    }
    // No IP at all (a socketpair): patterns may still admit everybody.
    let Some(address) = address else { return pattern == "*" };
    if is_host_name(pattern) {
        return hosts.addresses(pattern).is_some_and(|found| found.contains(&address));
    }
    if let Ok(literal) = pattern.parse::<IpAddr>() {
        return literal.to_canonical() == address;
    }
    if let Some((network, bits)) = pattern.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>())
    {
        return match (network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                u32::from(n) & mask == u32::from(a) & mask
            }
            (IpAddr::V6(n), IpAddr::V6(a)) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                u128::from(n) & mask == u128::from(a) & mask
            }
            _ => false,
        };
    }
    crate::storage::matches_pattern(pattern.as_bytes(), address.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_match_as_glusterfs_writes_them() {
        let hosts = HostNames::default();
        hosts.take(&Options::new().with("auth.addr./b.allow", "localhost"));
        for (pattern, address, expected) in [
            ("*", "10.0.0.1", true),
            ("10.0.*", "10.0.3.4", true),
            ("10.0.*", "10.1.3.4", false),
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("!10.0.0.1", "10.0.0.1", false),
            ("fd00::/8", "fd12::1", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("fd00:0:0::1", "fd00::1", true),
            ("localhost", "127.0.0.1", true),
            ("localhost", "10.0.0.1", false),
            ("!localhost", "10.0.0.1", true),
            ("!localhost", "127.0.0.1", false),
            ("not-resolved", "10.0.0.1", false),
            ("!not-resolved", "10.0.0.1", false),
        ] {
            assert_eq!(address_matches(pattern, address.parse().ok(), &hosts), expected, "{pattern} {address}");
        }
    }

    #[test]
    fn login_needs_the_password_of_the_volfile() {
        let options = Options::new().with("auth.login./b.allow", "u").with("auth.login.u.password", "secret");
        let request = |user: &str, password: &str| {
            let mut dict = Dict::new();
            dict.set_str("username", user.to_owned());
            dict.set_str("password", password.to_owned());
            dict
        };
        let hosts = HostNames::default();
        let peer = "10.0.0.1:1000".parse().ok();
        assert!(authenticate(&options, &hosts, "/b", peer, &request("u", "secret")).is_ok());
        assert!(authenticate(&options, &hosts, "/b", peer, &request("u", "wrong")).is_err());
        assert!(authenticate(&options, &hosts, "/b", peer, &request("v", "secret")).is_err());
        assert!(authenticate(&options, &hosts, "/b", peer, &Dict::new()).is_err());
        assert!(authenticate(&Options::new(), &hosts, "/b", peer, &Dict::new()).is_ok());
    }
}
