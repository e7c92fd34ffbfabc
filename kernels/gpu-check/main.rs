//! gpu-check: are the kernels right and fast on this machine's GPU? One program to carry to a machine that has a driver and
//! a CUDA toolkit (NVRTC and headers) and nothing else.
//!
//! Compares every kernel with its CPU form, times it, and measures the device's copy bandwidth in the same run, so that
//! times can be read as shares of what the memory allows. Prints a table, and JSON with `--json FILE`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use clap::Parser;
use ichd::device::{Want, choose};
use ichd_kernels::parity::{self, Finding};
use ichd_kernels::{Act, After, Plane, Ramp, SliceView, StoredPixels, Transport, Window, WindowPlan, depthwise_conv2d};
use serde::Serialize;

/// Compares and times ichd's kernels on a GPU.
#[derive(Parser)]
struct Args {
    /// cuda:N.
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// Writes everything found as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Slices of a windowing batch.
    #[arg(long, default_value_t = 256)]
    batch: usize,
}

/// A measured launch.
#[derive(Serialize)]
struct Timing {
    name: String,
    /// Median of the runs, in milliseconds.
    milliseconds: f64,
    /// Each input and output byte counted once, in GB/s.
    gigabytes_per_second: f64,
    /// The same as a share of the copy bandwidth of this run.
    share_of_copy: f64,
}

#[derive(Serialize)]
struct Report {
    program: &'static str,
    device: String,
    copy_gigabytes_per_second: f64,
    findings: Vec<Finding>,
    timings: Vec<Timing>,
}

/// Waits until the device has done what was asked of it.
fn wait(device: &Device) -> Result<()> {
    device.sync().map_err(|error| anyhow::anyhow!("the device failed: {error:?}"))
}

/// Median seconds of one run of `work`, each sample many runs long so that launches overlap as they do in use.
fn seconds(device: &Device, mut work: impl FnMut()) -> Result<f64> {
    const RUNS: usize = 20;
    for _ in 0..3 {
        work();
    }
    wait(device)?;
    let mut samples = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        for _ in 0..RUNS {
            work();
        }
        wait(device)?;
        samples.push(begun.elapsed().as_secs_f64() / RUNS as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}

/// Bytes a second of reading and writing a gigabyte.
fn copy_bandwidth(device: &Device) -> Result<f64> {
    let values = 1usize << 27;
    let source = Tensor::<1>::ones([values], device);
    let time = seconds(device, || drop(source.clone() + 1.0))?;
    Ok((values * 8) as f64 / time)
}

struct Bench<'a> {
    device: &'a Device,
    copy: f64,
}

impl Bench<'_> {
    fn time(&self, name: String, bytes: usize, work: impl FnMut()) -> Result<Timing> {
        let time = seconds(self.device, work)?;
        let rate = bytes as f64 / time;
        Ok(Timing { name, milliseconds: time * 1e3, gigabytes_per_second: rate / 1e9, share_of_copy: rate / self.copy })
    }

    /// Windowing of `batch` slices of 512 x 512 whose pixels and tables are on the device already.
    fn window(&self, batch: usize, side: usize, dtype: FloatDType) -> Result<Timing> {
        let windows = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)].map(|(level, width)| Window { level, width });
        let plan = WindowPlan::new(&windows, Ramp::LinearExact, side, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])?;
        let pixels: Vec<i16> = (0..512 * 512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as i16).collect();
        let view = SliceView {
            pixels: StoredPixels::I16(&pixels),
            rows: 512,
            columns: 512,
            intercept: -1024.0,
            ..SliceView::default()
        };
        let views = vec![view; batch];
        let uploaded = ichd_kernels::Uploaded::new(&plan, &views, self.device, Transport::of(self.device))?;
        let element = DType::from(dtype).size();
        let bytes = batch * (512 * 512 * 2 + side * side * 3 * element);
        self.time(format!("window {batch} x 512 to {side}, {dtype:?}"), bytes, || drop(uploaded.window(dtype)))
    }

    /// One depthwise layer: forward with epilogue, and both gradients.
    fn depthwise(&self, dims: [usize; 4], plane: Plane, dtype: FloatDType) -> Result<Vec<Timing>> {
        let [n, height, width, channels] = dims;
        let [down, across] = plane.output([height, width]).context("the kernel fits")?;
        let x = Tensor::<4>::ones(dims, self.device).cast(dtype);
        let weight = Tensor::<4>::ones([channels, 1, plane.kernel[0], plane.kernel[1]], self.device).cast(dtype);
        let bias = Tensor::<1>::ones([channels], self.device).cast(dtype);
        let element = DType::from(dtype).size();
        let (read, written) = (n * height * width * channels * element, n * down * across * channels * element);
        let name = |what: &str| {
            format!(
                "depthwise {what} {0}x{0} stride {1}, {n}x{height}x{width}x{channels}, {dtype:?}",
                plane.kernel[0], plane.stride[0]
            )
        };
        let forward = self.time(name("forward"), read + written, || {
            let after = After { bias: Some(bias.clone()), addend: None, act: Act::Relu6 };
            drop(depthwise_conv2d(x.clone(), weight.clone(), plane, after));
        })?;
        let tracked = |tensor: &Tensor<4>| Tensor::<4>::from_inner(tensor.clone()).require_grad();
        let (x, weight) = (tracked(&x), tracked(&weight));
        // Forward again, then both gradients: each reads the output's gradient, one the weights and one the input.
        let both = self.time(name("forward and backward"), 3 * read + 3 * written, || {
            drop(depthwise_conv2d(x.clone(), weight.clone(), plane, After::nothing()).backward());
        })?;
        Ok(vec![forward, both])
    }
}

