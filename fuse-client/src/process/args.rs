//! The command line of `glusterfs`, flag for flag GlusterFS 10's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::mount_helper::parse_bool;
use crate::front::DirectIo;
use crate::front::start::FrontEnd;

/// Mounts a volume, or serves one (self-heal daemon).
#[derive(Clone, Debug, Parser)]
#[command(name = "glusterfs", disable_version_flag = true, args_override_self = true, max_term_width = 120)]
pub struct Args {
    /// Measure latency and bandwidth of a transport alone: `listen` on one node, its name (and :PORT) on the other
    #[arg(long, value_name = "listen|HOST[:PORT]")]
    pub transport_check: Option<String>,
    /// With --transport-check: tcp, rdma or sdp
    #[arg(long = "transport", value_name = "TRANSPORT", default_value = "tcp", requires = "transport_check")]
    pub check_transport: String,
    /// With --transport sdp: rsocket, smc or sdp
    #[arg(long = "sdp-via", value_name = "VIA", requires = "transport_check")]
    pub sdp_via: Option<String>,
    /// The same as --transport-check with --transport rdma
    #[arg(long, value_name = "listen|HOST[:PORT]", conflicts_with = "transport_check")]
    pub rdma_check: Option<String>,
    /// Server to get the volume file from; several are tried in turn
    #[arg(short = 's', long = "volfile-server", value_name = "SERVER")]
    pub volfile_servers: Vec<String>,
    /// Listening port number of volfile server
    #[arg(long, value_name = "PORT", default_value_t = 24007)]
    pub volfile_server_port: u16,
    /// Transport type to get volfile from server: tcp (socket) or unix
    #[arg(long, value_name = "TRANSPORT", default_value = "socket")]
    pub volfile_server_transport: String,
    /// 'key' of the volfile to be fetched from server
    #[arg(long, value_name = "KEY")]
    pub volfile_id: Option<String>,
    /// File to use as VOLUME_FILE
    #[arg(short = 'f', long, value_name = "VOLFILE")]
    pub volfile: Option<PathBuf>,
    /// How often each volfile server is tried (deprecated in GlusterFS)
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub volfile_max_fetch_attempts: u32,
    /// Enable strict volume file checking (accepted: volfiles are always checked)
    #[arg(long)]
    pub volfile_check: bool,
    /// Translator name to be used for MOUNT-POINT [default: top most volume definition in VOLFILE]
    #[arg(long, value_name = "XLATOR-NAME")]
    pub volume_name: Option<String>,
    /// Add/override an option for a translator in volume file with specified value
    #[arg(long = "xlator-option", value_name = "XLATOR-NAME.OPTION=VALUE", value_parser = xlator_option)]
    pub xlator_options: Vec<(String, String, String)>,
    /// Mount subdirectory given
    #[arg(long, value_name = "SUBDIR-PATH", allow_hyphen_values = true)]
    pub subdir_mount: Option<String>,
    /// File to use as pid file
    #[arg(short = 'p', long, value_name = "PIDFILE")]
    pub pid_file: Option<PathBuf>,
    /// File to use as unix-socket (accepted: glusterd uses it to ask for states)
    #[arg(short = 'S', long, value_name = "SOCKFILE")]
    pub socket_file: Option<PathBuf>,
    /// File to use for logging; - = console
    #[arg(short = 'l', long, value_name = "LOGFILE")]
    pub log_file: Option<PathBuf>,
    /// Logging severity: DEBUG, INFO, WARNING, ERROR, CRITICAL, TRACE or NONE
    #[arg(short = 'L', long, value_name = "LOGLEVEL", default_value = "INFO")]
    pub log_level: String,
    /// Run in foreground
    #[arg(short = 'N', long)]
    pub no_daemon: bool,
    /// Run in debug mode: sets --no-daemon, --log-level to DEBUG and --log-file to console
    #[arg(long)]
    pub debug: bool,
    /// Name of the process: fuse, or glustershd
    #[arg(long, value_name = "NAME")]
    pub process_name: Option<String>,
    /// Pid that requests carry: negative ones are GlusterFS's own clients
    #[arg(long, value_name = "PID", allow_negative_numbers = true)]
    pub client_pid: Option<i32>,
    /// Use this as brick's or service's name (accepted)
    #[arg(long, value_name = "NAME")]
    pub brick_name: Option<String>,
    /// Set oom_score_adj value for process
    #[arg(long, value_name = "INTEGER", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Set attribute timeout to SECONDS for inodes in fuse kernel module
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub attribute_timeout: Duration,
    /// Set entry timeout to SECONDS in fuse kernel module
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub entry_timeout: Duration,
    /// Set negative timeout to SECONDS in fuse kernel module
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub negative_timeout: Duration,
    /// Set auxiliary group list timeout to SECONDS; 0 = ask every time
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub gid_timeout: Duration,
    /// Specify direct I/O strategy
    #[arg(long, value_name = "BOOL|auto", num_args = 0..=1, require_equals = true, default_missing_value = "on",
          default_value = "auto", value_parser = direct_io)]
    pub direct_io_mode: DirectIo,
    /// Mount the filesystem in 'read-only' mode
    #[arg(long)]
    pub read_only: bool,
    /// Mount the filesystem with POSIX ACL support
    #[arg(long)]
    pub acl: bool,
    /// Enable SELinux label (extended attributes) support on inodes
    #[arg(long)]
    pub selinux: bool,
    /// Enable Capability (extended attributes) support on inodes
    #[arg(long)]
    pub capability: bool,
    /// Accepted and without effect, as in GlusterFS 10: set features.worm of the volume
    #[arg(long)]
    pub worm: bool,
    /// Inode numbers of 32 bits
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          default_value = "no", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub enable_ino32: bool,
    /// Every inode is to be had as .gfid/GFID below the mount
    #[arg(long)]
    pub aux_gfid_mount: bool,
    /// Fetch the volfile of a client that works through gfproxyd
    #[arg(long)]
    pub thin_client: bool,
    /// Dump fuse traffic to PATH
    #[arg(long, value_name = "PATH")]
    pub dump_fuse: Option<PathBuf>,
    /// Mount options for the kernel, as in fstab
    #[arg(long, value_name = "OPTIONS", value_delimiter = ',')]
    pub fuse_mountopts: Vec<String>,
    /// Set fuse module's limit for number of inodes kept in LRU list to N; 0 = no limit
    #[arg(long, value_name = "N", default_value_t = 65536)]
    pub lru_limit: u64,
    /// Suspend inode invalidations implied by 'lru-limit' beyond N outstanding
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub invalidate_limit: u64,
    /// Use readdirp mode in fuse kernel module
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          default_value = "yes", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub use_readdirp: bool,
    /// Do not purge the cache on file open
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          default_value = "no", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub fopen_keep_cache: bool,
    /// Controls whether fuse-kernel can auto-invalidate attribute, dentry and page-cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "on",
          default_value = "on", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub auto_invalidation: bool,
    /// Enable fuse in-kernel writeback cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "on",
          default_value = "off", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub kernel_writeback_cache: bool,
    /// Declare supported granularity of file attribute times in nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 0)]
    pub attr_times_granularity: u32,
    /// Set fuse module's background queue length to N
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=65535))]
    pub background_qlen: u16,
    /// Set fuse module's congestion threshold to N
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u16).range(12..=65535))]
    pub congestion_threshold: u16,
    /// Set fuse reader thread count (accepted: one thread reads and serves)
    #[arg(long, value_name = "INTEGER", default_value_t = 1)]
    pub reader_thread_count: u32,
    /// How requests come from the kernel: ring (FUSE over io_uring), device (/dev/fuse), or auto
    #[arg(long, value_name = "ring|device|auto", default_value = "auto")]
    pub fuse_front: FrontEnd,
    /// Disable/enable root squashing for the trusted client
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          default_value = "no", value_parser = parse_bool, action = clap::ArgAction::Set)]
    pub no_root_squash: bool,
    /// Print what `gluster volume heal VOLUME info` prints, and exit
    #[arg(long, value_name = "VOLUME")]
    pub heal_info: Option<String>,
    /// With --heal-info: as XML
    #[arg(long, requires = "heal_info")]
    pub xml: bool,
    /// Print path of default log directory
    #[arg(long)]
    pub print_logdir: bool,
    /// Print directory path in which statedumps shall be generated
    #[arg(long)]
    pub print_statedumpdir: bool,
    /// Print xlator directory path (there is none: translators are built in)
    #[arg(long)]
    pub print_xlatordir: bool,
    /// Print path of default libexec directory
    #[arg(long)]
    pub print_libexecdir: bool,
    /// Print program version
    #[arg(short = 'V', long)]
    pub version: bool,

    /// Accepted for GlusterFS's sake: they tune what this program does not have
    #[command(flatten)]
    pub ignored: Ignored,

    /// Directory to mount on; with --heal-info: nothing, summary or split-brain
    pub mount_point: Option<PathBuf>,

    /// With --heal-info, after --: another order than to print: getxattr PATH NAME
    #[arg(last = true, requires = "heal_info", value_name = "ORDER")]
    pub order: Vec<OsString>,
}

