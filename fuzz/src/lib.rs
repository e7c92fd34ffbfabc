//! What the fuzz targets share: the daemon's own files that read untrusted bytes, taken in by their paths so that the
//! tensor library need not be built, and the bounds that every input is held against.

#[path = "../../tests/support/heap.rs"]
pub mod heap;
mod stand_in;

/// Modules of the daemon.
#[path = "../../src"]
mod daemon {
    #[allow(dead_code)]
    pub mod config;
    pub mod dicom;
    #[allow(dead_code)]
    pub mod identity;
    #[allow(dead_code)]
    pub mod limits;
    #[allow(dead_code)]
    pub mod names;
    pub mod reject;
    pub mod slice;
    #[allow(dead_code)]
    pub mod yaml;

    /// Its setting only.
    pub mod device {
        mod want;
        pub use want::Want;
    }

    /// Its settings only.
    #[allow(dead_code)]
    pub mod trainer {
        pub mod recipe;
        pub mod settings;
    }
}

/// Modules of the plugin boundary.
#[path = "../../plugins/api/src"]
mod api {
    pub mod label;
    #[allow(dead_code)]
    pub mod raw;
    #[allow(dead_code)]
    pub mod weights;
}

// The files name each other as they do at home.
pub use api::{label, raw, weights};
pub use daemon::{config, device, dicom, identity, limits, names, reject, slice, trainer, yaml};
pub use stand_in::{Ramp, Window, backbone, spec};
extern crate self as ichd_kernels;
extern crate self as ichd_plugin;

use std::process::abort;

use dicom::doors::{Door, decode};
use dicom::{AdmissionRules, EXPANSION_FREE_BYTES};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Does some work on an input of `bytes` bytes and ends the process if it took more memory than RELIABILITY.md states.
pub fn bounded<T>(bytes: usize, per_byte: usize, free: usize, work: impl FnOnce() -> T) -> T {
    let (result, peak) = heap::peak_of(work);
    let bytes_max = free + per_byte * bytes;
    if peak > bytes_max {
        eprintln!("{peak} bytes of memory for an input of {bytes}; at most {bytes_max} are allowed");
        abort();
    }
    result
}

/// Sizes that keep a flipped bit from costing the run its time. What is decoded stays below the bytes that are free.
pub fn rules() -> AdmissionRules {
    AdmissionRules {
        require_ct: false,
        reject_localizers: false,
        reject_derived: false,
        side_min: 1,
        side_max: 128,
        frames_max: 8,
        inflated_bytes_max: 1 << 20,
        ..AdmissionRules::default()
    }
}

/// One codec: three bytes say rows, columns and bits allocated, the rest is the codestream.
pub fn codec(door: Door, input: &[u8]) {
    let Some((&[rows, columns, bits], codestream)) = input.split_first_chunk::<3>() else { return };
    let (rows, columns) = (1 + usize::from(rows % 64), 1 + usize::from(columns % 64));
    let bits_allocated = if bits & 1 == 0 { 16 } else { 8 };
    let decoded = bounded(codestream.len(), 8, EXPANSION_FREE_BYTES as usize, || {
        decode(door, codestream, rows, columns, bits_allocated)
    });
    match decoded {
        Ok(values) => assert_eq!(values.len(), rows * columns),
        Err(rejection) => assert!(!rejection.sentence.is_empty()),
    }
}
