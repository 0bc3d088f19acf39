//! What bricks keep in xattrs and handles: names and parents, times, ACLs. The first byte chooses.
#![no_main]

use ladrillo_engine::storage::acl;
use ladrillo_engine::storage::handle::{check_name, directory_link, gfid2path, parse_directory_link, parse_gfid2path};
use ladrillo_engine::storage::inode::{decode_mdata, encode_mdata};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, raw)) = data.split_first() else { return };
    match which {
        0 => {
            let Some((parent, name)) = parse_directory_link(raw) else { return };
            check_name(&name).expect("a handle names an entry");
            assert_eq!(directory_link(parent, &name), raw);
        }
        1 => {
            let Some((parent, name)) = parse_gfid2path(raw) else { return };
            let (_, again) = gfid2path(parent, name);
            assert_eq!(parse_gfid2path(&again), Some((parent, name)));
        }
        2 => {
            let Some(mdata) = decode_mdata(raw) else { return };
            let again = encode_mdata(&mdata);
            assert_eq!((decode_mdata(&again), again.len()), (Some(mdata), raw.len()));
        }
        3 => {
            let Some(kernel) = acl::from_text(raw) else { return };
            let text = acl::to_text(&kernel).expect("what was made of a text has a text");
            assert_eq!(acl::from_text(text.as_bytes()), Some(kernel));
        }
        _ => {
            let Some(text) = acl::to_text(raw) else { return };
            // An ACL of more entries than we take has a text that is refused.
            assert!(acl::from_text(text.as_bytes()).is_some() || raw.len() > 4096 * 8);
        }
    }
});
