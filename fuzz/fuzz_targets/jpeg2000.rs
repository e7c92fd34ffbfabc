//! One JPEG 2000 codestream.
#![no_main]

use ichd_fuzz::{codec, dicom::doors::Door};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| codec(Door::Jpeg2000, input));
