//! FUSE requests: header, fixed arguments, names, data.
#![no_main]

use ladrillo_fuse_client::front::parse::{Call, parse_contiguous, parse_header};
use ladrillo_translator::error::errno;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(mut header) = parse_header(data) else { return };
    let _ = parse_contiguous(&header, data);
    header.len = data.len() as u32;
    match parse_contiguous(&header, data) {
        Ok(Call::Write { data: range, .. }) => assert!(data.get(range).is_some()),
        Ok(Call::Forget(forgets)) => assert!(forgets.len() <= data.len() / 8),
        Ok(Call::Lookup { name }) => assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/')),
        Ok(_) => {}
        Err(error) => assert!([errno::EINVAL, errno::ENOSYS, errno::ENAMETOOLONG].contains(&error)),
    }
});
