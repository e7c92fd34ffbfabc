//! The bounded walk over a data set; the first byte says how it is encoded.
#![no_main]

use ichd_fuzz::{bounded, dicom::doors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&encoding, data)) = input.split_first() else { return };
    let walked = bounded(data.len(), 8, 512 << 10, || doors::walk(data, encoding & 1 != 0, encoding & 2 != 0));
    if let Err(rejection) = walked {
        assert!(!rejection.sentence.is_empty());
    }
});
