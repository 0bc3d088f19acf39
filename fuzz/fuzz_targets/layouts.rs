//! What clients read of directories and files: distribute's layouts and AFR's changelogs.
#![no_main]

use ladrillo_fuse_client::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzzing::layout(data);
    fuzzing::changelog(data);
});
