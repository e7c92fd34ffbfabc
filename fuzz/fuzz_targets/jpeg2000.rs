//! One JPEG 2000 codestream, through the checks of its headers and the foreign decoder.
#![no_main]

use ichd_fuzz::{codec, dicom::doors::Door, let_foreign_decoder_panic};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: let_foreign_decoder_panic(), |input: &[u8]| codec(Door::Jpeg2000, input));
