//! Our own program beside the stock ones. A brick announces it in DUMP, a client by [`SETVOLUME_KEY`] in SETVOLUME;
//! without both it is not used. Nothing in it changes what a stock procedure means.
//!
//! STEPS carries several procedures of the file-operation program in one record, done one after the other. A request
//! is their number (u32) and for each: procedure (u32), flags (u32), a credential where [`WITH_CREDENTIAL`] says so (else
//! it is that of the step before; the first goes by the call's), the length of its body (u32), the body as the
//! file-operation program has it, and padding to a multiple of four. A reply is their number and for each: 0, the length of
//! its body and the body; or an errno where the step was not carried out (ECANCELED: the step before it failed).
//! The data of the last step, of WRITE or of READ's reply, comes last of all, so that it is never copied; earlier ones
//! are.

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::steps::MAX_STEPS;
use ladrillo_translator::{FdId, Fop, FopError, FopKind, FopResult, Payload};

use super::fop4;
use crate::credential::Credential;
use crate::xdr::{DecodeError, EncodeError, Reader, Writer, padding};

/// Program number, of those that RFC 5531 (section 13) leaves to users.
pub const PROGRAM: u32 = 0x3c41_4452;
/// Version.
pub const VERSION: u32 = 1;
/// Name as DUMP lists it.
pub const NAME: &str = "Ladrillo extensions";
/// By this key in SETVOLUME a client says that it speaks the program; the value is the version.
pub const SETVOLUME_KEY: &str = "ladrillo-extensions";

/// Several file operations.
pub const PROC_STEPS: u32 = 1;
// 2 to 4 are kept for leases: LEASE_GET, LEASE_RETURN, and LEASE_RECALL as a callback.

/// The step is left out where the one before it failed.
const NEEDS_PREVIOUS: u32 = 1;
/// A credential of its own follows.
const WITH_CREDENTIAL: u32 = 2;

/// A step on its way out.
pub struct Outgoing<'a> {
    /// Who asks; `None`: as the step before, or as the call's header where it is the first.
    pub credential: Option<Credential>,
    /// What is asked, with the brick's descriptors.
    pub fop: &'a Fop,
    /// Left out where the one before it failed.
    pub needs_previous: bool,
}

/// A step that has arrived, its body not yet understood.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Who asks; `None`: as the step before, or as the call's header where it is the first.
    pub credential: Option<Credential>,
    /// Procedure of the file-operation program.
    pub procedure: u32,
    /// Its arguments.
    pub body: Bytes,
    /// Left out where the one before it failed.
    pub needs_previous: bool,
}

/// What became of a step on the brick.
pub struct Done {
    /// Which fop it was; `None`: it was none, or one that is not understood, and `result` is an error.
    pub kind: Option<FopKind>,
    /// Its answer.
    pub result: FopResult,
    /// What it opened.
    pub opened: Option<FdId>,
}

