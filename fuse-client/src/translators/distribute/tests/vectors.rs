//! Values computed by GlusterFS 10.3 itself: Debian's glusterfs with `cluster/distribute` over three bricks of its own
//! (subvolumes gv0-client-0 to -2, equal sizes), directories and files made on its mount, xattrs and places read from the
//! bricks.

use crate::translators::distribute::assign::Assignment;
use crate::translators::distribute::hash::Hasher;
use crate::translators::distribute::layout::{DiskPiece, Layout};

/// Path of a directory, and its `trusted.glusterfs.dht` on each brick.
const LAYOUTS: &[(&str, [&str; 3])] = &[
    ("/", ["0000000100000000aaaaaaaaffffffff", "00000001000000000000000055555554", "000000010000000055555555aaaaaaa9"]),
    (
        "/.hidden.tmp1",
        ["00000000000000000000000055555554", "000000000000000055555555aaaaaaa9", "0000000000000000aaaaaaaaffffffff"],
    ),
    (
        "/a",
        ["00000000000000000000000055555554", "000000000000000055555555aaaaaaa9", "0000000000000000aaaaaaaaffffffff"],
    ),
    (
        "/a/b",
        ["0000000000000000aaaaaaaaffffffff", "00000000000000000000000055555554", "000000000000000055555555aaaaaaa9"],
    ),
    (
        "/a/b/c",
        ["0000000000000000aaaaaaaaffffffff", "00000000000000000000000055555554", "000000000000000055555555aaaaaaa9"],
    ),
    (
        "/dir2",
        ["0000000000000000aaaaaaaaffffffff", "00000000000000000000000055555554", "000000000000000055555555aaaaaaa9"],
    ),
    (
        "/with space",
        ["000000000000000055555555aaaaaaa9", "0000000000000000aaaaaaaaffffffff", "00000000000000000000000055555554"],
    ),
    (
        "/ünï",
        ["000000000000000055555555aaaaaaa9", "0000000000000000aaaaaaaaffffffff", "00000000000000000000000055555554"],
    ),
];

/// Directory, name, and the brick that has the file.
const FILES: &[(&str, &str, usize)] = &[
    ("/a", ".rsync.Ab12Cd", 2),
    ("/a", "1234567890123456", 1),
    ("/a", "12345678901234567", 1),
    ("/a", "a-very-long-name-that-spans-more-than-sixteen-bytes", 0),
    ("/a", "ab", 2),
    ("/a", "abc", 2),
    ("/a", "abcd", 2),
    ("/a", "abcde", 0),
    ("/a", "f1", 2),
    ("/a", "f2", 2),
    ("/a", "hello.txt", 2),
    (
        "/a",
        "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
        1,
    ),
    ("/a", "sp ace", 2),
    ("/a", "x", 2),
    ("/a", "ünï€", 2),
    ("/dir2", "file1", 2),
    ("/dir2", "file10", 1),
    ("/dir2", "file11", 2),
    ("/dir2", "file12", 1),
    ("/dir2", "file13", 1),
    ("/dir2", "file14", 0),
    ("/dir2", "file15", 0),
    ("/dir2", "file16", 2),
    ("/dir2", "file17", 2),
    ("/dir2", "file18", 1),
    ("/dir2", "file19", 2),
    ("/dir2", "file2", 2),
    ("/dir2", "file20", 0),
    ("/dir2", "file21", 0),
    ("/dir2", "file22", 0),
    ("/dir2", "file23", 0),
    ("/dir2", "file24", 2),
    ("/dir2", "file25", 2),
    ("/dir2", "file26", 0),
    ("/dir2", "file27", 2),
    ("/dir2", "file28", 1),
    ("/dir2", "file29", 2),
    ("/dir2", "file3", 1),
    ("/dir2", "file30", 0),
    ("/dir2", "file4", 1),
    ("/dir2", "file5", 0),
    ("/dir2", "file6", 0),
    ("/dir2", "file7", 1),
    ("/dir2", "file8", 0),
    ("/dir2", "file9", 1),
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn on_disk(path: &str) -> Layout {
    let (_, pieces) = LAYOUTS.iter().find(|(known, _)| *known == path).unwrap();
    let mut layout = Layout::default();
    for (brick, raw) in pieces.iter().enumerate() {
        layout.add(brick, Ok(Some(&unhex(raw))));
    }
    layout
}

#[test]
fn files_are_where_glusterfs_puts_them() {
    let hasher = Hasher::new(None, None).unwrap();
    for (directory, name, brick) in FILES {
        let layout = on_disk(directory);
        assert!(!layout.anomalies().is_broken());
        assert_eq!(layout.search(hasher.hash(name.as_bytes())), Some(*brick), "{directory}/{name}");
    }
}

#[test]
fn new_layouts_are_those_of_glusterfs() {
    let hasher = Hasher::new(None, None).unwrap();
    let names: Vec<String> = (0..3).map(|n| format!("gv0-client-{n}")).collect();
    for (path, pieces) in LAYOUTS {
        let mut layout = Layout::blank(3);
        // The root's was made by a heal.
        layout.commit_hash = u32::from(*path == "/");
        Assignment {
            path_hash: hasher.hash(path.as_bytes()),
            spread: 0,
            weights: Some(&[1000, 1000, 1000]),
            decommissioned: &[],
            names: &names,
        }
        .apply(&mut layout);
        for (brick, raw) in pieces.iter().enumerate() {
            assert_eq!(layout.encode(brick).unwrap()[..], unhex(raw), "{path} on {brick}");
            assert_eq!(DiskPiece::decode(&unhex(raw)).unwrap().encode()[..], unhex(raw));
        }
    }
}
