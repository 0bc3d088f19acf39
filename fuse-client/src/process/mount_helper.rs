//! `mount.glusterfs`: what mount(8) calls. Turns fstab's options into a command line of `glusterfs` and runs it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::remount;

/// Exit codes of mount(8).
const MOUNT_FAILED: u8 = 32;
const USAGE: u8 = 1;
const SYSTEM: u8 = 2;

/// Where glusterd keeps what it knows of bricks.
const GLUSTERD_WORKDIR: &str = "/var/lib/glusterd";

/// A yes or no in any of GlusterFS's spellings.
///
/// # Errors
/// It is neither.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" | "enable" => Ok(true),
        "0" | "off" | "no" | "false" | "disable" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}

/// What is to be mounted: the helper's command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    mount_point: PathBuf,
    /// Arguments for `glusterfs`, without the mount point.
    arguments: Vec<OsString>,
    /// `-f`: check, and do not mount.
    fake: bool,
    verbose: bool,
    /// To be said, though nothing fails.
    warnings: Vec<String>,
}

/// Why nothing is mounted, and what mount(8) is told.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: u8,
    message: String,
}

enum Parsed {
    Mount(Box<Plan>),
    /// The mount point, and all options.
    Remount(PathBuf, Vec<String>),
    Version,
    Help,
}

impl Refusal {
    fn usage(message: impl Into<String>) -> Refusal {
        Refusal { code: USAGE, message: message.into() }
    }
}

/// The helper.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let plan = match parse(arguments.get(1..).unwrap_or_default()) {
        Ok(Parsed::Mount(plan)) => plan,
        Ok(Parsed::Remount(mount_point, options)) => return remount_at(&mount_point, &options),
        Ok(Parsed::Version) => {
            println!("{}", super::VERSION_TEXT);
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Help) => {
            println!("{}", usage());
            return ExitCode::SUCCESS;
        }
        Err(refusal) => return refuse(&refusal),
    };
    for warning in &plan.warnings {
        eprintln!("{warning}");
    }
    if let Err(refusal) = check_mount_point(&plan.mount_point) {
        return refuse(&refusal);
    }
    let program = glusterfs_program();
    if plan.verbose || plan.fake {
        let words: Vec<_> = plan.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        eprintln!("{} {} {}", program.display(), words.join(" "), plan.mount_point.display());
    }
    if plan.fake {
        return ExitCode::SUCCESS;
    }
    match Command::new(&program).arg0("glusterfs").args(&plan.arguments).arg(&plan.mount_point).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => refuse(&Refusal {
            code: MOUNT_FAILED,
            message: format!("Mounting glusterfs on {} failed.", plan.mount_point.display()),
        }),
        Err(error) => {
            refuse(&Refusal { code: MOUNT_FAILED, message: format!("{} cannot be run: {error}", program.display()) })
        }
    }
}

fn remount_at(mount_point: &Path, options: &[String]) -> ExitCode {
    match remount::remount(mount_point, options.iter().map(String::as_str)) {
        Ok(ignored) => {
            for option in ignored {
                eprintln!("mount option '{option}' is not changed by a remount");
            }
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&Refusal {
            code: MOUNT_FAILED,
            message: format!("Remounting {} failed: {error}", mount_point.display()),
        }),
    }
}

fn refuse(refusal: &Refusal) -> ExitCode {
    eprintln!("{}", refusal.message);
    ExitCode::from(refusal.code)
}

fn usage() -> &'static str {
    "Usage: mount.glusterfs <server>:<volume/subdir> <mountpoint> -o<options>\nOptions:\nman 8 mount.glusterfs\n\
     To display the version number of the mount helper: mount.glusterfs -V"
}

/// `glusterfs` beside this program; else this program itself, which is the same one under another name.
fn glusterfs_program() -> PathBuf {
    let own = std::env::current_exe();
    let beside = own.as_ref().ok().and_then(|own| Some(own.parent()?.join("glusterfs"))).filter(|path| path.is_file());
    beside.or(own.ok()).unwrap_or_else(|| PathBuf::from("glusterfs"))
}

/// What the loop over `-o` collects.
#[derive(Default)]
struct Collected {
    arguments: Vec<OsString>,
    backup_servers: Vec<String>,
    kernel: Vec<String>,
    volume_id: Option<String>,
    subdir: Option<String>,
    transport: Option<String>,
    process_name: Option<String>,
    read_only: bool,
    warnings: Vec<String>,
}

impl Collected {
    fn flag(&mut self, flag: &str) {
        self.arguments.push(format!("--{flag}").into());
    }

