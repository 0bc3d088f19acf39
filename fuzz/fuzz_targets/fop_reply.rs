//! A procedure number in the first byte, then the body of its reply: what decodes, encodes and decodes to the same.
#![no_main]

use bytes::Bytes;
use ladrillo_translator::FopKind;
use ladrillo_transport::program::fop4;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((procedure, body)) = data.split_first() else { return };
    let Some(kind) = FopKind::from_procedure(u32::from(*procedure)) else { return };
    let Ok((result, opened)) = fop4::decode_reply(kind, Bytes::copy_from_slice(body)) else { return };
    let message = fop4::encode_reply(kind, &result, opened);
    let body = [message.header.as_ref(), message.payload.as_slice()].concat();
    let (again, opened_again) = fop4::decode_reply(kind, body.into()).expect("what was encoded can be decoded");
    assert_eq!((format!("{result:?}"), opened), (format!("{again:?}"), opened_again));
});
