//! From mount options to a served file system: which front end, and how it is set going.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use super::buffer::Pool;
use super::mount::{Mount, MountOptions};
use super::ring::{self, Plan, Ring};
use super::{Front, device};

/// Memory for requests of a mount, in bytes. Source: our bound (DESIGN: 64 MiB).
pub const BUFFER_BUDGET_BYTES: usize = 64 << 20;

/// Which front end a mount is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrontEnd {
    /// The ring where the kernel offers it, else the device.
    #[default]
    Auto,
    /// FUSE over io_uring, or no mount at all.
    Ring,
    /// /dev/fuse.
    Device,
}

impl FromStr for FrontEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<FrontEnd, String> {
        match text {
            "auto" => Ok(FrontEnd::Auto),
            ring::NAME => Ok(FrontEnd::Ring),
            device::NAME => Ok(FrontEnd::Device),
            other => Err(format!("unknown front end {other:?}: auto, ring or device")),
        }
    }
}

/// A mounted file system, and what is ready to serve it.
pub struct Mounted {
    /// The mount.
    pub mount: Mount,
    front: Arc<Front>,
    ring: Option<Ring>,
    max_write_bytes: usize,
}

/// Mounts at `path`, by the front end that was asked for or is the best there is.
///
/// # Errors
/// As [`Mount::new`]; the ring was asked for and cannot be had.
pub async fn mount(front: Arc<Front>, wanted: FrontEnd, path: &Path, options: &MountOptions) -> io::Result<Mounted> {
    let plan = match wanted {
        FrontEnd::Device => None,
        FrontEnd::Auto if !ring::is_offered() => None,
        FrontEnd::Ring if !ring::is_offered() => return Err(unavailable("the kernel does not offer it")),
        FrontEnd::Auto | FrontEnd::Ring => match Plan::new(BUFFER_BUDGET_BYTES, options.max_write_bytes) {
            Ok(plan) => Some(plan),
            Err(error) if wanted == FrontEnd::Ring => return Err(error),
            Err(error) => {
                tracing::info!("no FUSE over io_uring: {error}");
                None
            }
        },
    };
    if let Some(plan) = plan {
        match over_io_uring(&front, path, options, plan).await? {
            Ok(mounted) => return Ok(mounted),
            Err(error) if wanted == FrontEnd::Ring => return Err(error),
            Err(error) => tracing::warn!("mounting without FUSE over io_uring: {error}"),
        }
    }
    let mount = Mount::new(path, options)?;
    front.served_by(device::NAME);
    Ok(Mounted { mount, front, ring: None, max_write_bytes: options.max_write_bytes as usize })
}

/// The inner error: it can be had without.
async fn over_io_uring(
    front: &Arc<Front>,
    path: &Path,
    options: &MountOptions,
    plan: Plan,
) -> io::Result<io::Result<Mounted>> {
    let options = MountOptions { over_io_uring: true, max_write_bytes: plan.max_write_bytes, ..options.clone() };
    let mount = Mount::new(path, &options)?;
    if !mount.is_over_io_uring() {
        mount.unmount()?;
        return Ok(Err(unavailable("the kernel did not grant it")));
    }
    match ring::register(front.clone(), &mount, plan, BUFFER_BUDGET_BYTES).await {
        Ok(ring) => {
            tracing::info!(queues = plan.queues, depth = plan.depth, "FUSE over io_uring");
            front.served_by(ring::NAME);
            let (front, max_write_bytes) = (front.clone(), plan.max_write_bytes as usize);
            Ok(Ok(Mounted { mount, front, ring: Some(ring), max_write_bytes }))
        }
        Err(error) => {
            mount.unmount()?;
            Ok(Err(io::Error::new(error.kind(), format!("FUSE over io_uring cannot be set up: {error}"))))
        }
    }
}

fn unavailable(why: &str) -> io::Error {
    let help = "Linux 6.14 or later, and `echo Y > /sys/module/fuse/parameters/enable_uring`";
    io::Error::new(io::ErrorKind::Unsupported, format!("FUSE over io_uring: {why} ({help})"))
}

/// Serves requests; completes when the file system was unmounted.
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>>>>;

impl Mounted {
    /// Begins to serve.
    ///
    /// # Errors
    /// See [`device::clone_device`].
    pub fn serve(self) -> io::Result<(Mount, Serving)> {
        let device = match self.mount.device() {
            Ok(device) => device,
            Err(error) => {
                let _ = self.mount.unmount();
                return Err(error);
            }
        };
        // With a ring what comes by the device is small, and done with at once.
        let budget = if self.ring.is_some() { 0 } else { BUFFER_BUDGET_BYTES };
        let pool = Pool::new(budget, device::request_bytes(self.max_write_bytes));
        let by_device = device::serve(self.front.clone(), device, pool, self.max_write_bytes);
        let serving: Serving = match self.ring {
            Some(ring) => Box::pin(ring.serve(by_device)),
            None => Box::pin(by_device),
        };
        Ok((self.mount, serving))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_ends_have_names() {
        assert_eq!("auto".parse(), Ok(FrontEnd::Auto));
        assert_eq!(ring::NAME.parse(), Ok(FrontEnd::Ring));
        assert_eq!(device::NAME.parse(), Ok(FrontEnd::Device));
        assert!("epoll".parse::<FrontEnd>().unwrap_err().contains("epoll"));
    }
}
