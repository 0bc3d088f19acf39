//! Properties of the codecs: what is encoded is decoded to the same, what is garbage is an error and never a panic.

use bytes::Bytes;
use ladrillo_translator::fop::*;
use ladrillo_translator::iatt::{Mdata, SetattrValid};
use ladrillo_translator::*;
use ladrillo_transport::program::{callback, dump, fop4, handshake, portmap};
use ladrillo_transport::rpc::{self, Incoming};
use ladrillo_transport::{Message, RecordReader, dict, record_mark};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn text(max: usize) -> impl Strategy<Value = Bytes> {
    vec(1u8..=255, 0..max).prop_map(Bytes::from)
}

fn name() -> impl Strategy<Value = Name> {
    vec(1u8..=255, 1..=255).prop_filter_map("not a name", |name| {
        (!name.contains(&b'/') && name != b"." && name != b"..").then(|| Bytes::from(name))
    })
}

fn gfid() -> impl Strategy<Value = Gfid> {
    any::<[u8; 16]>().prop_map(Gfid)
}

fn time() -> impl Strategy<Value = Timespec> {
    (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanos)| Timespec { seconds, nanos })
}

fn iatt() -> impl Strategy<Value = Iatt> {
    (gfid(), any::<[u64; 8]>(), [time(), time(), time(), time()], any::<[u32; 4]>(), 1..u32::MAX).prop_map(
        |(gfid, n, [atime, mtime, ctime, btime], m, mode)| Iatt {
            flags: n[0],
            gfid,
            ino: n[1],
            dev: n[2],
            rdev: n[3],
            size_bytes: n[4],
            blocks: n[5],
            attributes: n[6],
            attributes_mask: n[7],
            atime,
            mtime,
            ctime,
            btime,
            nlink: m[0],
            uid: m[1],
            gid: m[2],
            block_size_bytes: m[3],
            mode,
        },
    )
}

fn boxed_iatt() -> impl Strategy<Value = Box<Iatt>> {
    iatt().prop_map(Box::new)
}

fn pre_post() -> impl Strategy<Value = Box<PrePost>> {
    (iatt(), iatt()).prop_map(|(pre, post)| Box::new(PrePost { pre, post }))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        (-1e300..1e300f64).prop_map(Value::Double),
        text(40).prop_map(Value::Str),
        bytes(40).prop_map(Value::Ptr),
        bytes(40).prop_map(Value::StrOld),
        boxed_iatt().prop_map(Value::Iatt),
        gfid().prop_map(Value::Gfid),
        [time(), time(), time()].prop_map(|[atime, mtime, ctime]| Value::Mdata(Mdata { atime, mtime, ctime })),
    ]
}

fn pairs() -> impl Strategy<Value = Dict> {
    vec((text(20), value()), 0..5).prop_map(|pairs| pairs.into_iter().collect())
}

fn file() -> impl Strategy<Value = File> {
    (gfid(), proptest::option::of(0..u64::MAX - 2)).prop_map(|(gfid, fd)| File { gfid, fd: fd.map(FdId) })
}

fn entry() -> impl Strategy<Value = Entry> {
    (gfid(), name()).prop_map(|(parent, name)| Entry { parent, name })
}

fn open_flags() -> impl Strategy<Value = u32> {
    any::<u32>().prop_map(fop4::open_flags_from_wire)
}

fn lock_type() -> impl Strategy<Value = LockType> {
    prop_oneof![Just(LockType::Read), Just(LockType::Write), Just(LockType::Unlock)]
}

fn lock_cmd() -> impl Strategy<Value = LockCmd> {
    prop_oneof![Just(LockCmd::Get), Just(LockCmd::Set), Just(LockCmd::SetWait)]
}

fn entrylk_cmd() -> impl Strategy<Value = EntrylkCmd> {
    prop_oneof![Just(EntrylkCmd::Lock), Just(EntrylkCmd::Unlock), Just(EntrylkCmd::TryLock)]
}

fn flock() -> impl Strategy<Value = Flock> {
    (lock_type(), any::<(u32, u64, u64, u32)>(), bytes(1025)).prop_map(|(kind, (whence, start, len, pid), owner)| {
        Flock { kind, whence, start, len, pid, owner: LockOwner(owner) }
    })
}

