//! Our own program. First byte 0: a request with several steps; else a reply to as many, of kinds that the bytes after it
//! name. What decodes, encodes and decodes to the same.
#![no_main]

use bytes::Bytes;
use ladrillo_transport::program::extension::{self, Done, Outgoing};
use ladrillo_transport::program::fop4;
use ladrillo_transport::xdr::Writer;
use ladrillo_translator::{Fop, FopKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    match which {
        0 => request(Bytes::copy_from_slice(body)),
        count => {
            let Some((kinds, body)) = body.split_at_checked(usize::from(*count)) else { return };
            let kinds: Option<Vec<FopKind>> =
                kinds.iter().map(|number| FopKind::from_procedure(u32::from(*number))).collect();
            if let Some(kinds) = kinds {
                reply(&kinds, Bytes::copy_from_slice(body));
            }
        }
    }
});

fn request(body: Bytes) {
    let Ok(steps) = extension::decode_request(body) else { return };
    let fops: Option<Vec<Fop>> =
        steps.iter().map(|step| fop4::decode_request(step.procedure, step.body.clone()).ok()).collect();
    let Some(fops) = fops else { return };
    let outgoing: Vec<Outgoing<'_>> = steps
        .iter()
        .zip(&fops)
        .map(|(step, fop)| Outgoing {
            credential: step.credential.clone(),
            fop,
            needs_previous: step.needs_previous,
        })
        .collect();
    let mut writer = Writer::default();
    // A credential may be of a kind that we read and do not write.
    let Ok(payload) = extension::write_request(&mut writer, &outgoing) else { return };
    let wire = [writer.finish().as_ref(), payload.as_slice()].concat();
    let again = extension::decode_request(wire.into()).expect("what was encoded can be decoded");
    assert_eq!(again.len(), steps.len());
    for ((step, again), fop) in steps.iter().zip(&again).zip(&fops) {
        assert_eq!((step.procedure, step.needs_previous), (again.procedure, again.needs_previous));
        let decoded = fop4::decode_request(again.procedure, again.body.clone()).expect("a body that was encoded");
        assert_eq!(format!("{fop:?}"), format!("{decoded:?}"));
    }
}

fn reply(kinds: &[FopKind], body: Bytes) {
    let Ok(answers) = extension::decode_reply(kinds, body) else { return };
    let show = |answers: &[(ladrillo_translator::FopResult, Option<ladrillo_translator::FdId>)]| format!("{answers:?}");
    let done: Vec<Done> = kinds
        .iter()
        .zip(answers.iter().cloned())
        .map(|(kind, (result, opened))| Done { kind: Some(*kind), result, opened })
        .collect();
    let mut writer = Writer::default();
    let payload = extension::write_reply(&mut writer, &done);
    let wire = [writer.finish().as_ref(), payload.as_slice()].concat();
    let again = extension::decode_reply(kinds, wire.into()).expect("what was encoded can be decoded");
    // What a step that was not carried out is answered with comes back as an answer of its procedure.
    if !show(&answers).contains("was not carried out") {
        assert_eq!(show(&answers), show(&again));
    }
}
