//! The readers on files that PyTorch wrote, and on files that nobody should have written.

use std::panic::catch_unwind;

use super::*;

const PLAIN: &[u8] = include_bytes!("../../tests/pth/plain.pth");
const OLD: &[u8] = include_bytes!("../../tests/pth/old.pth");
const WRAPPED: &[u8] = include_bytes!("../../tests/pth/wrapped.pth");

fn reason(bytes: &[u8]) -> String {
    let error = read(bytes, "f.pth").unwrap_err();
    assert_eq!(error.file, "f.pth");
    error.reason
}

#[test]
fn both_formats_of_pytorch_are_read() {
    for (what, file) in [("plain", PLAIN), ("old", OLD)] {
        let bag = read(file, what).unwrap();
        let values = |name: &str| bag.tensors[name].values().unwrap();
        assert_eq!(bag.tensors["a.weight"].shape(), [2, 3], "{what}");
        assert_eq!(values("a.weight"), [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], "{what}");
        assert_eq!(values("a.double"), [0.1, -1e-3], "{what}");
        assert_eq!(values("a.half"), [1.5, -2.0], "{what}");
        assert_eq!(values("a.brain"), [1.5, -2.0], "{what}");
        assert_eq!(bag.tensors["a.turned"].shape(), [3, 2], "{what}");
        assert_eq!(values("a.turned"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "{what}");
        assert_eq!(values("a.part"), [2.0, 3.0], "{what}");
        assert_eq!(bag.tensors["bn.num_batches_tracked"].shape(), [0usize; 0], "{what}");
        let text = bag.tensors["bn.num_batches_tracked"].values().unwrap_err();
        assert_eq!(text, "holds int64; f32, f16, bf16 or f64 would be right");
    }
}

#[test]
fn what_stands_around_the_weights_is_taken_off() {
    let bag = read(WRAPPED, "f").unwrap();
    assert_eq!(bag.notes, ["the tensors stand under `state_dict`; beside it stand best, epoch, optimizer"]);
    assert_eq!(bag.tensors["0.weight"].shape(), [2, 1, 1, 1]);
    assert_eq!(bag.tensors["1.weight"].values().unwrap(), [3.0, 3.0]);
}

#[test]
fn code_is_refused_and_not_run() {
    let text = reason(include_bytes!("../../tests/pth/hostile.pth"));
    assert!(text.starts_with("its pickle asks for posix.system, which no state dict needs; nothing was run"), "{text}");
    assert!(!std::path::Path::new("/tmp/ichd-was-here").exists());
    let text = reason(include_bytes!("../../tests/pth/module.pth"));
    assert!(text.contains("torch.nn.modules.container.Sequential") && text.contains("state_dict()"), "{text}");
}

#[test]
fn other_files_are_named() {
    assert!(reason(include_bytes!("../../tests/pth/packed.pth")).contains("is packed or locked"));
    assert!(reason(b"\x89HDF\r\n\x1a\n").contains("tools/keras_to_safetensors.py"));
    assert!(reason(b"").contains("not a whole safetensors or PyTorch file"));
    assert!(reason(b"\x80\x02K\x01.").contains("none of PyTorch"));
    let mut weights = crate::weights::Weights::new();
    weights.insert("a\u{1b}[2J", vec![1], vec![1.0]);
    assert!(reason(&weights.to_safetensors().unwrap()).contains(r"`a\u{1b}[2J` holds control characters"));
}

#[test]
fn a_tensor_stays_within_its_data() {
    let make = |shape: &[usize], strides: Option<Vec<usize>>| {
        RawTensor::new(shape.to_vec(), strides, Number::F32, Cow::Owned(vec![0; 24])).map(drop)
    };
    assert!(make(&[2, 3], None).is_ok());
    assert!(make(&[0, 1 << 40], None).is_ok());
    assert!(make(&[7], None).is_err());
    assert!(make(&[usize::MAX, 2], None).is_err());
    assert!(make(&[2, 3], Some(vec![3])).is_err());
    assert!(make(&[2, 3], Some(vec![4, 1])).is_err());
    assert!(make(&[2, 3], Some(vec![usize::MAX, 1])).is_err());
    assert!(make(&[1 << 30], Some(vec![0])).is_err(), "an expanded view");
}

#[test]
fn deep_nesting_costs_no_stack() {
    let mut bytes = vec![0x80, 2, b']'];
    bytes.extend(std::iter::repeat_n(0x85, 900_000));
    bytes.push(b'.');
    assert_eq!(pickle::read(&bytes, &mut 0).unwrap().values.len(), 900_001);
    bytes.splice(3..3, std::iter::repeat_n(0x85, 200_000));
    assert!(pickle::read(&bytes, &mut 0).unwrap_err().contains("instructions"));
}

/// Every cut and many changes of good files are read or refused, and nothing panics.
#[test]
fn damaged_files_are_errors() {
    let safetensors = {
        let mut weights = crate::weights::Weights::new();
        weights.insert("a.weight", vec![2, 3], vec![1.0; 6]);
        weights.to_safetensors().unwrap()
    };
    for file in [PLAIN, OLD, WRAPPED, &safetensors] {
        for cut in 0..file.len() {
            let result = catch_unwind(|| all_values(&file[..cut]));
            assert!(result.is_ok(), "panic when cut at {cut}");
        }
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..4000 {
            let mut damaged = file.to_vec();
            for _ in 0..=random(4) {
                let at = random(damaged.len());
                damaged[at] = [random(256) as u8, 0, 0xFF, 0x7F][random(4)];
            }
            let result = catch_unwind(|| all_values(&damaged));
            assert!(result.is_ok(), "panic in round {round}");
        }
    }
}

fn all_values(bytes: &[u8]) -> usize {
    let Ok(bag) = read(bytes, "f") else { return 0 };
    bag.tensors.values().filter(|tensor| tensor.values().is_ok()).count()
}