fn xattrop() -> impl Strategy<Value = XattropKind> {
    use XattropKind::*;
    prop::sample::select(vec![
        AddArray,
        AddArray64,
        OrArray,
        AndArray,
        GetAndSet,
        AddArrayWithDefault,
        AddArray64WithDefault,
    ])
}

fn payload() -> impl Strategy<Value = Payload> {
    bytes(300).prop_map(Payload::from_bytes)
}

/// Every fop there is: a new variant that is missing here makes the test of all kinds fail.
fn fop() -> BoxedStrategy<Fop> {
    let u = any::<u32>;
    let n = any::<u64>;
    let x = pairs;
    prop_oneof![
        (gfid(), proptest::option::of(entry()), x()).prop_map(|(gfid, entry, xdata)| Fop::Lookup {
            gfid,
            entry,
            xdata
        }),
        (gfid(), x()).prop_map(|(gfid, xdata)| Fop::Stat { gfid, xdata }),
        (file(), x()).prop_map(|(file, xdata)| Fop::Fstat { file, xdata }),
        (gfid(), boxed_iatt(), u(), x()).prop_map(|(gfid, iatt, v, xdata)| Fop::Setattr {
            gfid,
            iatt,
            valid: SetattrValid(v),
            xdata
        }),
        (file(), boxed_iatt(), u(), x()).prop_map(|(file, iatt, v, xdata)| Fop::Fsetattr {
            file,
            iatt,
            valid: SetattrValid(v),
            xdata
        }),
        (gfid(), u(), x()).prop_map(|(gfid, size_bytes, xdata)| Fop::Readlink { gfid, size_bytes, xdata }),
        (entry(), u(), n(), u(), x()).prop_map(|(entry, mode, rdev, umask, xdata)| Fop::Mknod {
            entry,
            mode,
            rdev,
            umask,
            xdata
        }),
        (entry(), u(), u(), x()).prop_map(|(entry, mode, umask, xdata)| Fop::Mkdir { entry, mode, umask, xdata }),
        (entry(), text(100), u(), x()).prop_map(|(entry, target, umask, xdata)| Fop::Symlink {
            entry,
            target,
            umask,
            xdata
        }),
        (gfid(), entry(), x()).prop_map(|(gfid, entry, xdata)| Fop::Link { gfid, entry, xdata }),
        (entry(), u(), x()).prop_map(|(entry, flags, xdata)| Fop::Unlink { entry, flags, xdata }),
        (entry(), u(), x()).prop_map(|(entry, flags, xdata)| Fop::Rmdir { entry, flags, xdata }),
        (entry(), entry(), x()).prop_map(|(from, to, xdata)| Fop::Rename { from, to, xdata }),
        (entry(), open_flags(), u(), u(), x()).prop_map(|(entry, flags, mode, umask, xdata)| Fop::Create {
            entry,
            flags,
            mode,
            umask,
            fd: FdId(0),
            xdata
        }),
        (gfid(), open_flags(), x()).prop_map(|(gfid, flags, xdata)| Fop::Open { gfid, flags, fd: FdId(0), xdata }),
        (gfid(), x()).prop_map(|(gfid, xdata)| Fop::Opendir { gfid, fd: FdId(0), xdata }),
        file().prop_map(|file| Fop::Release { file }),
        file().prop_map(|file| Fop::Releasedir { file }),
        (file(), n(), u(), u(), x()).prop_map(|(file, offset, size_bytes, flags, xdata)| Fop::Read {
            file,
            offset,
            size_bytes,
            flags,
            xdata
        }),
        (file(), n(), payload(), u(), x()).prop_map(|(file, offset, data, flags, xdata)| Fop::Write {
            file,
            offset,
            data,
            flags,
            xdata
        }),
        (gfid(), n(), x()).prop_map(|(gfid, size_bytes, xdata)| Fop::Truncate { gfid, size_bytes, xdata }),
        (file(), n(), x()).prop_map(|(file, size_bytes, xdata)| Fop::Ftruncate { file, size_bytes, xdata }),
        (file(), x()).prop_map(|(file, xdata)| Fop::Flush { file, xdata }),
        (file(), any::<bool>(), x()).prop_map(|(file, datasync, xdata)| Fop::Fsync { file, datasync, xdata }),
        (file(), any::<bool>(), x()).prop_map(|(file, datasync, xdata)| Fop::Fsyncdir { file, datasync, xdata }),
        (gfid(), x()).prop_map(|(gfid, xdata)| Fop::Statfs { gfid, xdata }),
        (gfid(), u(), x()).prop_map(|(gfid, mask, xdata)| Fop::Access { gfid, mask, xdata }),
        (gfid(), x(), u(), x()).prop_map(|(gfid, xattrs, flags, xdata)| Fop::Setxattr { gfid, xattrs, flags, xdata }),
        (file(), x(), u(), x()).prop_map(|(file, xattrs, flags, xdata)| Fop::Fsetxattr { file, xattrs, flags, xdata }),
        (gfid(), text(60), x()).prop_map(|(gfid, name, xdata)| Fop::Getxattr { gfid, name, xdata }),
        (file(), text(60), x()).prop_map(|(file, name, xdata)| Fop::Fgetxattr { file, name, xdata }),
        (gfid(), text(60), x()).prop_map(|(gfid, name, xdata)| Fop::Removexattr { gfid, name, xdata }),
        (file(), text(60), x()).prop_map(|(file, name, xdata)| Fop::Fremovexattr { file, name, xdata }),
        (gfid(), xattrop(), x(), x()).prop_map(|(gfid, kind, xattrs, xdata)| Fop::Xattrop {
            gfid,
            kind,
            xattrs,
            xdata
        }),
        (file(), xattrop(), x(), x()).prop_map(|(file, kind, xattrs, xdata)| Fop::Fxattrop {
            file,
            kind,
            xattrs,
            xdata
        }),
        (file(), n(), u(), x()).prop_map(|(file, offset, size_bytes, xdata)| Fop::Readdir {
            file,
            offset,
            size_bytes,
            xdata
        }),
        (file(), n(), u(), x()).prop_map(|(file, offset, size_bytes, xdata)| Fop::Readdirp {
            file,
            offset,
            size_bytes,
            xdata
        }),
        (file(), lock_cmd(), flock(), x()).prop_map(|(file, cmd, flock, xdata)| Fop::Lk { file, cmd, flock, xdata }),
        (gfid(), text(40), lock_cmd(), flock(), x()).prop_map(|(gfid, domain, cmd, flock, xdata)| Fop::Inodelk {
            gfid,
            domain,
            cmd,
            flock,
            xdata
        }),
        (file(), text(40), lock_cmd(), flock(), x()).prop_map(|(file, domain, cmd, flock, xdata)| Fop::Finodelk {
            file,
            domain,
            cmd,
            flock,
            xdata
        }),
        (gfid(), text(40), proptest::option::of(name()), entrylk_cmd(), lock_type(), x())
            .prop_map(|(gfid, domain, name, cmd, kind, xdata)| Fop::Entrylk { gfid, domain, name, cmd, kind, xdata }),
        (file(), text(40), proptest::option::of(name()), entrylk_cmd(), lock_type(), x())
            .prop_map(|(file, domain, name, cmd, kind, xdata)| Fop::Fentrylk { file, domain, name, cmd, kind, xdata }),
        (file(), n(), u(), x()).prop_map(|(file, offset, len, xdata)| Fop::Rchecksum { file, offset, len, xdata }),
        (file(), u(), n(), n(), x()).prop_map(|(file, flags, offset, len, xdata)| Fop::Fallocate {
            file,
            flags,
            offset,
            len,
            xdata
        }),
        (file(), n(), n(), x()).prop_map(|(file, offset, len, xdata)| Fop::Discard { file, offset, len, xdata }),
        (file(), n(), n(), x()).prop_map(|(file, offset, len, xdata)| Fop::Zerofill { file, offset, len, xdata }),
        (file(), n(), any::<bool>(), x()).prop_map(|(file, offset, hole, xdata)| {
            let what = if hole { SeekWhat::Hole } else { SeekWhat::Data };
            Fop::Seek { file, offset, what, xdata }
        }),
        (file(), n(), file(), n(), u(), u(), x()).prop_map(|(from, from_offset, to, to_offset, len, flags, xdata)| {
            Fop::CopyFileRange { from, from_offset, to, to_offset, len: u64::from(len), flags, xdata }
        }),
        (any::<i32>(), x()).prop_map(|(op, xdata)| Fop::Ipc { op, xdata }),
        (gfid(), lease(), x()).prop_map(|(gfid, lease, xdata)| Fop::Lease { gfid, lease, xdata }),
        (gfid(), x()).prop_map(|(gfid, xdata)| Fop::Getactivelk { gfid, xdata }),
        (gfid(), active_locks(), x()).prop_map(|(gfid, locks, xdata)| Fop::Setactivelk { gfid, locks, xdata }),
        (gfid(), u(), x()).prop_map(|(gfid, mode, xdata)| Fop::Icreate { gfid, mode, xdata }),
        (entry(), x()).prop_map(|(entry, xdata)| Fop::Namelink { entry, xdata }),
        (entry(), any::<[u32; 2]>(), open_flags(), n(), payload(), x(), x()).prop_map(
            |(entry, [mode, umask], flags, offset, data, xattrs, xdata)| {
                Fop::Put { entry, mode, umask, flags, offset, data, xattrs, xdata }
            }
        ),
    ]
    .boxed()
}

