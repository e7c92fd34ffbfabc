//! A stand-in for `cubecl-llvm` 0.11.3.
//!
//! `cubecl-cuda` always depends on `cubecl-llvm`, whose build script downloads a bundle of LLVM.
//! ichd selects the other CUDA compiler (CUDA C++ through NVRTC, feature `cubecl/cuda-cpp`), so all
//! that is needed is for the names that `cubecl-cuda` mentions to exist. Whoever selects the LLVM
//! backend after all gets a compilation error that says why.
//!
//! The names and field types follow `cubecl-cuda` 0.11.3; a new CubeCL release needs a look here.

use std::fmt;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

/// PTX versions, which only the LLVM backend chooses.
pub mod nvptx {
    /// See [`PtxVersion`](ptx_version::PtxVersion).
    pub mod ptx_version {
        use std::fmt;

        /// A PTX version that cannot be made: NVRTC chooses its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// Always `None`.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// What the LLVM backend would withhold from the device's features.
pub mod shared {
    /// See [`restrict_features`](lowered_features::restrict_features).
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// The GPU family to restrict for.
        #[derive(Clone, Copy, Debug)]
        pub enum GpuTarget {
            /// NVIDIA.
            Nvptx,
        }

        /// Does nothing: only the LLVM backend has features to withhold.
        pub fn restrict_features(_props: &mut DeviceProperties, _target: GpuTarget) {}
    }
}

/// The target of a [`PlironCompiler`].
#[derive(Clone, Copy, Debug)]
pub enum LlvmTarget {
    /// NVIDIA.
    Nvptx,
}

/// Options that are accepted and ignored.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Unused.
    pub arch: Option<()>,
    /// Unused.
    pub sm_arch: Option<SmArch>,
    /// Unused.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Unused.
    pub grid_constants: bool,
}

/// A compiled module, which is never made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text.
    pub ptx: Vec<std::ffi::c_char>,
    /// Name of the kernel.
    pub entrypoint: String,
    /// Intermediate text.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// How each buffer is used.
    pub io: Vec<BufferIOAttr>,
}

/// What the compiler would return.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlironArtifact {
    /// A module for NVIDIA.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

/// A compiler that refuses every kernel.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// Unused.
    pub target: LlvmTarget,
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without CubeCL's LLVM backend; \
                     build it with the feature `cubecl/cuda-cpp`, which compiles through NVRTC"
                .into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