/// Flags that stock scripts pass and that mean nothing here.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct Ignored {
    #[arg(long, hide = true)]
    pub mem_accounting: bool,
    #[arg(long, hide = true)]
    pub resolve_gids: bool,
    #[arg(long, hide = true)]
    pub localtime_logging: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub global_threading: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub global_timer_wheel: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub event_history: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub secure_mgmt: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub fuse_flush_handle_interrupt: Option<String>,
    #[arg(long, hide = true)]
    pub fuse_dev_eperm_ratelimit_ns: Option<u64>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    pub io_engine: Option<String>,
    #[arg(long, hide = true)]
    pub log_format: Option<String>,
    #[arg(long, hide = true)]
    pub logger: Option<String>,
    #[arg(long, hide = true)]
    pub log_buf_size: Option<u32>,
    #[arg(long, hide = true)]
    pub log_flush_timeout: Option<u32>,
    #[arg(long, hide = true)]
    pub print_exports: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub print_netgroups: Option<PathBuf>,
}

/// Parses a command line; the first argument is the program's name.
///
/// # Errors
/// clap's, with the text to show (also for `--help`).
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let command = Args::command().after_help("Fuse mounts also: mount -t glusterfs SERVER:/VOLUME MOUNT-POINT");
    Args::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if number == -1.0 {
        return Ok(Duration::ZERO); // gid-timeout=-1: GlusterFS's "do not remember"
    }
    Duration::try_from_secs_f64(number).map_err(|_| format!("{text:?} seconds is out of range"))
}