fn lease() -> impl Strategy<Value = Lease> {
    (any::<[u32; 3]>(), any::<[u8; 16]>()).prop_map(|([cmd, kind, flags], id)| Lease { cmd, kind, id, flags })
}

fn active_locks() -> impl Strategy<Value = Vec<ActiveLock>> {
    let lock = (flock(), text(60), any::<u32>()).prop_map(|(flock, client, flags)| ActiveLock { flock, client, flags });
    vec(lock, 0..4)
}

fn dir_entry(plus: bool) -> impl Strategy<Value = DirEntry> {
    (any::<(u64, u64, u32)>(), name(), proptest::option::of(iatt()), pairs()).prop_map(
        move |((ino, offset, d_type), name, iatt, xdata)| match plus {
            true => DirEntry { ino, offset, d_type, name, iatt, xdata },
            false => DirEntry { ino, offset, d_type, name, iatt: None, xdata: Dict::new() },
        },
    )
}

/// A fitting answer to a fop of each shape, and what it has opened.
fn answer() -> BoxedStrategy<(FopKind, Reply, Option<FdId>)> {
    use FopKind as K;
    let x = pairs;
    let kind = |kinds: &'static [K]| prop::sample::select(kinds);
    let none = |(kind, reply): (K, Reply)| (kind, reply, None);
    prop_oneof![
        (boxed_iatt(), boxed_iatt(), x()).prop_map(|(iatt, parent, xdata)| (
            K::Lookup,
            Reply::Lookup { iatt, parent, xdata },
            None
        )),
        (kind(&[K::Stat, K::Fstat, K::Icreate]), boxed_iatt(), x())
            .prop_map(move |(k, iatt, xdata)| none((k, Reply::Iatt { iatt, xdata }))),
        (kind(&[K::Setattr, K::Fsetattr, K::Truncate, K::Fsync, K::Discard, K::Zerofill]), pre_post(), x())
            .prop_map(move |(k, attrs, xdata)| none((k, Reply::PrePost { attrs, written: 0, xdata }))),
        (0..=i32::MAX as u32, pre_post(), x()).prop_map(|(written, attrs, xdata)| (
            K::Write,
            Reply::PrePost { attrs, written, xdata },
            None
        )),
        (text(200), boxed_iatt(), x()).prop_map(|(target, iatt, xdata)| (
            K::Readlink,
            Reply::Readlink { target, iatt, xdata },
            None
        )),
        (kind(&[K::Mknod, K::Mkdir, K::Symlink, K::Link, K::Put]), boxed_iatt(), pre_post(), x())
            .prop_map(move |(k, iatt, parent, xdata)| none((k, Reply::Entry { iatt, parent, xdata }))),
        (any::<u64>(), boxed_iatt(), pre_post(), x()).prop_map(|(fd, iatt, parent, xdata)| (
            K::Create,
            Reply::Entry { iatt, parent, xdata },
            Some(FdId(fd))
        )),
        (kind(&[K::Open, K::Opendir]), any::<u64>(), x()).prop_map(|(k, fd, xdata)| (
            k,
            Reply::Done { xdata },
            Some(FdId(fd))
        )),
        (kind(&[K::Unlink, K::Rmdir, K::Namelink]), pre_post(), x())
            .prop_map(move |(k, parent, xdata)| none((k, Reply::Removed { parent, xdata }))),
        (boxed_iatt(), pre_post(), pre_post(), x()).prop_map(|(iatt, from_parent, to_parent, xdata)| {
            (K::Rename, Reply::Rename { iatt, from_parent, to_parent, xdata }, None)
        }),
        (payload(), boxed_iatt(), x()).prop_map(|(data, iatt, xdata)| (
            K::Read,
            Reply::Read { data, iatt, xdata },
            None
        )),
        (kind(&[K::Getxattr, K::Fgetxattr, K::Xattrop, K::Fxattrop]), x(), x())
            .prop_map(move |(k, xattrs, xdata)| none((k, Reply::Xattrs { xattrs, xdata }))),
        (vec(dir_entry(false), 0..5), x()).prop_map(|(entries, xdata)| (
            K::Readdir,
            Reply::Entries { entries, xdata },
            None
        )),
        (vec(dir_entry(true), 0..5), x()).prop_map(|(entries, xdata)| (
            K::Readdirp,
            Reply::Entries { entries, xdata },
            None
        )),
        (any::<[u64; 11]>(), x()).prop_map(|(n, xdata)| {
            let statfs = Statfs {
                block_size_bytes: n[0],
                fragment_size_bytes: n[1],
                blocks: n[2],
                blocks_free: n[3],
                blocks_available: n[4],
                files: n[5],
                files_free: n[6],
                files_available: n[7],
                fs_id: n[8],
                flags: n[9],
                name_max_bytes: n[10],
            };
            (K::Statfs, Reply::Statfs { statfs, xdata }, None)
        }),
        (flock(), x()).prop_map(|(flock, xdata)| (K::Lk, Reply::Lk { flock, xdata }, None)),
        (any::<(u32, u32)>(), bytes(33), x()).prop_map(|((weak, flags), strong, xdata)| {
            (K::Rchecksum, Reply::Rchecksum { weak, strong, flags, xdata }, None)
        }),
        (any::<u64>(), x()).prop_map(|(offset, xdata)| (K::Seek, Reply::Seek { offset, xdata }, None)),
        (0..=i32::MAX as u32, iatt(), pre_post(), x()).prop_map(|(copied, iatt, to, xdata)| {
            let from = Box::new(PrePost { pre: iatt.clone(), post: iatt.clone() });
            (K::CopyFileRange, Reply::CopyFileRange { copied, iatt: Box::new(iatt), from, to, xdata }, None)
        }),
        (lease(), x()).prop_map(|(lease, xdata)| (K::Lease, Reply::Lease { lease, xdata }, None)),
        (active_locks(), x()).prop_map(|(locks, xdata)| (K::Getactivelk, Reply::Activelk { locks, xdata }, None)),
        (kind(&[K::Setactivelk, K::Flush, K::Access, K::Setxattr, K::Inodelk, K::Fentrylk, K::Release, K::Ipc]), x())
            .prop_map(move |(k, xdata)| none((k, Reply::Done { xdata }))),
    ]
    .boxed()
}

