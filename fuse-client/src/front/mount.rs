//! Mounting and unmounting. fuser mounts and shakes hands with the kernel (INIT); everything after is ours.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{Config, InitFlags, KernelConfig, MountOption, Session, SessionACL};

use super::device;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What /proc/mounts shows as the source (`debian1:/gv0`).
    pub source: String,
    /// Mount flags and options for the kernel (`noatime`, `nodev`, ...), as in fstab.
    pub kernel: Vec<String>,
    /// Mount read-only.
    pub read_only: bool,
    /// POSIX ACLs: the kernel goes by them as well as by mode bits (the bricks always do).
    pub acl: bool,
    /// Largest write, in bytes.
    pub max_write_bytes: u32,
    /// Requests the kernel may queue in the background, and from when it holds writers back.
    pub background: u16,
    /// See `background`.
    pub congestion_threshold: u16,
    /// READDIRPLUS.
    pub readdirplus: bool,
    /// The kernel drops cached pages when it learns of a changed mtime or size.
    pub auto_invalidation: bool,
    /// The kernel's writeback cache.
    pub writeback_cache: bool,
    /// Granularity of times, in nanoseconds (a power of ten).
    pub time_granularity_ns: u32,
    /// Ask for FUSE over io_uring: where the kernel grants it, nothing goes on until [`super::ring`] serves it.
    pub over_io_uring: bool,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            source: "glusterfs".into(),
            kernel: Vec::new(),
            read_only: false,
            acl: false,
            max_write_bytes: 1 << 20,
            background: 64,
            congestion_threshold: 48,
            readdirplus: true,
            auto_invalidation: true,
            writeback_cache: false,
            time_granularity_ns: 1,
            over_io_uring: false,
        }
    }
}

/// A mounted file system. Dropping it does not unmount: see [`Mount::unmount`].
pub struct Mount {
    /// Never dropped: fuser's drop takes a dead connection for a mounted one, and would unmount what others have
    /// mounted at the path since.
    session: ManuallyDrop<Session<Handshake>>,
    mount_point: PathBuf,
    /// The mount's device number, by which it is told from others at the same place.
    device_number: Option<String>,
    over_io_uring: Arc<AtomicBool>,
}

/// What fuser calls at INIT.
struct Handshake {
    options: MountOptions,
    /// Whether the kernel granted it.
    over_io_uring: Arc<AtomicBool>,
}

impl fuser::Filesystem for Handshake {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let options = &self.options;
        let mut wanted = vec![
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
            // The umask is ours to apply: a default ACL replaces it.
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Shared mappings of files that bypass the cache otherwise.
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        if options.readdirplus {
            wanted.extend([InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO]);
        }
        if options.auto_invalidation {
            wanted.push(InitFlags::FUSE_AUTO_INVAL_DATA);
        }
        if options.writeback_cache {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        if options.acl {
            // The kernel then knows about search permission on names it has cached, which no brick is asked about.
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::info!("this kernel's FUSE lacks {missing:?}");
            }
        }
        if options.over_io_uring {
            let granted = config.add_capabilities(InitFlags::FUSE_OVER_IO_URING).is_ok();
            self.over_io_uring.store(granted, Ordering::Relaxed);
            // Entries of the ring hold the largest write; the kernel wants them to hold what it reads ahead as well. Refused
            // where it offers less anyhow.
            let _ = config.set_max_readahead(options.max_write_bytes);
        }
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is out of range"));
        config.set_max_write(options.max_write_bytes).map_err(|_| bad("max_write"))?;
        config.set_max_background(options.background).map_err(|_| bad("background-qlen"))?;
        config.set_congestion_threshold(options.congestion_threshold).map_err(|_| bad("congestion-threshold"))?;
        let granularity = std::time::Duration::from_nanos(u64::from(options.time_granularity_ns.max(1)));
        config.set_time_granularity(granularity).map_err(|_| bad("attr-times-granularity"))?;
        Ok(())
    }
}

impl Mount {
    /// Mounts at `mount_point`.
    ///
    /// # Errors
    /// No such directory, an unknown mount option, no /dev/fuse, no right to mount.
    pub fn new(mount_point: &Path, options: &MountOptions) -> io::Result<Mount> {
        let path = mount_point
            .canonicalize()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", mount_point.display())))?;
        let mut config = Config::default();
        config.mount_options = kernel_options(options)?;
        config.acl = SessionACL::All;
        let over_io_uring = Arc::new(AtomicBool::new(false));
        let handshake = Handshake { options: options.clone(), over_io_uring: over_io_uring.clone() };
        let session = Session::new(handshake, &path, &config)?;
        let device_number = mounted_at(&path);
        Ok(Mount { session: ManuallyDrop::new(session), mount_point: path, device_number, over_io_uring })
    }

