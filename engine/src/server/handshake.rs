//! SETVOLUME and its kin. Source of the rules: server-handshake.c of GlusterFS 10.3.

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::{Dict, Gfid, Value};
use ladrillo_transport::Message;
use ladrillo_transport::program::{extension, fop4, handshake as wire};
use ladrillo_transport::rpc::{AcceptStatus, CallHeader};

use super::auth::{Refusal, authenticate};
use super::subdir::Subdir;
use super::{Client, Mounting};

/// A client that may use the brick.
pub struct Admitted {
    /// Its process-uuid.
    pub uid: String,
    /// The translator it is bound to.
    pub subvolume: String,
    /// The directory it mounts.
    subdir: String,
    /// It gave the pool's own name and password.
    pub trusted: bool,
    /// The name and password it gave.
    pub(super) proof: Dict,
    version: String,
    /// What its process calls itself, and the operating version it reports.
    pub(super) process_name: String,
    pub(super) op_version: u32,
}

impl Admitted {
    /// The directory it mounts; `/` is the volume.
    pub fn subdir(&self) -> &str {
        &self.subdir
    }
}

impl Client {
    pub(super) fn handshake(&mut self, header: &CallHeader, body: Bytes) {
        let answer = match header.procedure {
            0 => Ok(Message::default()),
            wire::PROC_SETVOLUME => match wire::Setvolume::decode(body) {
                Ok(request) => match self.set_volume(header.xid, request.dict) {
                    Some(answer) => Ok(answer),
                    // Answered when the directory is found.
                    None => return,
                },
                Err(e) => Err(e),
            },
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

    /// The answer, or `None` where a directory has to be looked up first.
    fn set_volume(&mut self, xid: u32, request: Dict) -> Option<Message> {
        let mut answer = Dict::new();
        self.extended = request.int(extension::SETVOLUME_KEY) == Some(i64::from(extension::VERSION));
        let outcome = self.admit(&request, &mut answer).map(|admitted| match Subdir::parse(admitted.subdir()) {
            None => {
                self.enter(admitted, None);
                true
            }
            Some(subdir) => {
                self.mounting = Some(Mounting { xid, subdir, admitted, answer: answer.clone() });
                false
            }
        });
        match outcome {
            Ok(false) => None,
            Ok(true) => {
                self.fill(&mut answer);
                Some(wire::Answer { op_ret: 0, op_errno: 0, dict: answer }.encode())
            }
            Err(refusal) => Some(self.refusal(answer, refusal)),
        }
    }

    fn refusal(&self, mut answer: Dict, (errno, sentence): Refusal) -> Message {
        tracing::warn!(peer = %self.outgoing.peer(), errno, reason = %sentence, "client refused");
        answer.set_str("ERROR", sentence);
        wire::Answer { op_ret: -1, op_errno: errno, dict: answer }.encode()
    }

    /// Looks up the directory a client mounts, and answers its SETVOLUME.
    pub(super) async fn mount(&mut self, mounting: Mounting) {
        let Mounting { xid, subdir, admitted, mut answer } = mounting;
        let top = self.shared.graph.top();
        let body = match subdir.find(&*top).await {
            Ok(root) => {
                self.enter(admitted, Some(root));
                self.fill(&mut answer);
                wire::Answer { op_ret: 0, op_errno: 0, dict: answer }.encode()
            }
            Err(e) => {
                tracing::debug!(error = %e, "looking up the directory of a mount");
                let sentence = format!("subdirectory for mount \"{}\" is not found", admitted.subdir());
                self.refusal(answer, (errno::ENOENT, sentence))
            }
        };
        self.reply(xid, AcceptStatus::Success, body);
    }

    /// Makes the connection one of the client's session.
    fn enter(&mut self, admitted: Admitted, root: Option<Gfid>) {
        if self.session.is_none() {
            self.session = Some(self.shared.join(&admitted, root, &self.outgoing));
            self.outgoing.admit();
            tracing::info!(
                client = %admitted.uid, peer = %self.outgoing.peer(), version = %admitted.version,
                medium = %self.outgoing.medium(), subdir = %admitted.subdir(), trusted = admitted.trusted, "accepted client"
            );
            // The rules may have changed since it was admitted, before it was to be seen.
            if let Some(session) = &self.session {
                self.shared.cut_refused([session]);
            }
        }
    }

    fn admit(&self, request: &Dict, answer: &mut Dict) -> Result<Admitted, Refusal> {
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
        let subdir = Subdir::normal(request.text("subdir-mount").unwrap_or("/"));
        if subdir.len() > libc::PATH_MAX as usize {
            return Err((errno::EINVAL, "the path of the mount is too long".to_owned()));
        }
        let (options, hosts) = (graph.server_options(), graph.hosts());
        let trusted = authenticate(&options, hosts, &subvolume, &subdir, self.peer, request)?;
        let version = text("client-version").unwrap_or_else(|| "?".to_owned());
        // A name is shown to people; a longer one is no name.
        let process_name = request.text("process-name").unwrap_or_default().chars().take(64).collect();
        let op_version = request.int("opversion").and_then(|version| u32::try_from(version).ok()).unwrap_or(0);
        let mut proof = Dict::new();
        for key in ["username", "password"] {
            if let Some(said) = request.text(key) {
                proof.set_str(key, said.to_owned());
            }
        }
        let admitted = Admitted { uid, subvolume, subdir, trusted, proof, version, process_name, op_version };
        // A second SETVOLUME on one connection changes nothing for the same client, and is refused for another.
        if self.session.as_ref().is_some_and(|session| !session.is_of(&admitted)) {
            return Err((errno::EINVAL, "this connection belongs to another client already".to_owned()));
        }
        Ok(admitted)
    }

    fn fill(&self, answer: &mut Dict) {
        // Clients read the key "ERROR" and expect this word in it.
        answer.set_str("ERROR", "Success");
        answer.set_str("process-uuid", self.shared.process_uuid.clone());
        answer.set("clnt-lk-version", Value::Uint(0));
        answer.set("transport-ptr", Value::Uint(1));
    }
}
