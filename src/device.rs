//! Which device computes: proven before it is used, never assumed. Knows no model.

mod signature;
mod want;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

pub use signature::signature;
pub use want::Want;

/// A device that passed its test.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// For tensors.
    pub device: Device,
    /// As results name it: `cpu` or `cuda:N`.
    pub name: String,
    /// Why it was chosen, in one line.
    pub reason: String,
}

impl Chosen {
    fn cpu(reason: impl Into<String>) -> Self {
        Chosen { device: Device::flex(), name: "cpu".into(), reason: reason.into() }
    }

    /// This device and those that follow it, `count` in all, for work that is shared. The CPU stands for any number.
    ///
    /// # Errors
    /// There are not so many, or one fails its self-test.
    pub fn and_next(&self, count: usize) -> Result<Vec<Device>, String> {
        match self.name.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()) {
            None => Ok(vec![self.device.clone(); count]),
            Some(first) => (first..first + count)
                .map(
                    |index| {
                        if index == first { Ok(self.device.clone()) } else { cuda(index).map(|chosen| chosen.device) }
                    },
                )
                .collect::<Result<_, String>>()
                .map_err(|reason| format!("{count} devices from {} on are asked for: {reason}", self.name)),
        }
    }

    /// Whether the CPU computes.
    pub fn is_cpu(&self) -> bool {
        self.name == "cpu"
    }
}