    /// Whether the kernel sends its requests over io_uring.
    pub fn is_over_io_uring(&self) -> bool {
        self.over_io_uring.load(Ordering::Relaxed)
    }

    /// A descriptor to serve it on.
    ///
    /// # Errors
    /// See [`device::clone_device`].
    pub fn device(&self) -> io::Result<OwnedFd> {
        device::clone_device(self.session.as_fd())
    }

    /// To tell the kernel about changes.
    pub fn notifier(&self) -> fuser::Notifier {
        self.session.notifier()
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Takes it out of the tree at once; files that are open stay usable as long as this process serves them. Nothing
    /// when somebody else has unmounted it.
    ///
    /// # Errors
    /// umount2(2)'s.
    pub fn unmount(&self) -> io::Result<()> {
        if self.device_number.is_none() || mounted_at(&self.mount_point) != self.device_number {
            return Ok(());
        }
        rustix::mount::unmount(&self.mount_point, rustix::mount::UnmountFlags::DETACH)?;
        Ok(())
    }
}

/// The device number (`0:53`) of what is mounted on top at `path`, from /proc/self/mountinfo (proc(5)): no system call
/// that would ask the file system itself.
pub fn mounted_at(path: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let wanted = escaped(path);
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (Some(device), Some(point)) = (fields.next(), fields.nth(1)) else { continue };
        if *point == *wanted {
            found = Some(String::from_utf8_lossy(device).into_owned());
        }
    }
    found
}

/// As mountinfo writes it: space, tab, newline and backslash in octal.
fn escaped(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            byte => out.push(*byte),
        }
    }
    out
}

fn kernel_options(options: &MountOptions) -> io::Result<Vec<MountOption>> {
    // As GlusterFS mounts: device nodes and set-id bits work unless told otherwise.
    let (mut dev, mut suid) = (MountOption::Dev, MountOption::Suid);
    let mut list = vec![
        MountOption::FSName(options.source.clone()),
        // /proc/mounts then shows fuse.glusterfs, which scripts look for.
        MountOption::CUSTOM("subtype=glusterfs".into()),
    ];
    list.push(MountOption::DefaultPermissions);
    if options.read_only {
        list.push(MountOption::RO);
    }
    for option in &options.kernel {
        match option.as_str() {
            ""
            | "rw"
            | "atime"
            | "exec"
            | "async"
            | "relatime"
            | "diratime"
            | "nostrictatime"
            | "nolazyatime"
            | "defaults"
            | "allow_other"
            | "default_permissions" => {}
            "ro" if options.read_only => {}
            "ro" => list.push(MountOption::RO),
            "dev" => dev = MountOption::Dev,
            "nodev" => dev = MountOption::NoDev,
            "suid" => suid = MountOption::Suid,
            "nosuid" => suid = MountOption::NoSuid,
            "noexec" => list.push(MountOption::NoExec),
            "noatime" => list.push(MountOption::NoAtime),
            "sync" => list.push(MountOption::Sync),
            "dirsync" => list.push(MountOption::DirSync),
            context if is_selinux_context(context) => list.push(MountOption::CUSTOM(context.into())),
            other => {
                let message = format!("mount option {other:?} is not supported");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
    }
    list.extend([dev, suid]);
    Ok(list)
}

fn is_selinux_context(option: &str) -> bool {
    ["context=", "fscontext=", "defcontext=", "rootcontext="].iter().any(|prefix| option.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_or_are_refused() {
        let with = |kernel: &[&str]| MountOptions {
            kernel: kernel.iter().map(|option| option.to_string()).collect(),
            ..MountOptions::default()
        };
        let list = kernel_options(&with(&["noatime", "nodev", "rw"])).unwrap();
        assert!(list.contains(&MountOption::NoAtime) && list.contains(&MountOption::NoDev));
        assert!(!list.contains(&MountOption::Dev) && list.contains(&MountOption::Suid));
        assert!(kernel_options(&with(&["bogus"])).unwrap_err().to_string().contains("bogus"));
        let acl = kernel_options(&MountOptions { acl: true, ..with(&[]) }).unwrap();
        assert!(acl.contains(&MountOption::DefaultPermissions));
    }

    #[test]
    fn mountinfo_is_read() {
        assert!(mounted_at(Path::new("/proc")).is_some());
        assert_eq!(mounted_at(Path::new("/nothing/is/mounted here")), None);
        assert_eq!(escaped(Path::new("/a b\\c")), b"/a\\040b\\134c");
    }
}
