//! A procedure number in the first byte, then the body of a request: what decodes, encodes and decodes to the same.
#![no_main]

use bytes::Bytes;
use ladrillo_transport::program::fop4;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((procedure, body)) = data.split_first() else { return };
    let Ok(fop) = fop4::decode_request(u32::from(*procedure), Bytes::copy_from_slice(body)) else { return };
    let (number, message) = fop4::encode_request(&fop).expect("what was decoded can be encoded");
    assert_eq!(number, u32::from(*procedure));
    let body = [message.header.as_ref(), message.payload.as_slice()].concat();
    let again = fop4::decode_request(number, body.into()).expect("what was encoded can be decoded");
    assert_eq!(format!("{fop:?}"), format!("{again:?}"));
});
