//! glusterd's working directory: glusterd.info, volumes' info files, their bricks'.
#![no_main]

use ladrillo_mgmt::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzing::working_directory(data));