fn joined(message: &Message) -> Bytes {
    [message.header.as_ref(), message.payload.as_slice()].concat().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn requests_round_trip(fop in fop()) {
        let (procedure, message) = fop4::encode_request(&fop).unwrap();
        let back = fop4::decode_request(procedure, joined(&message)).unwrap();
        prop_assert_eq!(format!("{back:?}"), format!("{fop:?}"));
    }

    #[test]
    fn replies_round_trip((kind, reply, opened) in answer()) {
        let message = fop4::encode_reply(kind, &Ok(reply.clone()), opened);
        let (back, opened_back) = fop4::decode_reply(kind, joined(&message)).unwrap();
        prop_assert_eq!(format!("{:?}", back.unwrap()), format!("{reply:?}"));
        prop_assert_eq!(opened_back, opened);
    }

    #[test]
    fn failures_round_trip(number in 1i32..1024, kind in 1u32..57, xdata in pairs()) {
        let Some(kind) = FopKind::from_procedure(kind) else { return Ok(()) };
        let error = FopError::new(number, "x").with_xdata(xdata.clone());
        let message = fop4::encode_reply(kind, &Err(error), None);
        let (back, opened) = fop4::decode_reply(kind, joined(&message)).unwrap();
        let back = back.unwrap_err();
        prop_assert_eq!((back.errno, opened), (number, None));
        prop_assert_eq!(back.xdata.map_or_else(Dict::new, |dict| *dict), xdata);
    }

    #[test]
    fn garbage_never_panics(data in bytes(600), number in any::<u32>()) {
        let small = number % 64;
        let _ = fop4::decode_request(small, data.clone());
        if let Some(kind) = FopKind::from_procedure(small) {
            let _ = fop4::decode_reply(kind, data.clone());
        }
        let _ = rpc::decode_record(data.clone());
        let _ = dict::decode_untyped(data.clone());
        let _ = handshake::Answer::decode(data.clone());
        let _ = handshake::Getspec::decode(data.clone());
        let _ = handshake::GetspecReply::decode(data.clone());
        let _ = portmap::Signin::decode(data.clone());
        let _ = dump::Reply::decode(data.clone());
        let _ = callback::Callback::decode(small % 16, data.clone());
        let mut reader = RecordReader::new();
        reader.feed(&data);
        while let Ok(Some(_)) = reader.next_record() {}
    }

    /// A valid message with some bytes changed: closer to the edges than noise.
    #[test]
    fn bent_messages_never_panic(fop in fop(), (kind, reply, opened) in answer(), at in vec(any::<(u16, u8)>(), 1..8)) {
        let bend = |data: Bytes| {
            let mut data = data.to_vec();
            for (place, byte) in &at {
                let place = usize::from(*place) % data.len().max(1);
                if let Some(target) = data.get_mut(place) {
                    *target = *byte;
                }
            }
            Bytes::from(data)
        };
        let (procedure, message) = fop4::encode_request(&fop).unwrap();
        let _ = fop4::decode_request(procedure, bend(joined(&message)));
        let _ = fop4::decode_reply(kind, bend(joined(&fop4::encode_reply(kind, &Ok(reply), opened))));
    }

    #[test]
    fn records_come_out_of_any_pieces(bodies in vec(bytes(2000), 0..8), cuts in vec(1usize..700, 1..50)) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&record_mark(body.len()));
            stream.extend_from_slice(body);
        }
        let (mut reader, mut got, mut rest, mut cuts) = (RecordReader::new(), Vec::new(), &stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(*cuts.next().unwrap().min(&rest.len()));
            reader.feed(piece);
            rest = after;
            while let Some(record) = reader.next_record().unwrap() {
                got.push(record);
            }
        }
        prop_assert_eq!(got, bodies);
    }

    #[test]
    fn calls_round_trip(xid in any::<u32>(), groups in vec(any::<u32>(), 0..60), owner in bytes(30), body in bytes(50)) {
        let context = Context {
            uid: 7, gid: 8, pid: -9, groups: groups.into(), lock_owner: LockOwner(owner), ..Context::root()
        };
        let credential = ladrillo_transport::Credential::v3(&context);
        let message = Message { header: body.clone(), ..Message::default() };
        let call = rpc::encode_call(xid, 1, 2, 3, &credential, message).unwrap();
        let Ok(Incoming::Call(header, rest)) = rpc::decode_record(call.header) else { panic!("a call") };
        prop_assert_eq!((header.xid, rest), (xid, body));
        let back = header.credential.context(ClientId(4)).unwrap();
        prop_assert_eq!((back.uid, back.pid, back.client), (7, -9, ClientId(4)));
        prop_assert_eq!(back.groups, context.groups);
    }
}

/// The strategy above makes every kind of fop.
#[test]
fn every_kind_is_tried() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::HashSet::new();
    let strategy = fop();
    for _ in 0..5000 {
        seen.insert(strategy.new_tree(&mut runner).unwrap().current().kind());
    }
    for kind in (0..100).filter_map(FopKind::from_procedure) {
        assert!(seen.contains(&kind), "{kind:?} is not tried");
    }
}