/// Chooses the device.
///
/// # Errors
/// A CUDA device was asked for by name and cannot be used: what is missing, where it was looked for, how to get it.
pub fn choose(want: Want) -> Result<Chosen, String> {
    match want {
        Want::Cpu => Ok(Chosen::cpu("The CPU was asked for.")),
        Want::Cuda(index) => cuda(index).map_err(|reason| format!("device cuda:{index}: {reason}")),
        Want::Auto => Ok(match cuda(0) {
            Ok(chosen) => chosen,
            Err(reason) => Chosen::cpu(format!("Computing on the CPU: {reason}.")),
        }),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Chosen, String> {
    Err("this program was built without the feature `cuda`".into())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Chosen, String> {
    use burn::tensor::DeviceType;

    if !has_driver() {
        return Err("no CUDA device was found (libcuda is not installed; it comes with the NVIDIA driver)".into());
    }
    let n_devices = Device::enumerate(DeviceType::Cuda).len();
    if n_devices == 0 {
        return Err("no CUDA device was found (the driver lists none; `nvidia-smi` tells more)".into());
    }
    if index >= n_devices {
        return Err(format!("the driver lists {n_devices} CUDA devices, numbered from 0"));
    }
    Toolkit::of_this_machine().check()?;
    let device = Device::cuda(index);
    self_test(&device).map_err(|error| format!("the device failed its self-test ({error})"))?;
    Ok(Chosen {
        device,
        name: format!("cuda:{index}"),
        reason: format!("Computing on cuda:{index}; it passed its self-test."),
    })
}

#[cfg(feature = "cuda")]
fn has_driver() -> bool {
    // SAFETY: the call only tries to open the driver's library under its usual names.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

#[cfg(feature = "cuda")]
fn has_compiler() -> bool {
    // SAFETY: the call only tries to open the library under its usual names.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

/// What compiling kernels on an NVIDIA device needs beside the driver. CubeCL panics where it is missing, so it is
/// looked for beforehand, in the same places.
#[derive(Debug)]
pub struct Toolkit {
    nvrtc_found: bool,
    nvrtc_names: Vec<String>,
    cuda_path: Option<OsString>,
    root: PathBuf,
}

/// A header that every kernel in half precision includes.
const HEADER: &str = "include/cuda_fp16.h";

impl Toolkit {
    /// Looks at this machine.
    #[cfg(feature = "cuda")]
    pub fn of_this_machine() -> Self {
        let nvrtc_names = cudarc::get_lib_name_candidates("nvrtc");
        Toolkit { nvrtc_found: has_compiler(), nvrtc_names, cuda_path: std::env::var_os("CUDA_PATH"), root: "/".into() }
    }

    /// Says what is missing, where it was looked for and how to get it.
    ///
    /// # Errors
    /// Something is missing.
    pub fn check(&self) -> Result<(), String> {
        const HOW: &str = "Install the CUDA toolkit 12 or newer (packages cuda-nvrtc and cuda-cudart-dev suffice)";
        if !self.nvrtc_found {
            let names = self.nvrtc_names.iter().filter(|name| name.contains(".so.1") || name.ends_with("nvrtc.so"));
            let names: Vec<&str> = names.map(String::as_str).collect();
            return Err(format!(
                "NVRTC, the compiler of CUDA kernels, is missing; looked for {} in the library path. \
                 {HOW} and add its lib64 folder to LD_LIBRARY_PATH",
                names.join(", ")
            ));
        }
        let looked = self.header_folders();
        // CubeCL takes the first folder that exists and looks no further.
        let first = looked.iter().find(|folder| self.cuda_path.is_some() || folder.exists());
        if first.is_some_and(|folder| folder.join(HEADER).exists()) {
            return Ok(());
        }
        let looked: Vec<String> = looked.iter().map(|folder| folder.join(HEADER).display().to_string()).collect();
        Err(format!(
            "the CUDA headers are missing; looked for {}. {HOW} and set CUDA_PATH to its folder",
            looked.join(", ")
        ))
    }

    /// CUDA_PATH alone if it is set, else the usual folders.
    fn header_folders(&self) -> Vec<PathBuf> {
        match &self.cuda_path {
            Some(path) => vec![PathBuf::from(path)],
            None => {
                let mut folders = vec![self.root.join("usr/local/cuda"), self.root.join("opt/cuda")];
                if self.root.join("usr/bin/nvcc").exists() {
                    folders.push(self.root.join("usr"));
                }
                folders
            }
        }
    }
}

/// Computes a small network's worth of operations and compares it with the CPU, in a thread of its own: a driver
/// that misbehaves must not take the daemon with it.
///
/// # Errors
/// It panicked, failed or computed something else.
pub fn self_test(device: &Device) -> Result<(), String> {
    let device = device.clone();
    let test = std::thread::Builder::new().name("self-test".into()).spawn(move || {
        let expected = probe(&Device::flex())?;
        let found = probe(&device)?;
        let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Tensor cores may round f32 to TF32, with about 10 bits.
        if found.len() != expected.len() || worst.is_nan() || worst > 5e-3 {
            return Err(format!("off by {worst}"));
        }
        match ichd_kernels::parity::quick(&device).into_iter().find(|finding| !finding.passed()) {
            Some(wrong) => Err(format!("{}: off by {:.1e}, allowed {:.1e}", wrong.name, wrong.error, wrong.allowed)),
            None => Ok(()),
        }
    });
    let handle = test.map_err(|error| error.to_string())?;
    handle.join().unwrap_or_else(|_| Err("it panicked".into()))
}

/// A convolution, a matrix product and an exponential on fixed numbers.
fn probe(device: &Device) -> Result<Vec<f32>, String> {
    use burn::tensor::activation::sigmoid;
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Tensor, TensorData};

    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let image = Tensor::<4>::from_data(TensorData::new(wave(3 * 9 * 9, 0.37), [1, 3, 9, 9]), device);
    let weight = Tensor::<4>::from_data(TensorData::new(wave(8 * 3 * 9, 0.71), [8, 3, 3, 3]), device);
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let features = conv2d(image, weight, None, options).reshape([8, 81]);
    let gram = features.clone().matmul(features.transpose()) / 81.0;
    sigmoid(gram)
        .try_into_data()
        .map_err(|error| format!("{error:?}"))?
        .try_to_vec::<f32>()
        .map_err(|error| format!("{error:?}"))
}

/// Whether `path` looks like the folder of a CUDA toolkit; for reports.
pub fn has_headers(path: &Path) -> bool {
    path.join(HEADER).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_words() {
        assert_eq!(Want::parse("auto"), Ok(Want::Auto));
        assert_eq!(Want::parse("cuda:3"), Ok(Want::Cuda(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert!(Want::parse(wrong).unwrap_err().contains("would be right"), "{wrong}");
        }
    }

    #[test]
    fn the_cpu_passes_its_own_test() {
        self_test(&Device::flex()).unwrap();
    }

    fn toolkit(root: &Path, nvrtc_found: bool, cuda_path: Option<&Path>) -> Toolkit {
        let nvrtc_names = vec!["libnvrtc.so".into(), "libnvrtc.so.12".into()];
        Toolkit { nvrtc_found, nvrtc_names, cuda_path: cuda_path.map(OsString::from), root: root.into() }
    }

    #[test]
    fn a_driver_alone_is_not_enough() {
        let root = tempfile::tempdir().unwrap();
        let missing = toolkit(root.path(), false, None).check().unwrap_err();
        assert!(
            missing.contains("NVRTC") && missing.contains("libnvrtc.so.12") && missing.contains("Install"),
            "{missing}"
        );
        let missing = toolkit(root.path(), true, None).check().unwrap_err();
        assert!(missing.contains("usr/local/cuda/include/cuda_fp16.h") && missing.contains("CUDA_PATH"), "{missing}");

        let include = root.path().join("usr/local/cuda/include");
        std::fs::create_dir_all(&include).unwrap();
        assert!(toolkit(root.path(), true, None).check().is_err(), "an empty folder does not count");
        std::fs::write(include.join("cuda_fp16.h"), "").unwrap();
        toolkit(root.path(), true, None).check().unwrap();
        let elsewhere = root.path().join("elsewhere");
        let missing = toolkit(root.path(), true, Some(&elsewhere)).check().unwrap_err();
        assert!(missing.contains("elsewhere") && !missing.contains("usr/local"), "CUDA_PATH counts alone: {missing}");
    }

    #[test]
    fn a_named_device_that_is_not_there_is_an_error_and_auto_is_not() {
        let error = choose(Want::Cuda(4096)).unwrap_err();
        assert!(error.starts_with("device cuda:4096: "), "{error}");
        let chosen = choose(Want::Auto).unwrap();
        assert!(!chosen.reason.is_empty() && !chosen.reason.contains('\n'));
    }
}