/// Writes the body of a request, and gives back the data that follows it.
///
/// # Errors
/// Too many steps, or what [`fop4::write_request`] refuses. What was written so far is of no use then.
pub fn write_request(w: &mut Writer, steps: &[Outgoing<'_>]) -> Result<Payload, EncodeError> {
    if steps.len() > MAX_STEPS {
        return Err(EncodeError::TooLong { what: "steps", length: steps.len(), limit: MAX_STEPS });
    }
    w.u32(steps.len() as u32);
    let mut last = Payload::empty();
    for (number, step) in steps.iter().enumerate() {
        w.u32(step.fop.kind().procedure());
        let own = if step.credential.is_some() { WITH_CREDENTIAL } else { 0 };
        w.u32(own | if step.needs_previous { NEEDS_PREVIOUS } else { 0 });
        if let Some(credential) = &step.credential {
            credential.write(w)?;
        }
        let payload = write_sized(w, |w| fop4::write_request(w, step.fop), number + 1 == steps.len())?;
        if let Some(payload) = payload {
            last = payload;
        }
    }
    Ok(last)
}

/// Writes a length, what `write` writes, and the data behind it: here, unless it `is_last`; then it is given back.
fn write_sized(
    w: &mut Writer,
    write: impl FnOnce(&mut Writer) -> Result<Payload, EncodeError>,
    is_last: bool,
) -> Result<Option<Payload>, EncodeError> {
    let position = w.len();
    w.u32(0);
    let start = w.len();
    let payload = write(w)?;
    let length = w.len() - start + payload.len();
    let limit = crate::MAX_RECORD_BYTES;
    if length > limit {
        return Err(EncodeError::TooLong { what: "step", length, limit });
    }
    w.patch_u32(position, length as u32);
    if is_last {
        return Ok(Some(payload));
    }
    w.raw(payload.as_slice());
    w.raw(&[0; 3][..padding(length)]);
    Ok(None)
}

/// The steps of a request. Their bodies are for [`fop4::decode_request`]: one that is not understood fails that step alone.
///
/// # Errors
/// What is malformed, and more than [`MAX_STEPS`].
pub fn decode_request(body: Bytes) -> Result<Vec<Incoming>, DecodeError> {
    let mut r = Reader::new(body);
    let count = read_count(&mut r)?;
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count {
        let procedure = r.u32("step procedure")?;
        let flags = r.u32("step flags")?;
        if flags & !(NEEDS_PREVIOUS | WITH_CREDENTIAL) != 0 {
            return Err(DecodeError::BadValue { what: "step flags", value: i64::from(flags) });
        }
        let credential = (flags & WITH_CREDENTIAL != 0).then(|| Credential::read(&mut r)).transpose()?;
        let body = r.opaque("step", crate::MAX_RECORD_BYTES)?;
        steps.push(Incoming { credential, procedure, body, needs_previous: flags & NEEDS_PREVIOUS != 0 });
    }
    Ok(steps)
}

fn read_count(r: &mut Reader) -> Result<usize, DecodeError> {
    let count = r.u32("steps")? as usize;
    if count > MAX_STEPS {
        return Err(DecodeError::TooLong { what: "steps", length: count, limit: MAX_STEPS });
    }
    Ok(count)
}

/// Writes the body of a reply, and gives back the data that follows it.
pub fn write_reply(w: &mut Writer, steps: &[Done]) -> Payload {
    w.u32(steps.len() as u32);
    let mut last = Payload::empty();
    for (number, step) in steps.iter().enumerate() {
        let Some(kind) = step.kind else {
            let errno = step.result.as_ref().err().map_or(errno::EIO, |error| error.errno);
            w.u32(u32::try_from(errno).unwrap_or(0).max(1));
            continue;
        };
        w.u32(0);
        let is_last = number + 1 == steps.len();
        let start = w.len();
        match write_sized(w, |w| Ok(fop4::write_reply(w, kind, &step.result, step.opened)), is_last) {
            Ok(Some(payload)) => last = payload,
            Ok(None) => {}
            // Longer than any record: the transport would refuse it as well.
            Err(error) => {
                tracing::error!(%error, "a step's answer cannot be sent");
                w.patch_u32(start, 0);
            }
        }
    }
    last
}

/// The answers to steps of these kinds, each with the descriptor that the brick has opened. One that was not carried out
/// is an error like any other.
///
/// # Errors
/// What is malformed, or other answers than were asked for.
pub fn decode_reply(kinds: &[FopKind], body: Bytes) -> Result<Vec<(FopResult, Option<FdId>)>, DecodeError> {
    let mut r = Reader::new(body);
    let count = read_count(&mut r)?;
    if count != kinds.len() {
        return Err(DecodeError::BadValue { what: "answers to steps", value: count as i64 });
    }
    let mut answers = Vec::with_capacity(count);
    for kind in kinds {
        answers.push(match r.u32("step status")? {
            0 => fop4::decode_reply(*kind, r.opaque("answer to a step", crate::MAX_RECORD_BYTES)?)?,
            number => {
                let errno = i32::try_from(number).ok().filter(|errno| *errno < 1024).unwrap_or(errno::EIO);
                (Err(FopError::new(errno, format!("{} was not carried out by the brick", kind.name()))), None)
            }
        });
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use ladrillo_translator::fop::{File, PrePost};
    use ladrillo_translator::{Context, Dict, Gfid, LockOwner, Reply};

    use super::*;

    fn write_of(data: &'static [u8]) -> Fop {
        let file = File { gfid: Gfid([7; 16]), fd: Some(FdId(3)) };
        Fop::Write {
            file,
            offset: 9,
            data: Payload::from_bytes(Bytes::from_static(data)),
            flags: 0,
            xdata: Dict::new(),
        }
    }

    fn request(steps: &[Outgoing<'_>]) -> (Bytes, Payload) {
        let mut writer = Writer::default();
        let payload = write_request(&mut writer, steps).unwrap();
        (writer.finish(), payload)
    }

    fn whole(header: &Bytes, payload: &Payload) -> Bytes {
        [header.as_ref(), payload.as_slice()].concat().into()
    }

    fn sample() -> Bytes {
        let owner = Context::root().with_lock_owner(LockOwner::from_u64(9));
        let writes = [write_of(b"first"), write_of(b"second")];
        let stat = Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() };
        let steps = [
            Outgoing { credential: None, fop: &stat, needs_previous: false },
            Outgoing { credential: Some(Credential::v3(&owner)), fop: &writes[0], needs_previous: true },
            Outgoing { credential: None, fop: &writes[1], needs_previous: false },
        ];
        let (header, payload) = request(&steps);
        assert_eq!(payload.as_slice(), b"second", "the data of the last step is not copied");
        whole(&header, &payload)
    }

    #[test]
    fn requests_round_trip() {
        let steps = decode_request(sample()).unwrap();
        assert_eq!(steps.iter().map(|step| step.needs_previous).collect::<Vec<_>>(), [false, true, false]);
        let owner = steps[1].credential.as_ref().and_then(|c| c.context(Default::default())).unwrap().lock_owner;
        assert_eq!((owner, steps[0].credential.is_none()), (LockOwner::from_u64(9), true));
        for (step, data) in steps[1..].iter().zip([&b"first"[..], b"second"]) {
            let Ok(Fop::Write { data: found, .. }) = fop4::decode_request(step.procedure, step.body.clone()) else {
                panic!("not a write")
            };
            assert_eq!(found.as_slice(), data);
        }
    }

    #[test]
    fn hostile_requests_are_errors() {
        let good = sample();
        for end in 0..good.len() {
            // Without its last bytes the last step may still be well-formed but for its own body.
            if let Ok(steps) = decode_request(good.slice(..end)) {
                assert!(fop4::decode_request(steps[2].procedure, steps[2].body.clone()).is_err(), "{end} bytes");
            }
        }
        let mut many = Writer::default();
        many.u32(MAX_STEPS as u32 + 1);
        assert!(matches!(decode_request(many.finish()), Err(DecodeError::TooLong { .. })));
        let mut flags = Writer::default();
        [1, 1, 4, 0].into_iter().for_each(|word| flags.u32(word));
        assert!(matches!(decode_request(flags.finish()), Err(DecodeError::BadValue { .. })));
        let mut long = Writer::default();
        [1, 1, 0, u32::MAX].into_iter().for_each(|word| long.u32(word));
        assert!(decode_request(long.finish()).is_err());
        // Steps within steps: no procedure of the file-operation program.
        assert!(fop4::decode_request(PROGRAM, Bytes::new()).is_err() && FopKind::from_procedure(49).is_none());
    }

    #[test]
    fn replies_round_trip() {
        let written = Reply::PrePost { attrs: Box::new(PrePost::default()), written: 5, xdata: Dict::new() };
        let data = Payload::from_bytes(Bytes::from_static(b"contents"));
        let read = Reply::Read { data, iatt: Box::default(), xdata: Dict::new() };
        let create = Reply::Entry { iatt: Box::default(), parent: Box::default(), xdata: Dict::new() };
        let done = [
            Done { kind: Some(FopKind::Write), result: Ok(written), opened: None },
            Done { kind: Some(FopKind::Create), result: Ok(create), opened: Some(FdId(4)) },
            Done { kind: Some(FopKind::Stat), result: Err(FopError::new(errno::ESTALE, "gone")), opened: None },
            Done { kind: None, result: Err(ladrillo_translator::Step::left_out()), opened: None },
            Done { kind: Some(FopKind::Read), result: Ok(read), opened: None },
        ];
        let mut writer = Writer::default();
        let payload = write_reply(&mut writer, &done);
        assert_eq!(payload.as_slice(), b"contents");
        let wire = whole(&writer.finish(), &payload);
        let kinds = [FopKind::Write, FopKind::Create, FopKind::Stat, FopKind::Inodelk, FopKind::Read];
        let answers = decode_reply(&kinds, wire.clone()).unwrap();
        assert!(matches!(answers[0].0, Ok(Reply::PrePost { written: 5, .. })));
        assert_eq!(answers[1].1, Some(FdId(4)));
        let errnos: Vec<_> = answers.iter().map(|(result, _)| result.as_ref().err().map(|e| e.errno)).collect();
        assert_eq!(errnos, [None, None, Some(errno::ESTALE), Some(errno::ECANCELED), None]);
        assert!(matches!(&answers[4].0, Ok(Reply::Read { data, .. }) if data.as_slice() == b"contents"));
        assert!(decode_reply(&kinds[..4], wire.clone()).is_err());
        for end in 0..wire.len() {
            assert!(decode_reply(&kinds, wire.slice(..end)).is_err(), "{end} bytes");
        }
    }
}
