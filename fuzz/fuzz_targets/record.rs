//! A byte stream in pieces (the first byte says how long), as records, as RPC messages.
#![no_main]

use ladrillo_transport::rpc::{self, Incoming};
use ladrillo_transport::{Message, RecordReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let mut reader = RecordReader::with_limit(1 << 20);
    for piece in stream.chunks(usize::from(*step).max(1)) {
        assert!(reader.wanted() > 0 && reader.wanted() <= (1 << 20) + (64 << 10));
        reader.feed(piece);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => decode(record),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn decode(record: bytes::Bytes) {
    match rpc::decode_record(record) {
        Ok(Incoming::Call(h, body)) => {
            let message = Message { header: body.clone(), ..Message::default() };
            // What fits no credential of ours (too many groups for its lock owner) may be refused or cut.
            let Ok(call) = rpc::encode_call(h.xid, h.program, h.version, h.procedure, &h.credential, message) else {
                return;
            };
            let Ok(Incoming::Call(again, rest)) = rpc::decode_record(call.header) else { panic!("a call") };
            assert_eq!((again.xid, again.program, again.procedure, rest), (h.xid, h.program, h.procedure, body));
        }
        Ok(Incoming::Reply(header, body)) => {
            let message = Message { header: body, ..Message::default() };
            let reply = rpc::encode_reply(header.xid, header.status, message);
            let Ok(Incoming::Reply(again, _)) = rpc::decode_record(reply.header) else { panic!("a reply") };
            assert_eq!(again, header);
        }
        Err(_) => {}
    }
}
