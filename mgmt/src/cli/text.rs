//! Answers as text, byte for byte as GlusterFS 10.3 prints them.

use crate::api::{PeerInfo, ProcessStatus, VolumeInfo, VolumeStatus};
use crate::option::{HELP, Help};

/// Width of the first column of `volume status`, bytes.
const PROCESS_WIDTH: usize = 43;
/// Length of its rules.
const RULE: usize = 78;

fn connected(peer: &PeerInfo) -> &'static str {
    if peer.connected { "Connected" } else { "Disconnected" }
}

fn shown_name(peer: &PeerInfo) -> &str {
    if peer.is_self { "localhost" } else { peer.hostnames.first().map_or("", String::as_str) }
}

/// `peer status`
pub(super) fn peer_status(peers: &[PeerInfo]) -> String {
    let mut text = format!("Number of Peers: {}\n", peers.len());
    for peer in peers {
        text += &format!(
            "\nHostname: {}\nUuid: {}\nState: {} ({})\n",
            shown_name(peer),
            peer.uuid,
            peer.state_text,
            connected(peer)
        );
        if let Some((_, others)) = peer.hostnames.split_first()
            && !others.is_empty()
        {
            text += "Other names:\n";
            for name in others {
                text += &format!("{name}\n");
            }
        }
    }
    text
}

/// `pool list`
pub(super) fn pool_list(peers: &[PeerInfo]) -> String {
    let width = peers.iter().map(|p| shown_name(p).len()).max().unwrap_or(0).max(8);
    let mut text = format!("UUID\t\t\t\t\t{:<width$}\tState\n", "Hostname");
    for peer in peers {
        text += &format!("{}\t{:<width$}\t{} \n", peer.uuid, shown_name(peer), connected(peer));
    }
    text
}

/// GlusterFS's number for a kind of volume and its name.
pub(super) fn volume_type(volume: &VolumeInfo) -> (i32, &'static str) {
    match (volume.replica, volume.bricks.len()) {
        (0 | 1, _) => (0, "Distribute"),
        (replica, bricks) if bricks > replica as usize => (7, "Distributed-Replicate"),
        _ => (2, "Replicate"),
    }
}

/// Whether the brick at `index` is the arbiter of its set.
pub(super) fn is_arbiter(volume: &VolumeInfo, index: usize) -> bool {
    let replica = volume.replica.max(1) as usize;
    volume.arbiter > 0 && index % replica == replica - 1
}

/// `Created`, `Started`, `Stopped`.
pub(super) fn volume_state(status: i32) -> &'static str {
    match status {
        0 => "Created",
        1 => "Started",
        _ => "Stopped",
    }
}

/// One volume of `volume info`.
pub(super) fn volume_info(volume: &VolumeInfo) -> String {
    let (_, kind) = volume_type(volume);
    let bricks = volume.bricks.len();
    let number = match (volume.replica as usize, volume.arbiter as usize) {
        (0 | 1, _) => bricks.to_string(),
        (replica, 0) => format!("{} x {replica} = {bricks}", bricks / replica),
        (replica, arbiter) => {
            format!("{} x ({} + {arbiter}) = {bricks}", bricks / replica, replica.saturating_sub(arbiter))
        }
    };
    let mut text = format!(
        " \nVolume Name: {}\nType: {kind}\nVolume ID: {}\nStatus: {}\nSnapshot Count: {}\nNumber of Bricks: {number}\n\
         Transport-type: {}\nBricks:\n",
        volume.name,
        volume.id,
        volume_state(volume.status),
        volume.snapshot_count,
        volume.transport
    );
    for (index, brick) in volume.bricks.iter().enumerate() {
        let mark = if is_arbiter(volume, index) { " (arbiter)" } else { "" };
        text += &format!("Brick{}: {}:{}{mark}\n", index + 1, brick.host, brick.path);
    }
    if !volume.options.is_empty() {
        text += "Options Reconfigured:\n";
        for (name, value) in &volume.options {
            text += &format!("{name}: {value}\n");
        }
    }
    text
}

/// One volume of `volume status`: its processes.
pub(super) fn volume_status(status: &VolumeStatus) -> String {
    let mut text = format!(
        "Status of volume: {}\n{:<PROCESS_WIDTH$} TCP Port  RDMA Port  Online  Pid\n{}\n",
        status.name,
        "Gluster process",
        "-".repeat(RULE)
    );
    for process in &status.processes {
        text += &process_line(process);
    }
    text + " \n"
}

fn process_line(process: &ProcessStatus) -> String {
    let name = if process.kind == "Brick" {
        format!("Brick {}:{}", process.host, process.path)
    } else {
        format!("{} on {}", process.kind, process.path)
    };
    // A name that is too long goes on in the next line.
    let mut text = String::new();
    let mut rest = name.as_str();
    while rest.len() > PROCESS_WIDTH {
        let cut = (1..=PROCESS_WIDTH).rev().find(|i| rest.is_char_boundary(*i)).unwrap_or(rest.len());
        let (line, more) = rest.split_at(cut);
        text += line;
        text.push('\n');
        rest = more;
    }
    let (port, rdma) = match (process.tcp_port, process.rdma_port) {
        (None, None) => ("N/A".to_owned(), "N/A".to_owned()),
        _ if !process.online => ("N/A".to_owned(), "N/A".to_owned()),
        (tcp, rdma) => (tcp.unwrap_or(0).to_string(), rdma.unwrap_or(0).to_string()),
    };
    let online = if process.online { 'Y' } else { 'N' };
    let pid = process.pid.filter(|_| process.online).map_or_else(|| "N/A".to_owned(), |pid| pid.to_string());
    // `%-Ns ` of C counts bytes.
    let padding = " ".repeat(PROCESS_WIDTH.saturating_sub(rest.len()) + 1);
    text + &format!("{rest}{padding}{port:<10}{rdma:<11}{online:<8}{pid:<5}\n")
}

/// One volume's tasks, below its processes. There are none yet.
pub(super) fn volume_tasks(name: &str) -> String {
    format!("Task Status of Volume {name}\n{}\nThere are no active volume tasks\n \n", "-".repeat(RULE))
}

/// `volume get`
pub(super) fn options(options: &[(String, String)]) -> String {
    let mut text = format!("{:<40} {:<39}\n{:<40} {:<39}\n", "Option", "Value", "------", "-----");
    for (name, value) in options {
        text += &format!("{name:<40} {value:<39}\n");
    }
    text
}

/// `volume set help`
pub(super) fn option_help() -> String {
    HELP.iter()
        .map(|Help(key, default, what)| format!("Option: {key}\nDefault Value: {default}\nDescription: {what}\n\n"))
        .collect()
}