    fn value(&mut self, flag: &str, value: &str) {
        self.arguments.push(format!("--{flag}={value}").into());
    }
}

fn parse(arguments: &[OsString]) -> Result<Parsed, Refusal> {
    let (mut places, mut options, mut fake, mut verbose) = (Vec::new(), Vec::new(), false, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        match bytes {
            [b'-', flags @ ..] if !flags.is_empty() => {
                let mut flags = flags;
                while let [flag, rest @ ..] = flags {
                    flags = rest;
                    match flag {
                        b'o' | b't' => {
                            let value = match rest {
                                [] => words.next().map(OsString::as_os_str),
                                rest => Some(OsStr::from_bytes(rest)),
                            };
                            let value = value.ok_or_else(|| Refusal::usage(usage()))?;
                            if *flag == b'o' {
                                options.push(value.to_string_lossy().into_owned());
                            }
                            flags = &[];
                        }
                        b'f' => fake = true,
                        b'v' => verbose = true,
                        b'V' => return Ok(Parsed::Version),
                        b'h' => return Ok(Parsed::Help),
                        b's' | b'n' => {} // sloppy (autofs), no mtab
                        _ => return Err(Refusal::usage(usage())),
                    }
                }
            }
            _ => places.push(word.clone()),
        }
    }
    let [source, mount_point] = places.as_slice() else { return Err(Refusal::usage(usage())) };
    let mut collected = Collected::default();
    let options = || options.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty());
    if remount::asked(options()) {
        return Ok(Parsed::Remount(PathBuf::from(mount_point), options().map(str::to_owned).collect()));
    }
    for option in options() {
        match option.split_once('=') {
            Some((key, value)) => with_value(&mut collected, key, value)?,
            None => without_value(&mut collected, option)?,
        }
    }
    add_source(&mut collected, source)?;
    if collected.read_only {
        collected.flag("read-only");
    }
    if !collected.kernel.is_empty() {
        let kernel = collected.kernel.join(",");
        collected.value("fuse-mountopts", &kernel);
    }
    let name = collected.process_name.take().map_or("fuse".to_owned(), |name| format!("fuse.{name}"));
    collected.value("process-name", &name);
    let mount_point = PathBuf::from(mount_point);
    Ok(Parsed::Mount(Box::new(Plan {
        // The daemon leaves this directory.
        mount_point: std::path::absolute(&mount_point).unwrap_or(mount_point),
        arguments: collected.arguments,
        fake,
        verbose,
        warnings: collected.warnings,
    })))
}

/// `SERVER[,SERVER...]:/VOLUME[/SUBDIR]`, or a volfile.
fn add_source(collected: &mut Collected, source: &OsStr) -> Result<(), Refusal> {
    if Path::new(source).is_file() {
        let path = std::path::absolute(source).unwrap_or_else(|_| source.into());
        let mut argument = OsString::from("--volfile=");
        argument.push(path);
        collected.arguments.push(argument);
        return Ok(());
    }
    let unspecified = || {
        Refusal::usage(
            "ERROR: Server name/volume name unspecified cannot proceed further..\nPlease specify correct format\n\
             Usage:\nman 8 mount.glusterfs",
        )
    };
    let text = source.to_str().ok_or_else(unspecified)?;
    // The last colon: IPv6 addresses have colons of their own.
    let (servers, volume) = text.rsplit_once(':').ok_or_else(unspecified)?;
    let mut names: Vec<String> = Vec::new();
    for server in servers.split(',').filter(|server| !server.is_empty()) {
        names.push(valid_host(server)?);
    }
    if names.is_empty() {
        return Err(unspecified());
    }
    names.append(&mut collected.backup_servers);
    for name in names {
        collected.value("volfile-server", &name);
    }
    let path = volume.trim_start_matches('/');
    let (mut volume_id, mut subdir) = match path.split_once('/') {
        Some(("snaps", _)) => {
            collected.read_only = true;
            (format!("/{path}"), None)
        }
        Some((volume, subdir)) => (volume.to_owned(), Some(subdir.to_owned()).filter(|subdir| !subdir.is_empty())),
        None => (path.to_owned(), None),
    };
    if let Some(asked) = collected.volume_id.take() {
        volume_id = asked;
    }
    subdir = collected.subdir.take().or(subdir);
    if volume_id.is_empty() {
        return Err(unspecified());
    }
    if let Some(transport) = collected.transport.take() {
        match transport.as_str() {
            "tcp" | "socket" => {}
            // The volfile of that transport; the management daemon stays on TCP.
            "rdma" | "sdp" => {
                let suffix = format!(".{transport}");
                if !volume_id.ends_with(&suffix) {
                    volume_id += &suffix;
                }
            }
            other => {
                return Err(Refusal::usage(format!("transport {other} is not supported (tcp, rdma and sdp are)")));
            }
        }
    }
    collected.value("volfile-id", &volume_id);
    if let Some(subdir) = subdir {
        collected.value("subdir-mount", &format!("/{}", subdir.trim_matches('/')));
    }
    Ok(())
}

