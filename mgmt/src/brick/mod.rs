//! Processes glusterd starts: bricks and heal services. Where their files are, how they are started, found again, stopped.

pub mod ask;
pub mod process;

use std::path::{Path, PathBuf};

use crate::state::model::{Brick, Volume};

/// FNV-1a, 64 bits: names of sockets and temporary files, stable across versions of ours.
pub fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where a node's daemons put their files.
#[derive(Clone, Debug)]
pub struct Places {
    /// Pid files and sockets: /var/run/gluster.
    pub run: PathBuf,
    /// Logs: /var/log/glusterfs.
    pub log: PathBuf,
}

impl Places {
    /// A brick's pid file.
    pub fn brick_pid(&self, volume: &Volume, brick: &Brick) -> PathBuf {
        self.run.join("vols").join(&volume.name).join(format!("{}-{}.pid", brick.host, brick.flat_path()))
    }

    /// A brick's log.
    pub fn brick_log(&self, brick: &Brick) -> PathBuf {
        self.log.join("bricks").join(format!("{}.log", brick.flat_path()))
    }

    /// A volume's heal service's pid file on this node.
    pub fn heal_pid(&self, volume: &str) -> PathBuf {
        self.run.join("shd").join(volume).join(format!("{volume}-shd.pid"))
    }

    /// The heal service's log.
    pub fn heal_log(&self) -> PathBuf {
        self.log.join("glustershd.log")
    }

    /// A process's socket, named by its pid file.
    pub fn socket(&self, pid_file: &Path) -> PathBuf {
        self.run.join(format!("{:016x}.socket", hash(pid_file.as_os_str().as_encoded_bytes())))
    }
}
