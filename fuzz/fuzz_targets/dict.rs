//! Both forms of dicts: what decodes, encodes and decodes to the same.
#![no_main]

use bytes::Bytes;
use ladrillo_transport::dict::{Empty, decode_untyped, encode_untyped, read_dict, size_hint, write_dict};
use ladrillo_transport::xdr::{Reader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    if let Ok(dict) = read_dict(&mut Reader::new(data.clone())) {
        let mut writer = Writer::default();
        write_dict(&mut writer, &dict, Empty::Null);
        let wire = writer.finish();
        assert!(wire.len() <= size_hint(&dict));
        let again = read_dict(&mut Reader::new(wire)).expect("what was encoded can be decoded");
        assert_eq!(format!("{dict:?}"), format!("{again:?}"));
    }
    if let Ok(dict) = decode_untyped(data) {
        let again = decode_untyped(encode_untyped(&dict)).expect("what was encoded can be decoded");
        assert_eq!(dict, again);
    }
});
