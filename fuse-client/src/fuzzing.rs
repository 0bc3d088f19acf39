//! Decoders of this crate that are not public, for the fuzz targets: each checks what must hold of any bytes.

use crate::translators::distribute::layout::{DiskPiece, Layout};
use crate::translators::replicate::changelog::Changelog;

/// `trusted.glusterfs.dht` of a directory's copies, 17 bytes each: how the subvolume answered, then its xattr.
///
/// # Panics
/// When something does not hold.
pub fn layout(data: &[u8]) {
    let mut layout = Layout::default();
    for (subvolume, copy) in data.chunks(17).enumerate() {
        let found = match copy.split_first() {
            Some((0, raw)) => Ok(Some(raw)),
            Some((1, _)) | None => Ok(None),
            Some((errno, _)) => Err(i32::from(*errno)),
        };
        if let Ok(Some(raw)) = found
            && let Some(piece) = DiskPiece::decode(raw)
        {
            assert_eq!(&piece.encode()[..], raw);
        }
        layout.add(subvolume, found);
    }
    let found = layout.anomalies();
    let count = layout.pieces.len();
    assert!(found.missing as usize + found.down as usize + found.misc as usize <= count);
    for hash in layout.pieces.iter().flat_map(|p| [p.start, p.stop, p.stop.wrapping_add(1)]).collect::<Vec<_>>() {
        if let Some(subvolume) = layout.search(hash) {
            let piece = layout.piece(subvolume).expect("who answers has a piece");
            assert!(piece.takes_part() && piece.start <= hash && hash <= piece.stop);
        }
    }
    for subvolume in 0..count {
        let raw = layout.encode(subvolume).expect("each has a piece");
        assert!(DiskPiece::decode(&raw).is_some());
    }
    layout.sort();
    assert_eq!(layout.anomalies(), found);
}

/// `trusted.afr.*`.
///
/// # Panics
/// When something does not hold.
pub fn changelog(data: &[u8]) {
    let log = Changelog::from_bytes(data);
    let raw = log.to_bytes();
    assert_eq!(Changelog::from_bytes(&raw), log);
    let whole = data.len().min(12) / 4 * 4;
    assert_eq!(raw[..whole], data[..whole]);
    assert!(raw[whole..].iter().all(|b| *b == 0));
}
