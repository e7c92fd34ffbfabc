//! The CUDA C++ of every kernel, generated without a device and compiled by NVRTC for the GPU generations in use, so that a
//! kernel which CUDA would refuse cannot land.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use cubecl::ir::features::Features;
use cubecl::ir::{DeviceIdentity, FloatKind, HardwareProperties, IntKind, MemoryDeviceProperties, UIntKind};
use cubecl::prelude::*;
use cubecl::profile::TimingMethod;
use cubecl::{Compiler, CubeKernel};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;

use super::depthwise::{depthwise_forward, depthwise_input_gradient, depthwise_weight_products, depthwise_weight_sum};
use super::window::window_blocks;
use crate::geometry::Plane;

/// What CubeCL reads from a CUDA device, for one that is not there.
fn properties() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 48 * 1024,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: 16,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity = DeviceIdentity { name: "none".to_owned(), fingerprint: "none".to_owned(), physical: None };
    let memory = MemoryDeviceProperties::new(1 << 32, 512);
    let mut properties = DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::Device, identity);
    cubecl_cpp::register_supported_types(&mut properties);
    Arc::new(properties)
}

fn source(kernel: &impl CubeKernel) -> String {
    let definition = cubecl::define_kernel(kernel).expect("the kernel can be expanded");
    let features = CppSupportedFeatures { fast_math: true, grid_constants: true, ..Default::default() };
    let options = CompilationOptions { supports_features: features, warp_size: 32, ..Default::default() };
    CppCompiler::<Cuda>::default().compile(definition, &options).expect("the kernel can be written as C++").to_string()
}

fn settings(dim: CubeDim) -> KernelSettings {
    KernelSettings::new(*dim, ExecutionMode::Checked, AddressType::U32)
}

/// As windowing is launched.
fn unchecked(dim: CubeDim) -> KernelSettings {
    KernelSettings::new(*dim, ExecutionMode::Unchecked, AddressType::U32)
}

fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn tensor() -> TensorCompilationArg {
    TensorCompilationArg { meta: TensorMetaCompilationArg { len: (), rank: () }, buffer: buffer() }
}

