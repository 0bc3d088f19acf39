//! The two ways a mount gets its requests: /dev/fuse, and FUSE over io_uring where the kernel has it.

use std::fs;
use std::sync::Mutex;

/// Whether the kernel's FUSE offers io_uring to mounts that are made now.
const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// How many ask for it, and what the kernel had been told before.
static USERS: Mutex<(usize, bool)> = Mutex::new((0, false));

/// The kernel offers FUSE over io_uring while this lives; what it was told before is put back then.
#[derive(Debug)]
pub struct RingAllowed(());

impl RingAllowed {
    /// Tells the kernel; `Err` says why it cannot be had here.
    pub fn new() -> Result<RingAllowed, String> {
        let mut users = USERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if users.0 == 0 {
            let before = fs::read_to_string(PARAMETER).map_err(|error| format!("{PARAMETER}: {error}"))?;
            users.1 = before.trim() == "Y";
            if !users.1 {
                fs::write(PARAMETER, "Y").map_err(|error| format!("{PARAMETER} cannot be set: {error}"))?;
            }
        }
        users.0 += 1;
        Ok(RingAllowed(()))
    }
}

impl Drop for RingAllowed {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        users.0 -= 1;
        if users.0 == 0 && !users.1 {
            let _ = fs::write(PARAMETER, "N");
        }
    }
}

/// Runs a test with each front end there is here, by its name; says so where one is missing.
pub fn for_each_front_end(test: impl Fn(&str)) {
    println!("front end: device");
    test("device");
    match RingAllowed::new() {
        Ok(_allowed) => {
            println!("front end: ring");
            test("ring");
        }
        Err(reason) => println!("front end: ring is skipped: {reason}"),
    }
}