fn valid_host(name: &str) -> Result<String, Refusal> {
    const HOST_NAME_MAX: usize = 253;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%[]".contains(&byte);
    if name.is_empty() || name.len() > HOST_NAME_MAX || !name.bytes().all(allowed) || name.starts_with('-') {
        return Err(Refusal::usage(format!("ERROR: {name:?} is no valid server name")));
    }
    Ok(name.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// Servers separated by colons; IPv6 addresses stand in brackets.
fn backup_servers(list: &str) -> Result<Vec<String>, Refusal> {
    let invalid = || Refusal::usage("ERROR: Invalid backup-volfile-servers specified.. exiting");
    let (mut servers, mut rest) = (Vec::new(), list);
    while !rest.is_empty() {
        let (server, after) = match rest.strip_prefix('[') {
            Some(inside) => inside.split_once(']').ok_or_else(invalid)?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        servers.push(valid_host(server).map_err(|_| invalid())?);
        rest = match after.strip_prefix(':') {
            Some(rest) => rest,
            None if after.is_empty() => "",
            None => return Err(invalid()),
        };
    }
    Ok(servers)
}

fn with_value(collected: &mut Collected, key: &str, value: &str) -> Result<(), Refusal> {
    let on = |value: &str| parse_bool(value).map_err(|error| Refusal::usage(format!("{key}: {error}")));
    match key {
        "log-level" => match super::log::level(value) {
            Some(_) => collected.value(key, &value.to_ascii_uppercase()),
            None => {
                collected.warnings.push(format!("invalid log level {value}, using INFO"));
                collected.value(key, "INFO");
            }
        },
        "log-file" => {
            let path = std::path::absolute(value).unwrap_or_else(|_| value.into());
            collected.value(key, &path.to_string_lossy());
        }
        "direct-io-mode"
        | "volume-name"
        | "attribute-timeout"
        | "entry-timeout"
        | "negative-timeout"
        | "gid-timeout"
        | "lru-limit"
        | "invalidate-limit"
        | "background-qlen"
        | "congestion-threshold"
        | "oom-score-adj"
        | "xlator-option"
        | "use-readdirp"
        | "event-history"
        | "reader-thread-count"
        | "auto-invalidation"
        | "kernel-writeback-cache"
        | "attr-times-granularity"
        | "fuse-flush-handle-interrupt"
        | "fuse-dev-eperm-ratelimit-ns"
        | "fopen-keep-cache"
        | "fuse-front"
        | "io-engine" => {
            collected.value(key, value);
        }
        "server-port" => collected.value("volfile-server-port", value),
        "fetch-attempts" => collected.value("volfile-max-fetch-attempts", value),
        "backup-volfile-servers" => collected.backup_servers.extend(backup_servers(value)?),
        "backupvolfile-server" => collected.backup_servers.push(valid_host(value)?),
        "transport" => collected.transport = Some(value.to_owned()),
        "volume-id" => collected.volume_id = Some(value.to_owned()),
        "subdir-mount" => collected.subdir = Some(value.to_owned()),
        "process-name" => collected.process_name = Some(value.to_owned()),
        "volfile-check" => collected.flag("volfile-check"),
        "fuse-mountopts" => collected.kernel.push(value.to_owned()),
        "no-root-squash" if on(value)? => collected.flag("no-root-squash"),
        "root-squash" if !on(value)? => collected.flag("no-root-squash"),
        "no-root-squash" | "root-squash" => {}
        "context" | "fscontext" | "defcontext" | "rootcontext" => {
            collected.kernel.push(format!("{key}=\"{}\"", value.trim_matches('"')));
        }
        "halo-max-latency" | "halo-max-replicas" | "halo-min-replicas" => {
            // Without cluster.halo-enabled, which our glusterd keeps and does not act on, they do nothing in GlusterFS.
            if value.parse::<u32>().is_err() {
                return Err(Refusal::usage(format!("{key}: {value:?} is no number")));
            }
            collected.warnings.push(format!("mount option '{key}' has no effect: replication here knows no distances"));
        }
        "dump-fuse" => {
            collected.value(key, &std::path::absolute(value).unwrap_or_else(|_| value.into()).to_string_lossy())
        }
        key if key.starts_with("x-") || key.starts_with("comment") => {}
        key => return Err(Refusal::usage(format!("Invalid option: {key}"))),
    }
    Ok(())
}

fn without_value(collected: &mut Collected, option: &str) -> Result<(), Refusal> {
    match option {
        "ro" => collected.read_only = true,
        "acl" | "selinux" | "mem-accounting" | "resolve-gids" | "localtime-logging" | "global-threading" | "worm"
        | "enable-ino32" | "aux-gfid-mount" | "thin-client" => {
            collected.flag(option);
        }
        "fopen-keep-cache" => collected.value(option, "true"),
        "rw" | "auto" | "noauto" | "_netdev" | "defaults" | "user" | "nouser" | "users" | "owner" | "group" => {}
        "nofail" | "sync" | "async" | "dirsync" | "mand" | "nomand" | "silent" | "loud" | "iversion" | "noiversion" => {
            // nofail is what fstab(5) entries of networks have: it concerns booting, not this program.
            if option != "nofail" {
                collected.warnings.push(format!("mount option '{option}' is not handled (yet?)"));
            }
        }
        "atime" | "noatime" | "diratime" | "relatime" | "nostrictatime" | "nolazyatime" | "dev" | "nodev" | "exec"
        | "noexec" | "suid" | "nosuid" => collected.kernel.push(option.to_owned()),
        "auto_unmount" | "nodiratime" | "norelatime" | "strictatime" | "lazyatime" => {
            return Err(Refusal::usage(format!("Option {option} is not supported")));
        }
        option if option.starts_with("x-") => {}
        option => return Err(Refusal::usage(format!("Invalid option {option}"))),
    }
    Ok(())
}

/// As GlusterFS's helper: no mount over `/`, `/tmp`, a brick, or another GlusterFS mount.
fn check_mount_point(path: &Path) -> Result<(), Refusal> {
    let shown = path.display();
    if already_mounted(path) {
        let message = format!("mount.glusterfs: according to mtab, GlusterFS is already mounted on {shown}");
        return Err(Refusal { code: MOUNT_FAILED, message });
    }
    if !path.is_dir() {
        let text = "ERROR: Mount point does not exist\nPlease specify a mount point\nUsage:\nman 8 mount.glusterfs";
        return Err(Refusal::usage(text));
    }
    let system = |message: String| Err(Refusal { code: SYSTEM, message });
    if path == Path::new("/") {
        return system("Cannot mount over root".into());
    }
    if path == Path::new("/tmp") {
        return system("Cannot mount over /tmp".into());
    }
    if has_gfid(path) {
        return system(format!("ERROR: {shown} is in use as a brick of a gluster volume"));
    }
    if let Some(brick) = brick_below(path) {
        return system(format!("ERROR: {shown} is a parent of the brick {}", brick.display()));
    }
    Ok(())
}

fn already_mounted(path: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/mounts") else { return false };
    table.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().is_some_and(|point| Path::new(point) == path)
            && fields.next().is_some_and(|kind| kind == "fuse.glusterfs")
    })
}

fn has_gfid(path: &Path) -> bool {
    let mut value = [0u8; 16];
    rustix::fs::getxattr(path, "trusted.gfid", &mut value).is_ok()
}

/// A brick of this machine that lies below `path`.
fn brick_below(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let volumes = std::fs::read_dir(Path::new(GLUSTERD_WORKDIR).join("vols")).ok()?;
    for volume in volumes.flatten() {
        let Ok(bricks) = std::fs::read_dir(volume.path().join("bricks")) else { continue };
        for brick in bricks.flatten() {
            let Ok(text) = std::fs::read_to_string(brick.path()) else { continue };
            let Some(directory) = text.lines().find_map(|line| line.strip_prefix("path=")) else { continue };
            let Ok(real) = Path::new(directory).canonicalize() else { continue };
            if real.starts_with(&path) && has_gfid(&real) {
                return Some(real);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, Refusal> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match parse(&words)? {
            Parsed::Mount(plan) => Ok(*plan),
            _ => panic!("no mount"),
        }
    }

    fn arguments(line: &str) -> Vec<String> {
        plan(line).unwrap().arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn lines_of_mount_become_lines_of_glusterfs() {
        assert_eq!(
            arguments("debian1:/gv0 /mnt/gv0 -o rw,_netdev"),
            ["--volfile-server=debian1", "--volfile-id=gv0", "--process-name=fuse"]
        );
        assert_eq!(
            arguments("a,b:gv0/x/y /mnt -sn -o ro,acl,log-level=warning,backup-volfile-servers=c:[::1]:d -v"),
            [
                "--acl",
                "--log-level=WARNING",
                "--volfile-server=a",
                "--volfile-server=b",
                "--volfile-server=c",
                "--volfile-server=::1",
                "--volfile-server=d",
                "--volfile-id=gv0",
                "--subdir-mount=/x/y",
                "--read-only",
                "--process-name=fuse"
            ]
        );
        let joined = arguments(
            "h:/v /m -o noatime,nodev,attribute-timeout=0,xlator-option=*.ping-timeout=5,x-systemd.automount",
        );
        assert!(joined.contains(&"--fuse-mountopts=noatime,nodev".to_owned()), "{joined:?}");
        assert!(joined.contains(&"--xlator-option=*.ping-timeout=5".to_owned()));
        assert!(arguments("h:/snaps/s/v /m").contains(&"--read-only".to_owned()));
        assert!(arguments("[fe80::1]:/v /m").contains(&"--volfile-server=fe80::1".to_owned()));
        assert!(arguments("h:/v /m -oprocess-name=x").contains(&"--process-name=fuse.x".to_owned()));
        assert!(plan("h:/v /m -f").unwrap().fake);
    }

    #[test]
    fn what_helper_makes_the_program_understands() {
        let line = "a,b:/gv0/sub /mnt -o ro,acl,selinux,noatime,fopen-keep-cache,direct-io-mode=enable,use-readdirp=no,\
                    gid-timeout=2,server-port=24007,fetch-attempts=2,root-squash=off,log-file=/x,volfile-check=1,\
                    background-qlen=64,congestion-threshold=48,lru-limit=5,io-engine=auto,process-name=x,oom-score-adj=-5";
        let mut words: Vec<OsString> = vec!["glusterfs".into()];
        words.extend(plan(line).unwrap().arguments);
        words.push("/mnt".into());
        super::super::args::parse(words).unwrap();
    }

    #[test]
    fn a_transport_is_asked_for_by_the_volumes_name() {
        for (line, id) in [
            ("h:/v /mnt", "--volfile-id=v"),
            ("h:/v /mnt -o transport=tcp", "--volfile-id=v"),
            ("h:/v /mnt -o transport=rdma", "--volfile-id=v.rdma"),
            ("h:/v.rdma /mnt", "--volfile-id=v.rdma"),
            ("h:/v.rdma /mnt -o transport=rdma", "--volfile-id=v.rdma"),
            ("h:/v/sub /mnt -o transport=sdp", "--volfile-id=v.sdp"),
        ] {
            let arguments = plan(line).unwrap().arguments;
            assert!(arguments.iter().any(|argument| argument == id), "{line}: {arguments:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, code, part) in [
            ("debian1:/gv0", USAGE, "Usage"),
            ("debian1 /mnt", USAGE, "Server name/volume name unspecified"),
            (":/gv0 /mnt", USAGE, "unspecified"),
            ("h:/ /mnt", USAGE, "unspecified"),
            ("h:/v /mnt -o bogus", USAGE, "Invalid option bogus"),
            ("h:/v /mnt -o bogus=1", USAGE, "Invalid option: bogus"),
            ("h:/v /mnt -o auto_unmount", USAGE, "auto_unmount is not supported"),
            ("h:/v /mnt -o halo-max-latency=far", USAGE, "no number"),
            ("h:/v /mnt -o transport=pigeon", USAGE, "pigeon is not supported"),
            ("h:/v /mnt -o backup-volfile-servers=[::1", USAGE, "Invalid backup-volfile-servers"),
            ("--evil:/v /mnt", USAGE, "Usage"),
            ("a,--evil:/v /mnt", USAGE, "no valid server name"),
            ("h:/v /mnt -o", USAGE, "Usage"),
        ] {
            let refusal = plan(line).unwrap_err();
            assert!(refusal.code == code && refusal.message.contains(part), "{line}: {refusal:?}");
        }
    }

    #[test]
    fn mount_points_are_checked() {
        assert!(check_mount_point(Path::new("/no/such/place")).unwrap_err().message.contains("does not exist"));
        assert_eq!(check_mount_point(Path::new("/")).unwrap_err().code, SYSTEM);
    }
}
