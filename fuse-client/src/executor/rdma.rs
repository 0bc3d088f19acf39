//! Verbs on this thread's executor: completions are taken by the thread that waits for them.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ladrillo_transport::verbs::{Driver, DriverConfig, Role, Windows};

use super::{poll_readable, spawn};

thread_local! {
    static DRIVER: RefCell<Option<Arc<Driver>>> = const { RefCell::new(None) };
}

/// Makes a driver that nobody runs any more forgotten: its executor has ended.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        let _ = DRIVER.try_with(|driver| driver.borrow_mut().take().map(|driver| driver.end()));
    }
}

/// The driver that this thread's executor runs; made when first asked for.
///
/// # Errors
/// `Unsupported` with the reason where RDMA cannot be had.
pub fn driver() -> io::Result<Arc<Driver>> {
    if let Some(driver) = DRIVER.with(|driver| driver.borrow().clone()) {
        return Ok(driver);
    }
    let driver = Driver::new(DriverConfig { role: Role::Client, windows: Windows::from_environment() })?;
    let readable = Arc::new(driver.as_fd().try_clone_to_owned()?);
    DRIVER.with(|current| *current.borrow_mut() = Some(driver.clone()));
    let running = Running;
    let runs = driver.clone();
    spawn(async move {
        let _running = running;
        while !runs.is_ending() {
            if let Err(error) = poll_readable(&readable).await {
                tracing::error!(%error, "waiting for RDMA events");
                return;
            }
            runs.progress();
        }
    });
    Ok(driver)
}
