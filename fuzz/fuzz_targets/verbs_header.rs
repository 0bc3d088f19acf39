//! A message of the verbs transport: its header, and how the record is put together; private data of a connection.
#![no_main]

use bytes::BytesMut;
use ladrillo_transport::verbs::core::{Assembly, From};
use ladrillo_transport::verbs::wire::{Header, Hello, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    let Ok((header, len)) = Header::decode(data) else { return };
    let mut again = BytesMut::new();
    header.encode(&mut again);
    assert_eq!(&again[..], &data[..len]);
    for chunks in [&header.reads, &header.writes] {
        let Ok(assembly) = Assembly::new(data.len() - len, chunks, header.kind == Kind::Chunks) else { continue };
        let mut at = 0;
        for piece in &assembly.pieces {
            assert!(piece.at == at && piece.len > 0);
            at += piece.len;
            match &piece.from {
                From::Inline(range) => assert!(range.end <= data.len() - len && range.len() == piece.len),
                From::Chunk(index, offset) => assert!(offset + piece.len <= chunks[*index].length as usize),
            }
        }
        assert_eq!(at, assembly.total);
    }
});
