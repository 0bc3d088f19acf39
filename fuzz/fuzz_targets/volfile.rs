//! Volfiles: what parses, prints and parses to the same.
#![no_main]

use ladrillo_translator::Volfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(volfile) = Volfile::parse(data) else { return };
    let text = volfile.to_text().expect("what was parsed can be printed");
    let again = Volfile::parse(&text).expect("what was printed can be parsed");
    assert_eq!(format!("{volfile:?}"), format!("{again:?}"));
});
