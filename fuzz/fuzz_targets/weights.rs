//! A file of weights: safetensors, or PyTorch's archive with its pickle.
#![no_main]

use ichd_fuzz::{bounded, raw};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = bounded(input.len(), 2048, 1 << 20, || {
        let bag = raw::read(input, "input")?;
        for tensor in bag.tensors.values() {
            if let Ok(values) = tensor.values() {
                assert_eq!(values.len(), tensor.shape().iter().product::<usize>());
                assert!(values.iter().all(|value| value.is_finite()));
            }
        }
        Ok::<_, raw::RawError>(())
    });
});
