//! Records that GlusterFS 10.3's client, bricks and glusterd sent each other, decoded and encoded again byte for byte.
//!
//! The fixture is a sequence of record-marked call/reply pairs out of a capture of a replica 3 volume being mounted,
//! written, listed, locked, renamed and healed.

use bytes::Bytes;
use ladrillo_translator::{Fop, FopKind, Reply};
use ladrillo_transport::program::{dump, fop4, handshake, portmap};
use ladrillo_transport::rpc::{self, AcceptStatus, CallHeader, Incoming};
use ladrillo_transport::{Message, RecordReader};

struct Pair {
    call: Bytes,
    header: CallHeader,
    arguments: Bytes,
    reply: Bytes,
    result: Bytes,
}

fn session() -> Vec<Pair> {
    let mut reader = RecordReader::new();
    reader.feed(include_bytes!("fixtures/gluster-10.3-session.rpc"));
    let mut pairs = Vec::new();
    while let Some(call) = reader.next_record().unwrap() {
        let reply = reader.next_record().unwrap().expect("a reply to every call");
        let Ok(Incoming::Call(header, arguments)) = rpc::decode_record(call.clone()) else { panic!("not a call") };
        let Ok(Incoming::Reply(reply_header, result)) = rpc::decode_record(reply.clone()) else { panic!("no reply") };
        assert_eq!((reply_header.xid, reply_header.status), (header.xid, AcceptStatus::Success));
        pairs.push(Pair { call, header, arguments, reply, result });
    }
    assert!(reader.at_boundary());
    pairs
}

fn joined(message: Message) -> Vec<u8> {
    let mut bytes = message.header.to_vec();
    bytes.extend_from_slice(message.payload.as_slice());
    bytes.resize(bytes.len() + usize::from(message.padding), 0);
    bytes
}

/// Equal but for how an empty dict is written: no dict (-1) and a dict without pairs (0) mean the same to us.
fn assert_same(what: &str, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len(), "{what}: length\n ours {ours:02x?}\nstock {theirs:02x?}");
    for at in (0..ours.len()).step_by(4) {
        let end = (at + 4).min(ours.len());
        if ours[at..end] == theirs[at..end] {
            continue;
        }
        let empty_dict = at >= 4
            && ours[at - 4..at] == [0; 4]
            && ours.get(at + 4..at + 8) == Some(&[0; 4])
            && [&ours[at..end], &theirs[at..end]].iter().all(|word| **word == [0xff; 4] || **word == [0; 4]);
        assert!(empty_dict, "{what}: byte {at}\n ours {ours:02x?}\nstock {theirs:02x?}");
    }
}

fn fop_pairs() -> impl Iterator<Item = Pair> {
    session().into_iter().filter(|pair| pair.header.program == fop4::PROGRAM)
}

#[test]
fn headers_and_credentials_come_back_as_sent() {
    let pairs = session();
    assert!(pairs.len() > 50);
    for pair in pairs {
        let h = &pair.header;
        let body = Message { header: pair.arguments.clone(), ..Message::default() };
        let again = rpc::encode_call(h.xid, h.program, h.version, h.procedure, &h.credential, body).unwrap();
        assert_eq!(again.header, pair.call, "call {h:?}");
        let body = Message { header: pair.result.clone(), ..Message::default() };
        assert_eq!(rpc::encode_reply(h.xid, AcceptStatus::Success, body).header, pair.reply, "reply to {h:?}");
    }
}

#[test]
fn fop_requests_come_back_as_sent() {
    let mut kinds = std::collections::BTreeSet::new();
    for pair in fop_pairs() {
        let procedure = pair.header.procedure;
        let fop = fop4::decode_request(procedure, pair.arguments.clone())
            .unwrap_or_else(|error| panic!("procedure {procedure}: {error}"));
        let (number, message) = fop4::encode_request(&fop).unwrap();
        assert_eq!(number, procedure);
        if let Fop::Write { data, .. } = &fop {
            assert!(!data.is_empty() && message.payload == *data);
        }
        assert_same(&format!("{fop:?}"), &joined(message), &pair.arguments);
        kinds.insert(procedure);
    }
    assert!(kinds.len() >= 24, "the session has {kinds:?}");
}

#[test]
fn fop_replies_come_back_as_sent() {
    for pair in fop_pairs() {
        let kind = FopKind::from_procedure(pair.header.procedure).unwrap();
        let (result, opened) =
            fop4::decode_reply(kind, pair.result.clone()).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let again = joined(fop4::encode_reply(kind, &result, opened));
        let mut theirs = pair.result.to_vec();
        // What stock leaves in op_errno beside success, and in op_ret where only its sign counts, says nothing
        // (the one exception, ENOENT at the end of a directory, is checked below).
        if result.is_ok() {
            theirs[4..8].copy_from_slice(&again[4..8]);
            if matches!(result, Ok(Reply::Xattrs { .. } | Reply::Done { .. } | Reply::Seek { .. })) {
                theirs[..4].copy_from_slice(&again[..4]);
            }
        } else if kind == FopKind::Lookup {
            // Stock adds the parent's attributes to a failed lookup.
            let parent = theirs.len() - 148;
            theirs[parent..].fill(0);
        }
        assert_same(&format!("{kind:?} {result:?}"), &again, &theirs);
    }
}

