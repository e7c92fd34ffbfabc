//! What the machine is, and how fast its GPU copies memory. Knows no kernel of ours.

use std::process::Command;
use std::time::Instant;

use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, DriverError};
use ichd::device::Chosen;
use serde::Serialize;

use crate::Stop;
use crate::measure::median;

/// Bytes that are copied at a time: many times what any cache holds.
const COPIED: usize = 1 << 30;

/// The machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Threads that the processor runs at a time.
    pub threads: usize,
    /// GPUs that the driver lists.
    pub gpus: usize,
    /// Name of the one in use.
    pub gpu: Option<String>,
    /// Its compute capability.
    pub capability: Option<String>,
    /// Its memory in MiB.
    pub memory_mib: Option<usize>,
    /// Its second-level cache in MiB.
    pub cache_mib: Option<usize>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// Version of the compiler of kernels.
    pub nvrtc: Option<String>,
}

fn failed(error: DriverError) -> Stop {
    Stop::Device(format!("the driver says {error}"))
}

/// The context that everything else on the device uses too.
fn context(chosen: &Chosen) -> Result<std::sync::Arc<CudaContext>, Stop> {
    let index = chosen.name.strip_prefix("cuda:").and_then(|index| index.parse().ok());
    CudaContext::new(index.ok_or_else(|| Stop::Device(format!("{} is not a GPU", chosen.name)))?).map_err(failed)
}

impl Machine {
    /// One whose GPU, if it has any, is not asked for.
    pub fn without_gpu() -> Machine {
        Machine { threads: std::thread::available_parallelism().map_or(1, usize::from), ..Machine::default() }
    }

    /// One with a GPU that passed its self-test.
    pub fn with_gpu(chosen: &Chosen) -> Result<Machine, Stop> {
        let context = context(chosen)?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let cache = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE).map_err(failed)?;
        Ok(Machine {
            gpus: crate::gpus(),
            gpu: Some(context.name().map_err(failed)?),
            capability: Some(format!("{major}.{minor}")),
            memory_mib: Some(context.total_mem().map_err(failed)? >> 20),
            cache_mib: usize::try_from(cache).ok().map(|bytes| bytes >> 20),
            driver: driver(),
            nvrtc: nvrtc(),
            ..Machine::without_gpu()
        })
    }
}

/// As the driver's own program prints it; nobody else tells the whole number.
fn driver() -> Option<String> {
    let output = Command::new("nvidia-smi").args(["--query-gpu=driver_version", "--format=csv,noheader"]).output().ok();
    let text = output.filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.and_then(|text| Some(String::from_utf8(text).ok()?.lines().next()?.trim().to_owned()));
    text.filter(|version| !version.is_empty()).or_else(|| {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        Some(text.lines().next()?.trim().to_owned())
    })
}

/// As the compiler writes it into what it compiles.
fn nvrtc() -> Option<String> {
    let compiled = cudarc::nvrtc::compile_ptx("extern \"C\" __global__ void nothing() {}").ok()?.to_src();
    let line = compiled.lines().find(|line| line.contains("release"))?;
    Some(line.trim_start_matches('/').trim().to_owned())
}

/// Bytes a second that the driver's own copy on the device reads and writes, both counted.
///
/// Not measured with the tensor library: it may fuse what is asked for again and again, or leave it out.
pub fn copy_bandwidth(chosen: &Chosen) -> Result<f64, Stop> {
    const RUNS: usize = 10;
    let context = context(chosen)?;
    let (free, _) = context.mem_get_info().map_err(failed)?;
    let bytes = COPIED.min(free / 8);
    let stream = context.default_stream();
    let from = stream.alloc_zeros::<u8>(bytes).map_err(failed)?;
    let mut to = stream.alloc_zeros::<u8>(bytes).map_err(failed)?;
    let mut samples = Vec::new();
    // The first is a warm-up.
    for _ in 0..10 {
        stream.synchronize().map_err(failed)?;
        let begun = Instant::now();
        for _ in 0..RUNS {
            stream.memcpy_dtod(&from, &mut to).map_err(failed)?;
        }
        stream.synchronize().map_err(failed)?;
        samples.push(begun.elapsed().as_secs_f64() / RUNS as f64);
    }
    Ok((2 * bytes) as f64 / median(&mut samples[1..]))
}