fn run(args: &Args) -> Result<Report> {
    let want = Want::parse(&args.device).map_err(anyhow::Error::msg)?;
    let chosen = choose(want).map_err(|error| anyhow::anyhow!("{error}"))?;
    let device = chosen.device;
    if ichd_kernels::on_cpu(&device) {
        bail!("{} is not a GPU", args.device);
    }
    let mut findings = parity::windows(&device);
    findings.extend(parity::depthwise(&device));
    let copy = copy_bandwidth(&device)?;
    let bench = Bench { device: &device, copy };
    let mut timings = Vec::new();
    for dtype in parity::types(&device) {
        for side in [224, 299, 300] {
            timings.push(bench.window(args.batch, side, dtype)?);
        }
        timings.push(bench.window(32, 224, dtype)?);
        timings.push(bench.window(1, 224, dtype)?);
        for (dims, plane) in [
            ([32, 112, 112, 32], Plane::square(3, 1)),
            ([32, 112, 112, 96], Plane::square(3, 2)),
            ([32, 56, 56, 144], Plane::square(3, 1)),
            ([32, 28, 28, 240], Plane::square(5, 1)),
            ([32, 14, 14, 672], Plane::square(5, 2)),
            ([32, 7, 7, 960], Plane::square(3, 1)),
        ] {
            timings.extend(bench.depthwise(dims, plane, dtype)?);
        }
    }
    Ok(Report {
        program: env!("CARGO_PKG_VERSION"),
        device: chosen.name,
        copy_gigabytes_per_second: copy / 1e9,
        findings,
        timings,
    })
}

fn print(report: &Report) {
    println!("device {}, copying {:.0} GB/s\n", report.device, report.copy_gigabytes_per_second);
    for finding in &report.findings {
        let word = if finding.passed() { "ok   " } else { "WRONG" };
        println!("{word} {}: off by {:.1e}, allowed {:.1e}", finding.name, finding.error, finding.allowed);
    }
    println!("\n{:>10} {:>9} {:>8}  kernel", "ms", "GB/s", "of copy");
    for Timing { name, milliseconds, gigabytes_per_second, share_of_copy } in &report.timings {
        println!("{milliseconds:>10.4} {gigabytes_per_second:>9.0} {:>7.0}%  {name}", share_of_copy * 100.0);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = match run(&args) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("gpu-check: {error:#}");
            return ExitCode::from(69);
        }
    };
    print(&report);
    if let Some(path) = &args.json {
        let written = serde_json::to_vec_pretty(&report)
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(std::fs::write(path, text)?));
        if let Err(error) = written {
            eprintln!("gpu-check: {}: {error}", path.display());
            return ExitCode::from(74);
        }
    }
    if report.findings.iter().all(Finding::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
