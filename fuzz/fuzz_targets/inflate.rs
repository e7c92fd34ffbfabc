//! A deflated file: the input is the deflate stream behind a sound file meta information.
#![no_main]

use ichd_fuzz::dicom::{EXPANSION_FREE_BYTES, decode};
use ichd_fuzz::{bounded, rules};
use libfuzzer_sys::fuzz_target;

const META: &[u8] = b"DICM\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99";

fuzz_target!(|input: &[u8]| {
    let mut file = vec![0; 128];
    file.extend(META);
    file.extend(input);
    if let Err(rejection) = bounded(file.len(), 200, 2 * EXPANSION_FREE_BYTES as usize, || decode(&file, &rules())) {
        assert!(!rejection.sentence.is_empty());
    }
});
