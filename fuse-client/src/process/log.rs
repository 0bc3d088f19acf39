//! Logging to a file that can be rotated (SIGHUP opens it again).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where GlusterFS's logs are.
pub const LOG_DIRECTORY: &str = "/var/log/glusterfs";

/// The log of the process.
#[derive(Clone)]
pub struct Log {
    target: Arc<Mutex<Target>>,
}

enum Target {
    Console,
    File(PathBuf, File),
}

/// The level a name stands for (GlusterFS's names); `None` for no level.
pub fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_uppercase().as_str() {
        "NONE" => LevelFilter::OFF,
        "CRITICAL" | "ERROR" => LevelFilter::ERROR,
        "WARNING" => LevelFilter::WARN,
        "INFO" => LevelFilter::INFO,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" => LevelFilter::TRACE,
        _ => return None,
    })
}

/// The log of a mount at `mount_point`, by GlusterFS's rule: `/mnt/gv0` logs to `mnt-gv0.log`.
pub fn default_file(mount_point: Option<&Path>) -> PathBuf {
    let name = mount_point.map(|path| path.to_string_lossy().trim_matches('/').replace('/', "-"));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "glusterfs".to_owned());
    Path::new(LOG_DIRECTORY).join(format!("{name}.log"))
}

/// Starts logging; `file` `None` or `-` is the console.
///
/// # Errors
/// The file cannot be opened.
pub fn start(file: Option<&Path>, level: LevelFilter) -> io::Result<Log> {
    let target = match file {
        None => Target::Console,
        Some(path) if path == Path::new("-") || path == Path::new("/dev/stderr") => Target::Console,
        Some(path) => Target::File(path.to_owned(), open(path)?),
    };
    let log = Log { target: Arc::new(Mutex::new(target)) };
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).with_max_level(level).finish();
    // A second start in one process (tests) keeps the first one's log.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(log)
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl Log {
    /// Opens the file again, after it was rotated away.
    pub fn reopen(&self) {
        let mut target = self.target.lock();
        if let Target::File(path, file) = &mut *target
            && let Ok(fresh) = open(path)
        {
            *file = fresh;
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.target.lock() {
            Target::Console => io::stderr().write(bytes),
            Target::File(_, file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_mount_point() {
        assert_eq!(default_file(Some(Path::new("/mnt/gv0"))), Path::new("/var/log/glusterfs/mnt-gv0.log"));
        assert_eq!(default_file(Some(Path::new("/mnt/gv0/"))), Path::new("/var/log/glusterfs/mnt-gv0.log"));
        assert_eq!(default_file(None), Path::new("/var/log/glusterfs/glusterfs.log"));
        assert_eq!(level("warning"), Some(LevelFilter::WARN));
        assert_eq!(level("loud"), None);
    }
}
