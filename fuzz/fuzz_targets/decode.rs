//! A whole file, from its bytes to its slices: container, pre-walk, header, rules, frames, codec, stored values.
#![no_main]

use ichd_fuzz::dicom::{EXPANSION_FREE_BYTES, decode, read_facts, survey};
use ichd_fuzz::{bounded, rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let rules = rules();
    match bounded(input.len(), 200, 2 * EXPANSION_FREE_BYTES as usize, || decode(input, &rules)) {
        Ok(slices) => {
            assert!(!slices.is_empty());
            for slice in &slices {
                assert_eq!(slice.pixels.len(), slice.rows * slice.columns);
                assert!(slice.hu(0).is_finite() && slice.hu(slice.pixels.len() - 1).is_finite());
                assert!((8..=16).contains(&slice.bits_stored));
            }
            // What scores a known file and what surveys a data set must agree with what decodes it.
            assert_eq!(read_facts(input, &rules).expect("it was decoded").len(), slices.len());
            let survey = survey(input, input.len() as u64, &rules).expect("it was decoded").expect("it is whole");
            assert_eq!(survey.frames, slices.len());
            assert_eq!((survey.rows, survey.columns), (slices[0].rows, slices[0].columns));
        }
        Err(rejection) => assert!(!rejection.sentence.is_empty()),
    }
});