#[test]
fn the_end_of_a_directory_is_marked_as_stock_does() {
    let mut ends = 0;
    for pair in fop_pairs() {
        let Some(kind @ (FopKind::Readdir | FopKind::Readdirp)) = FopKind::from_procedure(pair.header.procedure) else {
            continue;
        };
        let (result, _) = fop4::decode_reply(kind, pair.result.clone()).unwrap();
        let Ok(Reply::Entries { entries, .. }) = &result else { panic!("{result:?}") };
        if entries.is_empty() {
            assert_eq!(fop4::encode_reply(kind, &result, None).header[..8], pair.result[..8]);
            ends += 1;
        }
    }
    assert!(ends > 0);
}

/// Rule 2 of the design: file data is never copied between the record and whoever uses it.
#[test]
fn payloads_stay_where_they_were_received() {
    let copied = ladrillo_translator::payload::copied_bytes();
    let mut seen = 0;
    for pair in fop_pairs() {
        let (data, record) = match FopKind::from_procedure(pair.header.procedure) {
            Some(FopKind::Write) => {
                let fop = fop4::decode_request(pair.header.procedure, pair.arguments.clone()).unwrap();
                let (_, message) = fop4::encode_request(&fop).unwrap();
                let Fop::Write { data, .. } = fop else { panic!("a write") };
                assert_eq!(message.payload.as_slice().as_ptr(), data.as_slice().as_ptr(), "shared on the way out");
                (data, &pair.call)
            }
            Some(kind @ FopKind::Read) => {
                let (result, _) = fop4::decode_reply(kind, pair.result.clone()).unwrap();
                let message = fop4::encode_reply(kind, &result, None);
                let Ok(Reply::Read { data, .. }) = result else { panic!("a read") };
                assert_eq!(message.payload.as_slice().as_ptr(), data.as_slice().as_ptr(), "shared on the way out");
                (data, &pair.reply)
            }
            _ => continue,
        };
        assert!(!data.is_empty() && record.as_ptr_range().contains(&data.as_slice().as_ptr()), "sliced on the way in");
        seen += 1;
    }
    assert!(seen >= 2);
    assert_eq!(ladrillo_translator::payload::copied_bytes(), copied);
}

/// Every cut of every record of the session is refused or understood, and never panics.
#[test]
fn truncated_records_never_panic() {
    for pair in fop_pairs() {
        let kind = FopKind::from_procedure(pair.header.procedure).unwrap();
        for end in 0..pair.arguments.len() {
            let _ = fop4::decode_request(pair.header.procedure, pair.arguments.slice(..end));
        }
        for end in 0..pair.result.len() {
            let _ = fop4::decode_reply(kind, pair.result.slice(..end));
        }
        for end in 0..pair.call.len() {
            let _ = rpc::decode_record(pair.call.slice(..end));
        }
    }
}

#[test]
fn handshakes_come_back_as_sent() {
    let mut seen = std::collections::BTreeSet::new();
    for Pair { header, arguments, result, .. } in session() {
        let (call, reply) = match (header.program, header.procedure) {
            (handshake::PROGRAM, handshake::PROC_SETVOLUME) => {
                let request = handshake::Setvolume::decode(arguments.clone()).unwrap();
                assert_eq!(request.dict.text("fops-version"), Some("1298437"));
                let answer = handshake::Answer::decode(result.clone()).unwrap();
                assert_eq!((answer.dict.int("child_up"), answer.dict.int("clnt-lk-version")), (Some(1), Some(0)));
                (request.encode(), answer.encode())
            }
            (handshake::PROGRAM, handshake::PROC_GETSPEC) => {
                let request = handshake::Getspec::decode(arguments.clone()).unwrap();
                let reply = handshake::GetspecReply::decode(result.clone()).unwrap();
                assert_eq!(reply.op_ret as usize, reply.spec.len());
                (request.encode(), reply.encode())
            }
            (portmap::PROGRAM, portmap::PROC_PORTBYBRICK) => (
                portmap::PortByBrick::decode(arguments.clone()).unwrap().encode(),
                portmap::PortByBrickReply::decode(result.clone()).unwrap().encode(),
            ),
            (portmap::PROGRAM, portmap::PROC_SIGNIN) => (
                portmap::Signin::decode(arguments.clone()).unwrap().encode(),
                portmap::Status::decode(result.clone()).unwrap().encode(),
            ),
            (dump::PROGRAM, dump::PROC_DUMP) => {
                let reply = dump::Reply::decode(result.clone()).unwrap();
                assert!(reply.has(handshake::PROGRAM, handshake::VERSION));
                (dump::encode_request(), reply.encode())
            }
            (dump::PROGRAM, dump::PROC_PING) => {
                (Message::default(), dump::PingReply::decode(result.clone()).unwrap().encode())
            }
            (fop4::PROGRAM, _) => continue,
            other => panic!("{other:?}"),
        };
        assert_eq!(call.header, arguments, "{header:?}");
        assert_eq!(reply.header, result, "{header:?}");
        seen.insert((header.program, header.procedure));
    }
    assert_eq!(seen.len(), 6);
}
