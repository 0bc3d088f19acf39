//! Copies a directory tree into a volume, or out of one, without a mount, with progress.
//!
//!     copy_tree put SERVER VOLUME LOCAL-DIRECTORY VOLUME-DIRECTORY
//!     copy_tree get SERVER VOLUME VOLUME-DIRECTORY LOCAL-DIRECTORY
//!
//! Files, directories, symlinks, permissions and times; many files at once, as many as the library lets through.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use ladrillo_fuse_client::api::{OpenOptions, Volume, blocking};

type Outcome = Result<(), Box<dyn Error>>;

/// Files copied at once.
const AT_ONCE: usize = 32;
/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, server, volume, from, to] = &arguments[..] else {
        eprintln!("usage: copy_tree put|get SERVER VOLUME FROM TO");
        return ExitCode::from(64);
    };
    match blocking::wait(run(what, server, volume, Path::new(from), Path::new(to))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copy_tree: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(what: &str, server: &str, volume: &str, from: &Path, to: &Path) -> Outcome {
    let volume = Volume::open(server, volume).await?;
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg} {bytes} {binary_bytes_per_sec} {elapsed}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let copied = match what {
        "put" => put(&volume, from, to, &bar).await,
        "get" => get(&volume, from, to, &bar).await,
        other => Err(format!("{other:?}: put and get are known").into()),
    };
    // Whatever came of it: what was written is to be on the bricks before this ends.
    let closed = volume.close().await;
    let files = copied?;
    closed?;
    bar.finish_and_clear();
    println!("{files} files, {} bytes in {:.1?}", bar.position(), bar.elapsed());
    Ok(())
}

/// Runs copies, [`AT_ONCE`] at a time.
struct Copies<'a> {
    running: FuturesUnordered<futures::future::LocalBoxFuture<'a, Outcome>>,
    bar: &'a ProgressBar,
    done: u64,
}

impl<'a> Copies<'a> {
    fn new(bar: &'a ProgressBar) -> Copies<'a> {
        Copies { running: FuturesUnordered::new(), bar, done: 0 }
    }

    async fn add(&mut self, copy: impl Future<Output = Outcome> + 'a) -> Outcome {
        self.running.push(Box::pin(copy));
        while self.running.len() >= AT_ONCE {
            self.one().await?;
        }
        Ok(())
    }

    async fn one(&mut self) -> Outcome {
        if let Some(outcome) = self.running.next().await {
            outcome?;
            self.done += 1;
            self.bar.set_message(format!("{} files", self.done));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, Box<dyn Error>> {
        while !self.running.is_empty() {
            self.one().await?;
        }
        Ok(self.done)
    }
}

async fn put(volume: &Volume, from: &Path, to: &Path, bar: &ProgressBar) -> Result<u64, Box<dyn Error>> {
    let mut copies = Copies::new(bar);
    let mut directories = vec![(from.to_path_buf(), to.to_path_buf())];
    // Directories get their times last: what is made in them changes those.
    let mut made = Vec::new();
    while let Some((from, to)) = directories.pop() {
        let metadata = fs::metadata(&from).map_err(|e| format!("{}: {e}", from.display()))?;
        volume.create_dir_all(&to, metadata.mode() & 0o7777).await?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                directories.push((path, target));
            } else if kind.is_symlink() {
                volume.symlink(fs::read_link(&path)?, &target).await?;
            } else if kind.is_file() {
                copies.add(put_file(volume, path, target, bar)).await?;
            } else {
                eprintln!("{}: neither file, directory nor symlink: left out", path.display());
            }
        }
        made.push((to, metadata));
    }
    let done = copies.finish().await?;
    for (to, metadata) in made {
        volume.set_times(&to, Some(metadata.accessed()?), Some(metadata.modified()?)).await?;
    }
    Ok(done)
}

async fn put_file(volume: &Volume, from: PathBuf, to: PathBuf, bar: &ProgressBar) -> Outcome {
    let local = fs::File::open(&from).map_err(|e| format!("{}: {e}", from.display()))?;
    let metadata = local.metadata()?;
    let mut options = OpenOptions::new();
    let file = volume.open_with(&to, options.write(true).truncate(true).create(metadata.mode() & 0o7777)).await?;
    let mut offset = 0;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = local.read_at(&mut piece, offset)?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        file.write_all_at(offset, piece).await.map_err(|e| format!("{}: {e}", to.display()))?;
        offset += read as u64;
        bar.inc(read as u64);
    }
    file.close().await?;
    volume.set_times(&to, Some(metadata.accessed()?), Some(metadata.modified()?)).await?;
    Ok(())
}

async fn get(volume: &Volume, from: &Path, to: &Path, bar: &ProgressBar) -> Result<u64, Box<dyn Error>> {
    let mut copies = Copies::new(bar);
    let mut directories = vec![(from.to_path_buf(), to.to_path_buf())];
    let mut made = Vec::new();
    while let Some((from, to)) = directories.pop() {
        let metadata = volume.metadata(&from).await?;
        fs::create_dir_all(&to)?;
        let mut entries = volume.read_dir(&from).await?;
        while let Some(entry) = entries.next_entry().await? {
            let (path, target) = (from.join(entry.file_name()), to.join(entry.file_name()));
            let metadata = match entry.metadata() {
                Some(metadata) => metadata,
                None => volume.symlink_metadata(&path).await?,
            };
            if metadata.is_dir() {
                directories.push((path, target));
            } else if metadata.is_symlink() {
                symlink(volume.read_link(&path).await?, &target)?;
            } else if metadata.is_file() {
                copies.add(get_file(volume, path, target, Arc::new(metadata), bar)).await?;
            } else {
                eprintln!("{}: neither file, directory nor symlink: left out", path.display());
            }
        }
        made.push((to, metadata));
    }
    let done = copies.finish().await?;
    for (to, metadata) in made {
        fs::set_permissions(&to, fs::Permissions::from_mode(metadata.permissions()))?;
        let times = fs::FileTimes::new().set_accessed(metadata.accessed()).set_modified(metadata.modified());
        fs::File::open(&to)?.set_times(times)?;
    }
    Ok(done)
}

async fn get_file(
    volume: &Volume,
    from: PathBuf,
    to: PathBuf,
    metadata: Arc<ladrillo_fuse_client::api::Metadata>,
    bar: &ProgressBar,
) -> Outcome {
    let file = volume.open_file(&from).await.map_err(|e| format!("{}: {e}", from.display()))?;
    let local = fs::File::create(&to).map_err(|e| format!("{}: {e}", to.display()))?;
    let mut offset = 0;
    loop {
        let piece = file.read_at(offset, PIECE_BYTES).await.map_err(|e| format!("{}: {e}", from.display()))?;
        if piece.is_empty() {
            break;
        }
        local.write_all_at(&piece, offset)?;
        offset += piece.len() as u64;
        bar.inc(piece.len() as u64);
    }
    local.set_permissions(fs::Permissions::from_mode(metadata.permissions()))?;
    let times = fs::FileTimes::new().set_accessed(metadata.accessed()).set_modified(metadata.modified());
    local.set_times(times)?;
    Ok(())
}