/// Every kernel in every type and form that is launched.
fn sources() -> Vec<(String, String)> {
    let target = || Arc::new(TargetProperties::default());
    let [short, word] = [ElemType::Int(IntKind::I16), ElemType::UInt(UIntKind::U32)];
    let floats = [FloatKind::F32, FloatKind::F16, FloatKind::BF16].map(ElemType::Float);
    let uneven = Plane { kernel: [5, 3], stride: [2, 1], padding: [1, 0, 2, 1] };
    let mut all = Vec::new();
    for float in floats {
        for (pixels, packed) in [(short, false), (word, true)] {
            for (width, channels) in [(4, 3), (1, 3), (1, 5)] {
                let kernel = window_blocks::WindowBlocks::new(
                    unchecked(CubeDim::new_2d(32, 4)),
                    properties(),
                    target(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    (),
                    width,
                    channels,
                    packed,
                    [pixels, float],
                );
                all.push((format!("window {pixels:?} {float:?} x{width} {channels}"), source(&kernel)));
            }
        }
        for plane in [Plane::square(3, 1), Plane::square(3, 2), Plane::square(5, 1), Plane::square(5, 2), uneven] {
            let line = || settings(CubeDim::new_1d(256));
            for (fused, silu) in [(false, false), (true, false), (true, true)] {
                let kernel = depthwise_forward::DepthwiseForward::new(
                    line(),
                    properties(),
                    target(),
                    tensor(),
                    tensor(),
                    tensor(),
                    tensor(),
                    (),
                    (),
                    plane,
                    4,
                    fused,
                    silu,
                    float,
                );
                all.push((format!("depthwise forward {plane:?} {float:?} {fused} {silu}"), source(&kernel)));
            }
            let kernel = depthwise_input_gradient::DepthwiseInputGradient::new(
                line(),
                properties(),
                target(),
                tensor(),
                tensor(),
                tensor(),
                plane,
                float,
            );
            all.push((format!("depthwise input gradient {plane:?} {float:?}"), source(&kernel)));
            let kernel = depthwise_weight_products::DepthwiseWeightProducts::new(
                settings(CubeDim::new_2d(32, 8)),
                properties(),
                target(),
                tensor(),
                tensor(),
                tensor(),
                plane,
                float,
            );
            all.push((format!("depthwise weight products {plane:?} {float:?}"), source(&kernel)));
        }
        let kernel = depthwise_weight_sum::DepthwiseWeightSum::new(
            settings(CubeDim::new_1d(256)),
            properties(),
            target(),
            tensor(),
            tensor(),
            9,
            float,
        );
        all.push((format!("depthwise weight sum {float:?}"), source(&kernel)));
    }
    all
}

/// NVRTC with its headers: the folder of NVIDIA's `cu13` wheels (`lib` and `include` below it).
struct Nvrtc {
    library: libloading::Library,
    headers: PathBuf,
}

type Program = *mut c_void;

impl Nvrtc {
    /// From `ICHD_NVRTC`, or `None` with a word on it. CI sets `ICHD_REQUIRE_NVRTC`.
    fn find() -> Option<Nvrtc> {
        let Some(folder) = std::env::var_os("ICHD_NVRTC").map(PathBuf::from) else {
            assert!(std::env::var_os("ICHD_REQUIRE_NVRTC").is_none(), "ICHD_NVRTC is not set");
            eprintln!("skipped: ICHD_NVRTC does not name a folder with NVRTC and its headers");
            return None;
        };
        let library = std::fs::read_dir(folder.join("lib"))
            .expect("ICHD_NVRTC has a lib folder")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so")))
            .expect("libnvrtc.so is in the lib folder");
        // SAFETY: NVIDIA's library runs no code of consequence when it is opened.
        let library = unsafe { libloading::Library::new(library) }.expect("NVRTC can be opened");
        Some(Nvrtc { library, headers: folder.join("include") })
    }

    /// Compiles for one architecture.
    fn compile(&self, source: &str, arch: &str) -> Result<(), String> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Log = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let include = self.headers.display();
        let options = [
            format!("--gpu-architecture={arch}"),
            format!("--include-path={include}"),
            format!("--include-path={include}/cccl"),
        ];
        let options: Vec<CString> = options.into_iter().map(|o| CString::new(o).expect("no zero in a path")).collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the signatures are those of nvrtc.h; all strings end with a zero and outlive the calls; the log's buffer
        // is as long as NVRTC says.
        unsafe {
            let symbol = |name: &'static CStr| name.to_bytes_with_nul();
            let create = self.library.get::<Create>(symbol(c"nvrtcCreateProgram")).map_err(|e| e.to_string())?;
            let compile = self.library.get::<Compile>(symbol(c"nvrtcCompileProgram")).map_err(|e| e.to_string())?;
            let log_size = self.library.get::<Size>(symbol(c"nvrtcGetProgramLogSize")).map_err(|e| e.to_string())?;
            let log = self.library.get::<Log>(symbol(c"nvrtcGetProgramLog")).map_err(|e| e.to_string())?;
            let cubin_size = self.library.get::<Size>(symbol(c"nvrtcGetCUBINSize")).map_err(|e| e.to_string())?;
            let destroy = self.library.get::<Destroy>(symbol(c"nvrtcDestroyProgram")).map_err(|e| e.to_string())?;
            let mut program: Program = ptr::null_mut();
            if create(&mut program, source.as_ptr(), ptr::null(), 0, ptr::null(), ptr::null()) != 0 {
                return Err("nvrtcCreateProgram failed".to_owned());
            }
            let code = compile(program, options.len() as c_int, options.as_ptr());
            let (mut len, mut cubin) = (0usize, 0usize);
            log_size(program, &mut len);
            let mut text = vec![0u8; len.max(1)];
            log(program, text.as_mut_ptr().cast());
            cubin_size(program, &mut cubin);
            destroy(&mut program);
            match (code, cubin) {
                (0, 1..) => Ok(()),
                _ => Err(String::from_utf8_lossy(&text).into_owned()),
            }
        }
    }
}

#[test]
fn every_kernel_is_valid_cuda() {
    let sources = sources();
    assert!(sources.len() > 50 && sources.iter().all(|(_, source)| source.contains("__global__")));
    let Some(nvrtc) = Nvrtc::find() else { return };
    assert!(nvrtc.compile("__global__ void broken() { none }", "sm_80").is_err(), "NVRTC accepts everything");
    for (name, source) in &sources {
        // Turing, Ampere, Hopper, Blackwell.
        for arch in ["sm_75", "sm_80", "sm_90a", "sm_100a"] {
            if let Err(log) = nvrtc.compile(source, arch) {
                panic!("{name} for {arch}:\n{log}\n{source}");
            }
        }
    }
}
