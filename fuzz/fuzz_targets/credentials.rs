//! Credentials: flavor, length, body.
#![no_main]

use bytes::Bytes;
use ladrillo_translator::ClientId;
use ladrillo_transport::Credential;
use ladrillo_transport::credential::MAX_AUTH_BYTES;
use ladrillo_transport::xdr::{Reader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(credential) = Credential::read(&mut Reader::new(Bytes::copy_from_slice(data))) else { return };
    let context = credential.context(ClientId(1));
    assert_eq!(context.is_none(), matches!(credential, Credential::Unknown { .. }));
    let mut writer = Writer::default();
    if credential.write(&mut writer).is_ok() {
        assert!(writer.len() <= 8 + MAX_AUTH_BYTES);
        Credential::read(&mut Reader::new(writer.finish())).expect("what was encoded can be decoded");
    }
});
