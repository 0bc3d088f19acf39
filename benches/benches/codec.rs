//! The wire's hot paths: WRITE of 4 KiB, LOOKUP's reply, the RPC header.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use ladrillo_translator::fop::File;
use ladrillo_translator::{Context, Dict, FdId, Fop, FopKind, Gfid, Iatt, LockOwner, Payload, Reply, Value};
use ladrillo_transport::program::fop4;
use ladrillo_transport::rpc::{self, AcceptStatus};
use ladrillo_transport::xdr::Writer;
use ladrillo_transport::{Credential, Message};

fn write_4k() -> Fop {
    Fop::Write {
        file: File { gfid: Gfid([7; 16]), fd: Some(FdId(12)) },
        offset: 4096,
        data: Payload::from_bytes(Bytes::from(vec![7; 4096])),
        flags: 0,
        xdata: Dict::new(),
    }
}

fn lookup_reply() -> Reply {
    let iatt = Iatt { gfid: Gfid([7; 16]), mode: 0o100644, size_bytes: 4096, ..Iatt::default() };
    let xdata = Dict::new()
        .with("trusted.afr.dirty", Value::Ptr(Bytes::from_static(&[0; 12])))
        .with("glusterfs.inodelk-count", Value::Int(0))
        .with("link-count", Value::Uint(0));
    Reply::Lookup { iatt: Box::new(iatt.clone()), parent: Box::new(iatt), xdata }
}

fn joined(message: Message) -> Bytes {
    [message.header.as_ref(), message.payload.as_slice()].concat().into()
}

fn codec(c: &mut Criterion) {
    let context = Context { lock_owner: LockOwner::from_u64(77), ..Context::root() };
    let write = write_4k();
    c.bench_function("encode WRITE 4 KiB with its header", |b| {
        b.iter(|| {
            let mut writer = Writer::with_capacity(512);
            let kind = FopKind::Write.procedure();
            let credential = Credential::v3(&context);
            rpc::write_call_header(&mut writer, 9, fop4::PROGRAM, fop4::VERSION, kind, &credential).unwrap();
            let payload = fop4::write_request(&mut writer, black_box(&write)).unwrap();
            Message { header: writer.finish(), payload, padding: 0 }
        });
    });

    let (procedure, body) = fop4::encode_request(&write).unwrap();
    let credential = Credential::v3(&context);
    let record =
        joined(rpc::encode_call(9, fop4::PROGRAM, fop4::VERSION, procedure, &credential, body.clone()).unwrap());
    c.bench_function("decode WRITE 4 KiB with its header", |b| {
        b.iter(|| {
            let Ok(rpc::Incoming::Call(header, body)) = rpc::decode_record(black_box(record.clone())) else {
                panic!("a call")
            };
            fop4::decode_request(header.procedure, body).unwrap()
        });
    });

    let reply = Ok(lookup_reply());
    c.bench_function("encode LOOKUP reply with its header", |b| {
        b.iter(|| {
            let mut writer = Writer::with_capacity(768);
            rpc::write_reply_header(&mut writer, 9, AcceptStatus::Success);
            fop4::write_reply(&mut writer, FopKind::Lookup, black_box(&reply), None);
            writer.finish()
        });
    });
    let body = joined(fop4::encode_reply(FopKind::Lookup, &reply, None));
    c.bench_function("decode LOOKUP reply", |b| {
        b.iter(|| fop4::decode_reply(FopKind::Lookup, black_box(body.clone())).unwrap());
    });

    c.bench_function("RPC call header", |b| {
        let credential = Credential::v3(&context);
        b.iter(|| {
            let call =
                rpc::encode_call(9, fop4::PROGRAM, fop4::VERSION, 27, black_box(&credential), Message::default());
            rpc::decode_record(call.unwrap().header).unwrap()
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