fn direct_io(text: &str) -> Result<DirectIo, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(DirectIo::Auto);
    }
    match parse_bool(text) {
        Ok(true) => Ok(DirectIo::Always),
        Ok(false) => Ok(DirectIo::Never),
        Err(_) => Err(format!("unknown direct I/O mode setting {text:?}")),
    }
}

fn xlator_option(text: &str) -> Result<(String, String, String), String> {
    let parsed = text.split_once('=').and_then(|(key, value)| {
        let (translator, option) = key.split_once('.')?;
        let complete = !translator.is_empty() && !option.is_empty() && !value.is_empty();
        complete.then(|| (translator.to_owned(), option.to_owned(), value.to_owned()))
    });
    parsed.ok_or_else(|| format!("invalid option {text:?}: it should be XLATOR-NAME.OPTION=VALUE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_line_of_the_stock_mount_helper_is_understood() {
        let args = parsed(
            "glusterfs --read-only --acl --log-level=WARNING --log-file=/x.log --direct-io-mode=disable --attribute-timeout=7 \
             --use-readdirp=no --attribute-timeout=0.5 --gid-timeout=-1 --fuse-mountopts=noatime,nodev \
             --xlator-option=*replicate*.quorum-count=2 --process-name fuse --volfile-server=a --volfile-server=b \
             --volfile-server-port=24008 --volfile-id=/gv0 --subdir-mount=/sub --fopen-keep-cache /mnt/x",
        )
        .unwrap();
        assert_eq!(args.volfile_servers, ["a", "b"]);
        assert_eq!((args.volfile_id.as_deref(), args.volfile_server_port), (Some("/gv0"), 24008));
        assert_eq!((args.attribute_timeout, args.gid_timeout), (Duration::from_millis(500), Duration::ZERO));
        assert_eq!((args.direct_io_mode, args.use_readdirp, args.fopen_keep_cache), (DirectIo::Never, false, true));
        assert_eq!(args.xlator_options, [("*replicate*".into(), "quorum-count".into(), "2".into())]);
        assert_eq!(args.fuse_mountopts, ["noatime", "nodev"]);
        assert_eq!(args.mount_point.unwrap(), PathBuf::from("/mnt/x"));
    }

    #[test]
    fn the_line_of_the_self_heal_daemon_is_understood() {
        let args = parsed(
            "glusterfs -s localhost --volfile-id shd/gv0 -p /run/x.pid -l /x.log -S /run/x.socket \
             --xlator-option *replicate*.node-uuid=aaaa --process-name glustershd --client-pid=-6",
        )
        .unwrap();
        assert_eq!((args.process_name.as_deref(), args.client_pid), (Some("glustershd"), Some(-6)));
        assert!(args.mount_point.is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "glusterfs --no-such-flag",
            "glusterfs --attribute-timeout=x /mnt",
            "glusterfs --attribute-timeout=-5 /mnt",
            "glusterfs --direct-io-mode=perhaps /mnt",
            "glusterfs --fuse-front=side /mnt",
            "glusterfs --xlator-option=abc /mnt",
            "glusterfs /mnt /mnt2",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
