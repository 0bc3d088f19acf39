//! `gluster` with any words.
#![no_main]

use ladrillo_mgmt::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzing::command_line(data));
