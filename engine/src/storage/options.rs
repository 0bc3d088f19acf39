//! Options of `storage/posix`, by the names glusterd's volfiles use.

use std::path::PathBuf;

use ladrillo_translator::Gfid;
use ladrillo_translator::option::{Options, PercentOrSize, parse_bool, parse_int, parse_percent_or_size, parse_time};

/// How a brick's storage was configured.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// `directory`: the brick.
    pub directory: PathBuf,
    /// `volume-id`: what the root's xattr must say; `None` in hand-written volfiles: not checked.
    pub volume_id: Option<Gfid>,
    /// `ctime`: keep times in mdata. On by default.
    pub ctime: bool,
    /// `gfid2path`: record names in xattrs. On by default.
    pub gfid2path: bool,
    /// `reserve`: how much of the disk is kept free, 1 % by default.
    pub reserve: PercentOrSize,
    /// `shared-brick-count`: bricks of the volume on one file system, by which statfs divides.
    pub shared_brick_count: u64,
    /// `janitor-sleep-duration`: seconds between two cleanings of `landfill`, 600 by default.
    pub janitor_interval_s: u64,
    /// `fips-mode-rchecksum`: SHA-256 instead of MD5 in rchecksum; glusterd sets it on new volumes.
    pub fips_mode_rchecksum: bool,
    /// `glusterd-uuid`: the node, answered as `trusted.glusterfs.node-uuid`.
    pub node_uuid: Option<Gfid>,
    /// `hostname`: the node's name in pathinfo.
    pub hostname: String,
    /// `node-uuid-pathinfo`: the node's uuid instead of its name in pathinfo.
    pub node_uuid_pathinfo: bool,
    /// `create-mask`, `create-directory-mask`, `force-create-mode`, `force-directory-mode`.
    pub masks: Masks,
    /// `brick-uid`, `brick-gid`: owner of the brick's root.
    pub brick_owner: (Option<u32>, Option<u32>),
    /// `health-check-interval` in seconds, 30 by default; 0 = off.
    pub health_check_interval_s: u64,
    /// `health-check-timeout` in seconds, 20 by default.
    pub health_check_timeout_s: u64,
    /// `max-hardlinks`, 100 by default; 0 = no limit of ours.
    pub max_hardlinks: u32,
    /// `o-direct`: O_DIRECT on every open.
    pub o_direct: bool,
    /// `export-statfs-size`: tell sizes in statfs. On by default.
    pub export_statfs: bool,
    /// `disable-landfill-purge`: leave `landfill` as it is.
    pub keep_landfill: bool,
    /// Inodes remembered beyond those in use (our own bound).
    pub inode_cache: usize,
}

/// Masks on permissions of what is created.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Masks {
    pub create: u32,
    pub create_directory: u32,
    pub force_create: u32,
    pub force_directory: u32,
}

impl StorageOptions {
    /// Blocks kept free on a file system.
    pub fn reserved_blocks(&self, blocks: u64, block_size_bytes: u64) -> u64 {
        match self.reserve {
            PercentOrSize::Percent(percent) => (blocks as f64 * percent / 100.0 + 0.5) as u64,
            PercentOrSize::Bytes(bytes) => bytes.div_ceil(block_size_bytes.max(1)),
        }
    }

    /// With defaults for everything but the directory.
    pub fn new(directory: impl Into<PathBuf>) -> StorageOptions {
        StorageOptions {
            directory: directory.into(),
            volume_id: None,
            ctime: true,
            gfid2path: true,
            reserve: PercentOrSize::Percent(1.0),
            shared_brick_count: 1,
            janitor_interval_s: 600,
            fips_mode_rchecksum: false,
            node_uuid: None,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            node_uuid_pathinfo: false,
            masks: Masks { create: 0o7777, create_directory: 0o7777, force_create: 0, force_directory: 0 },
            brick_owner: (None, None),
            health_check_interval_s: 30,
            health_check_timeout_s: 20,
            max_hardlinks: 100,
            o_direct: false,
            export_statfs: true,
            keep_landfill: false,
            inode_cache: 16384,
        }
    }

    /// From a volfile.
    ///
    /// # Errors
    /// A sentence: an option that has no value of its kind, an unknown one, or no `directory`.
    pub fn parse(options: &Options) -> Result<StorageOptions, String> {
        let mut parsed = StorageOptions::new(options.get("directory").ok_or("option directory is missing")?);
        for (key, value) in options.iter() {
            let wrong = || format!("option {key} {value:?}: not a valid value");
            let flag = || parse_bool(value).ok_or_else(wrong);
            let uuid = || value.parse::<Gfid>().map_err(|_| wrong());
            let octal = || u32::from_str_radix(value, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(wrong);
            let owner = || match value {
                "-1" => Ok(None),
                _ => value.parse::<u32>().map(Some).map_err(|_| wrong()),
            };
            match key {
                "directory" => {}
                "volume-id" => parsed.volume_id = Some(uuid()?),
                "ctime" => parsed.ctime = flag()?,
                "gfid2path" => parsed.gfid2path = flag()?,
                "reserve" => {
                    parsed.reserve = parse_percent_or_size(value)
                        .filter(|r| !matches!(r, PercentOrSize::Percent(p) if !(0.0..=100.0).contains(p)))
                        .ok_or_else(wrong)?;
                }
                "shared-brick-count" => {
                    parsed.shared_brick_count =
                        parse_int(value).and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?.max(1);
                }
                "janitor-sleep-duration" => {
                    parsed.janitor_interval_s = parse_time(value).filter(|s| *s > 0).ok_or_else(wrong)?;
                }
                "fips-mode-rchecksum" => parsed.fips_mode_rchecksum = flag()?,
                "glusterd-uuid" => parsed.node_uuid = Some(uuid()?),
                "hostname" => parsed.hostname = value.to_owned(),
                "node-uuid-pathinfo" => parsed.node_uuid_pathinfo = flag()?,
                "create-mask" => parsed.masks.create = octal()?,
                "create-directory-mask" => parsed.masks.create_directory = octal()?,
                "force-create-mode" => parsed.masks.force_create = octal()?,
                "force-directory-mode" => parsed.masks.force_directory = octal()?,
                "brick-uid" => parsed.brick_owner.0 = owner()?,
                "brick-gid" => parsed.brick_owner.1 = owner()?,
                "health-check-interval" => {
                    parsed.health_check_interval_s =
                        parse_int(value).and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?;
                }
                "health-check-timeout" => {
                    parsed.health_check_timeout_s =
                        parse_int(value).and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?;
                }
                "max-hardlinks" => {
                    parsed.max_hardlinks = parse_int(value).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
                }
                "o-direct" => parsed.o_direct = flag()?,
                "export-statfs-size" => parsed.export_statfs = flag()?,
                "disable-landfill-purge" => parsed.keep_landfill = flag()?,
                // What tunes GlusterFS's own machinery and changes no answer.
                "background-unlink"
                | "mandate-attribute"
                | "linux-aio"
                | "linux-io_uring"
                | "batch-fsync-mode"
                | "batch-fsync-delay-usec"
                | "gfid2path-separator"
                | "log-level"
                | "disk-usage-limit"
                | "update-link-count-parent"
                | "enable-xattr" => {
                    // glusterd turns it on with features.trash. Paths are found by gfid2path here.
                    if key == "update-link-count-parent" && flag()? {
                        tracing::warn!("trusted.pgfid.* xattrs (storage.build-pgfid) are not kept");
                    }
                }
                _ => tracing::debug!(key, value, "an option of storage/posix that means nothing here"),
            }
        }
        Ok(parsed)
    }
}
