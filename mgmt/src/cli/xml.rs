//! Answers as XML: GlusterFS's elements in its order, indented as libxml2 does.

use quick_xml::escape::partial_escape;

use super::text::{is_arbiter, volume_state, volume_type};
use super::volume::about::{self, Table};
use crate::api::{Failure, PeerInfo, ProcessStatus, VolumeInfo, VolumeStatus};
use crate::option::{HELP, Help};

/// How a document begins.
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>";

/// A `<cliOutput>` being written.
pub(super) struct Document {
    text: String,
    open: Vec<&'static str>,
    /// Whether the innermost open element has nothing in it yet.
    empty: bool,
}

/// Escapes what may not stand in text; characters XML cannot hold at all become U+FFFD.
fn escaped(text: &str) -> String {
    let legal = |c: char| matches!(c, '\t' | '\n' | '\r') || c >= ' ' && c != '\u{fffe}' && c != '\u{ffff}';
    let clean: String = text.chars().map(|c| if legal(c) { c } else { '\u{fffd}' }).collect();
    partial_escape(clean.as_str()).replace('\r', "&#13;").replace('"', "&quot;")
}

impl Document {
    /// Begins with how the command went.
    pub(super) fn new(op_ret: i32, op_errno: i32, message: &str) -> Document {
        Document::begin().text("opRet", op_ret).text("opErrno", op_errno).text("opErrstr", message)
    }

    fn begin() -> Document {
        let text = format!("{DECLARATION}\n<cliOutput>");
        Document { text, open: vec!["cliOutput"], empty: false }
    }

    fn line(&mut self) {
        if self.empty {
            self.text.push('>');
            self.empty = false;
        }
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(self.open.len()));
    }

    /// `<name>value</name>`
    pub(super) fn text(mut self, name: &'static str, value: impl ToString) -> Document {
        self.line();
        let value = value.to_string();
        if value.is_empty() {
            self.text += &format!("<{name}/>");
        } else {
            self.text += &format!("<{name}>{}</{name}>", escaped(&value));
        }
        self
    }

    /// `<name>`, what follows inside it.
    pub(super) fn open(mut self, name: &'static str) -> Document {
        self.line();
        self.text += &format!("<{name}");
        self.open.push(name);
        self.empty = true;
        self
    }

    /// Ends the innermost element.
    pub(super) fn close(mut self) -> Document {
        let Some(name) = self.open.pop() else { return self };
        if self.empty {
            self.text.push_str("/>");
            self.empty = false;
        } else {
            self.text.push('\n');
            self.text.push_str(&"  ".repeat(self.open.len()));
            self.text += &format!("</{name}>");
        }
        self
    }

    /// One line that is XML already.
    fn raw(mut self, line: &str) -> Document {
        self.line();
        self.text.push_str(line);
        self
    }

    fn each<T>(self, items: &[T], write: impl Fn(Document, &T) -> Document) -> Document {
        items.iter().fold(self, write)
    }

    /// Ends whatever is open.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self = self.close();
        }
        self.text + "\n"
    }
}

/// GlusterFS's errno for what glusterd refuses (`EG_INTRNL`), whatever the reason.
const REFUSED: i32 = 30800;

/// A failure, ready for what a command adds. Scripts see GlusterFS's number; the reason is in the words.
pub(super) fn failure(failure: &Failure) -> Document {
    Document::new(failure.op_ret, if failure.op_errno == 0 { 0 } else { REFUSED }, &failure.message)
}

/// `peer status`, `pool list`
pub(super) fn peers(peers: &[PeerInfo]) -> String {
    Document::new(0, 0, "")
        .open("peerStatus")
        .each(peers, |document, peer| {
            let mut document = document.open("peer").text("uuid", &peer.uuid);
            if peer.is_self {
                return document.text("hostname", "localhost").text("connected", 1).close();
            }
            document = document.text("hostname", peer.hostnames.first().map_or("", String::as_str));
            document = document.open("hostnames").each(&peer.hostnames, |d, name| d.text("hostname", name)).close();
            document
                .text("connected", i32::from(peer.connected))
                .text("state", peer.state)
                .text("stateStr", &peer.state_text)
                .close()
        })
        .finish()
}

/// `volume create`, `start`, `stop`, `delete`: `element` is `volCreate`...
pub(super) fn volume(element: &'static str, name: &str, id: &str) -> String {
    Document::new(0, 0, "").open(element).open("volume").text("name", name).text("id", id).finish()
}

/// `volume list`
pub(super) fn volume_list(names: &[String]) -> String {
    Document::new(0, 0, "")
        .open("volList")
        .text("count", names.len())
        .each(names, |document, name| document.text("volume", name))
        .finish()
}

/// `volume info`; `document` says how it went.
pub(super) fn volume_info(document: Document, volumes: &[VolumeInfo]) -> String {
    document.open("volInfo").open("volumes").each(volumes, one_volume).text("count", volumes.len()).finish()
}

