//! Handshake, portmap, dump and callbacks: the first byte chooses.
#![no_main]

use bytes::Bytes;
use ladrillo_transport::Message;
use ladrillo_transport::program::{callback, dump, handshake, portmap};
use libfuzzer_sys::fuzz_target;

macro_rules! round_trip {
    ($type:ty, $data:expr) => {
        if let Ok(value) = <$type>::decode($data) {
            let wire: Message = value.encode();
            assert_eq!(<$type>::decode(wire.header).expect("what was encoded can be decoded"), value);
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    match which {
        0 => round_trip!(handshake::Setvolume, body),
        1 => round_trip!(handshake::Answer, body),
        2 => round_trip!(handshake::Getspec, body),
        3 => round_trip!(handshake::GetspecReply, body),
        4 => round_trip!(handshake::SetLkVer, body),
        5 => round_trip!(handshake::SetLkVerReply, body),
        6 => round_trip!(handshake::EventNotify, body),
        7 => round_trip!(handshake::VolumeInfo, body),
        8 => round_trip!(handshake::VolumeInfoReply, body),
        9 => round_trip!(portmap::PortByBrick, body),
        10 => round_trip!(portmap::PortByBrickReply, body),
        11 => round_trip!(portmap::BrickByPort, body),
        12 => round_trip!(portmap::BrickByPortReply, body),
        13 => round_trip!(portmap::Signin, body),
        14 => round_trip!(portmap::Signout, body),
        15 => round_trip!(portmap::Status, body),
        16 => round_trip!(dump::Reply, body),
        17 => round_trip!(dump::PingReply, body),
        procedure => {
            let Ok(Some(what)) = callback::Callback::decode(u32::from(*procedure) - 18, body) else { return };
            let (number, message) = what.encode().expect("what was decoded can be encoded");
            let again = callback::Callback::decode(number, message.header).expect("what was encoded can be decoded");
            assert_eq!(again, Some(what));
        }
    }
});