fn one_volume(document: Document, volume: &VolumeInfo) -> Document {
    let (kind, kind_name) = volume_type(volume);
    let bricks = volume.bricks.len();
    let replica = volume.replica.max(1);
    let mut document = document
        .open("volume")
        .text("name", &volume.name)
        .text("id", &volume.id)
        .text("status", volume.status)
        .text("statusStr", volume_state(volume.status))
        .text("snapshotCount", volume.snapshot_count)
        .text("brickCount", bricks)
        .text("distCount", bricks / replica as usize)
        .text("replicaCount", replica)
        .text("arbiterCount", volume.arbiter)
        .text("disperseCount", 0)
        .text("redundancyCount", 0)
        .text("type", kind)
        .text("typeStr", kind_name)
        .text("transport", transport(&volume.transport))
        .open("bricks");
    for (index, brick) in volume.bricks.iter().enumerate() {
        let arbiter = i32::from(is_arbiter(volume, index));
        let name = escaped(&format!("{}:{}", brick.host, brick.path));
        let uuid = escaped(&brick.host_uuid);
        document = document.raw(&format!(
            "<brick uuid=\"{uuid}\">{name}<name>{name}</name><hostUuid>{uuid}</hostUuid><isArbiter>{arbiter}</isArbiter></brick>",
        ));
    }
    document = document.close().text("optCount", volume.options.len());
    if !volume.options.is_empty() {
        document = document
            .open("options")
            .each(&volume.options, |d, (name, value)| d.open("option").text("name", name).text("value", value).close())
            .close();
    }
    document.close()
}

fn transport(name: &str) -> i32 {
    match name {
        "rdma" => 1,
        "tcp,rdma" | "rdma,tcp" => 2,
        // Ours: GlusterFS never had it.
        "sdp" => 100,
        _ => 0,
    }
}

/// `volume status`; that of single processes says nothing of tasks.
pub(super) fn volume_status(volumes: &[VolumeStatus], with_tasks: bool) -> String {
    Document::new(0, 0, "")
        .open("volStatus")
        .open("volumes")
        .each(volumes, |document, volume| {
            let document = document
                .open("volume")
                .text("volName", &volume.name)
                .text("nodeCount", volume.processes.len())
                .each(&volume.processes, |document, process| one_process(document, process).close());
            let document = if with_tasks { document.open("tasks").close() } else { document };
            document.close()
        })
        .finish()
}

fn one_process(document: Document, process: &ProcessStatus) -> Document {
    let shown =
        |port: Option<u16>| port.filter(|_| process.online).map_or_else(|| "N/A".to_owned(), |port| port.to_string());
    let (port, rdma) = (shown(process.tcp_port), shown(process.rdma_port));
    let brick = process.kind == "Brick";
    let (hostname, path) = if brick { (&process.host, &process.path) } else { (&process.kind, &process.path) };
    document
        .open("node")
        .text("hostname", hostname)
        .text("path", path)
        .text("peerid", &process.peer_uuid)
        .text("status", i32::from(process.online))
        .text("port", &port)
        .open("ports")
        .text("tcp", &port)
        .text("rdma", &rdma)
        .close()
        .text("pid", process.pid.filter(|_| process.online).map_or(-1, i64::from))
}

/// `volume status V detail` and its like.
pub(super) fn volume_table(volumes: &[VolumeStatus], table: Table, whole: bool) -> String {
    Document::new(0, 0, "")
        .open("volStatus")
        .open("volumes")
        .each(volumes, |document, volume| {
            let bricks: Vec<&ProcessStatus> = volume.processes.iter().filter(|p| p.kind == "Brick").collect();
            // What is asked of brick processes GlusterFS counts twice, but for one.
            let is_asked = !matches!(table, Table::Detail | Table::ClientList);
            let count = if is_asked && whole { (2 * bricks.len()).saturating_sub(1) } else { bricks.len() };
            document
                .open("volume")
                .text("volName", &volume.name)
                .text("nodeCount", count)
                .each(&bricks, |document, brick| about::xml(one_process(document, brick), brick, table).close())
                .close()
        })
        .finish()
}

/// `volume status V tasks`
pub(super) fn volume_tasks(volumes: &[VolumeStatus]) -> String {
    Document::new(0, 0, "")
        .open("volStatus")
        .open("volumes")
        .each(volumes, |d, volume| d.open("volume").text("volName", &volume.name).open("tasks").close().close())
        .finish()
}

/// `volume get`
pub(super) fn options(options: &[(String, String)]) -> String {
    Document::new(0, 0, "")
        .open("volGetopts")
        .text("count", options.len())
        .each(options, |d, (name, value)| d.open("Opt").text("Option", name).text("Value", value).close())
        .finish()
}

/// `cliOp` and `output`, of the commands whose answer is a sentence.
pub(super) fn sentence(document: Document, operation: &'static str, output: &str) -> String {
    document.text("cliOp", operation).text("output", output).finish()
}

/// `volume set help-xml`: a document of its own, in one line.
pub(super) fn option_help() -> String {
    let options: String = HELP
        .iter()
        .map(|Help(key, default, what)| {
            let (key, default, what) = (escaped(key), escaped(default), escaped(what));
            format!(
                "<option><defaultValue>{default}</defaultValue><description>{what}</description><name>{key}</name></option>"
            )
        })
        .collect();
    format!("{DECLARATION}\n<options>{options}</options>\n")
}
