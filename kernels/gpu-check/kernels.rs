//! Every kernel of ours: compared with its CPU form, and timed against copying as many bytes. Knows no network.

use std::time::Instant;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, FloatDType, Tensor};
use ichd::engine::EngineError;
use ichd::frugal::guarded;
use ichd_kernels::parity::Finding;
use ichd_kernels::{
    Act, After, DepthwiseOps, Plane, Ramp, SliceView, StoredPixels, Transport, Uploaded, Window, WindowPlan,
    depthwise_conv2d, parity,
};

use crate::measure::{median, read};
use crate::report::{Journal, KernelTime};
use crate::{Bench, Stop, machine};

/// Least share of the copy bandwidth that windowing of a large batch must reach.
const WINDOW_SHARE: f64 = 0.8;
/// Most that forward and backward passes of a depthwise convolution may take, over copying as many bytes.
const DEPTHWISE_FLOORS: f64 = 2.0;
/// Bytes that a case moves at least to be held to a bar: what fits the second-level cache is faster than any copy, and what
/// is done before the next launch is ready measures launches.
const HELD: usize = 512 << 20;

/// Depthwise layers of the backbones: images, height, width, channels.
const LAYERS: [([usize; 4], [usize; 2]); 6] = [
    ([32, 112, 112, 32], [3, 1]),
    ([32, 112, 112, 96], [3, 2]),
    ([32, 56, 56, 144], [3, 1]),
    ([32, 28, 28, 240], [5, 1]),
    ([32, 14, 14, 672], [5, 2]),
    ([32, 7, 7, 960], [3, 1]),
];

type Compare = fn(&Device) -> Vec<Finding>;

/// The whole part.
pub fn run(bench: &Bench<'_>, journal: &mut Journal) -> Result<(), Stop> {
    let device = &bench.chosen.device;
    let comparisons: [(&str, Compare); 2] =
        [("comparing windowing", parity::windows), ("comparing depthwise convolution", parity::depthwise)];
    for (name, compare) in comparisons {
        match guarded(|| Ok(compare(device))) {
            Ok(findings) => findings.into_iter().try_for_each(|finding| journal.finding(finding))?,
            Err(error) => bench.excuse(journal, name, &error)?,
        }
    }
    let copy = machine::copy_bandwidth(bench.chosen)?;
    let clock = KernelClock { device, copy };
    let launch = clock.launch().map_err(lost)?;
    journal.floors(copy, launch)?;
    for dtype in parity::types(device) {
        let batch = bench.args.window_batch;
        for (batch, side, is_held) in
            [(batch, 224, true), (batch, 299, false), (batch, 300, false), (32, 224, false), (1, 224, false)]
        {
            let name = format!("window {batch} x 512 to {side}, {dtype:?}");
            let time = || clock.window(name.clone(), batch, side, dtype, is_held.then_some(1.0 / WINDOW_SHARE));
            tell(bench, journal, &name, || Ok(vec![time()?]))?;
        }
        for (dims, [kernel, stride]) in LAYERS {
            let plane = Plane::square(kernel, stride);
            for is_held in [false, true] {
                let dims = if is_held { enlarged(dims, dtype) } else { dims };
                let name = format!("depthwise {plane:?}, {dims:?}, {dtype:?}");
                let bar = is_held.then_some(DEPTHWISE_FLOORS);
                tell(bench, journal, &name, || clock.depthwise(dims, plane, dtype, bar))?;
            }
        }
    }
    Ok(())
}

fn lost(error: EngineError) -> Stop {
    Stop::Device(error.to_string())
}

/// Times of a case, or why there are none.
fn tell(
    bench: &Bench<'_>,
    journal: &mut Journal,
    name: &str,
    time: impl FnOnce() -> Result<Vec<KernelTime>, EngineError>,
) -> Result<(), Stop> {
    if bench.budget.is_spent() {
        return journal.not_done(name, "the time is up");
    }
    bench.chosen.device.memory_cleanup();
    match guarded(time) {
        Ok(times) => times.into_iter().try_for_each(|time| journal.kernel(time)),
        Err(error) => bench.excuse(journal, name, &error),
    }
}

/// So many images that the layer's input alone is what a bar is held to.
fn enlarged([_, height, width, channels]: [usize; 4], dtype: FloatDType) -> [usize; 4] {
    let of_image = height * width * channels * DType::from(dtype).size();
    [HELD.div_ceil(of_image), height, width, channels]
}

struct KernelClock<'c> {
    device: &'c Device,
    /// Bytes a second.
    copy: f64,
}

impl KernelClock<'_> {
    fn wait(&self) -> Result<(), EngineError> {
        self.device.sync().map_err(|error| EngineError::of_device(&format!("{error:?}")))
    }

    /// Median seconds of one run of `work`, each sample many runs long so that launches overlap as they do in use. Our
    /// kernels are opaque to fusion: each is launched, whatever becomes of its output.
    fn seconds(&self, work: impl Fn() -> Tensor<4>) -> Result<f64, EngineError> {
        const RUNS: usize = 20;
        for _ in 0..3 {
            drop(work());
        }
        self.wait()?;
        let mut samples = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            for _ in 0..RUNS {
                drop(work());
            }
            self.wait()?;
            samples.push(begun.elapsed().as_secs_f64() / RUNS as f64);
        }
        // A launch that failed shows in what is read, not in waiting.
        read(work().slice([0..1, 0..1, 0..1, 0..1]))?;
        Ok(median(&mut samples))
    }

    fn time(
        &self,
        name: String,
        bytes: usize,
        bar: Option<f64>,
        work: impl Fn() -> Tensor<4>,
    ) -> Result<KernelTime, EngineError> {
        let seconds = self.seconds(work)?;
        let rate = bytes as f64 / seconds;
        let of_floor = self.copy / rate;
        Ok(KernelTime {
            name,
            milliseconds: seconds * 1e3,
            gigabytes_per_second: rate / 1e9,
            share_of_copy: rate / self.copy,
            of_floor,
            bar,
            is_met: bar.map(|bar| of_floor <= bar),
        })
    }

    /// Milliseconds of a launch with next to nothing to do.
    fn launch(&self) -> Result<f64, EngineError> {
        let x = Tensor::<4>::ones([1, 1, 1, 32], self.device);
        let weight = Tensor::<4>::ones([32, 1, 1, 1], self.device);
        let plane = Plane::square(1, 1);
        let work = || depthwise_conv2d(x.clone(), weight.clone(), plane, After::nothing());
        Ok(guarded(|| self.seconds(work))? * 1e3)
    }

    /// Windowing of `batch` slices of 512 x 512 whose pixels and tables are on the device already.
    fn window(
        &self,
        name: String,
        batch: usize,
        side: usize,
        dtype: FloatDType,
        bar: Option<f64>,
    ) -> Result<KernelTime, EngineError> {
        let fail = |error: ichd_kernels::KernelError| EngineError::Window(error.to_string());
        let windows = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)].map(|(level, width)| Window { level, width });
        let plan = WindowPlan::new(&windows, Ramp::LinearExact, side, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])
            .map_err(fail)?;
        let pixels: Vec<i16> = (0..512 * 512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as i16).collect();
        let view = SliceView {
            pixels: StoredPixels::I16(&pixels),
            rows: 512,
            columns: 512,
            intercept: -1024.0,
            ..SliceView::default()
        };
        let views = vec![view; batch];
        let uploaded = Uploaded::new(&plan, &views, self.device, Transport::of(self.device)).map_err(fail)?;
        let element = DType::from(dtype).size();
        let bytes = batch * (512 * 512 * 2 + side * side * 3 * element);
        self.time(name, bytes, bar, || uploaded.window(dtype))
    }

    /// One depthwise layer: forward with its epilogue, and each gradient alone.
    fn depthwise(
        &self,
        dims: [usize; 4],
        plane: Plane,
        dtype: FloatDType,
        bar: Option<f64>,
    ) -> Result<Vec<KernelTime>, EngineError> {
        let [n, height, width, channels] = dims;
        let [down, across] = plane
            .output([height, width])
            .ok_or_else(|| EngineError::Window(format!("{plane:?} does not fit {dims:?}")))?;
        let ones = |dims: [usize; 4]| Tensor::<4>::ones(dims, self.device).cast(dtype);
        let (x, grad) = (ones(dims), ones([n, down, across, channels]));
        let weight = ones([channels, 1, plane.kernel[0], plane.kernel[1]]);
        let bias = Tensor::<1>::ones([channels], self.device).cast(dtype);
        // All three kernels read or write the input's and the output's values once; the rest is small.
        let bytes =
            (x.dims().iter().product::<usize>() + grad.dims().iter().product::<usize>()) * DType::from(dtype).size();
        let name = |what: &str| {
            let ([kernel, _], [stride, _]) = (plane.kernel, plane.stride);
            format!("depthwise {what} {kernel}x{kernel} stride {stride}, {n}x{height}x{width}x{channels}, {dtype:?}")
        };
        let forward = self.time(name("forward"), bytes, bar, || {
            let after = After { bias: Some(bias.clone()), addend: None, act: Act::Relu6 };
            depthwise_conv2d(x.clone(), weight.clone(), plane, after)
        })?;
        let of_input = self.time(name("input gradient"), bytes, bar, || {
            let (grad, weight) = (grad.clone().into_dispatch(), weight.clone().into_dispatch());
            let size = [height, width];
            Tensor::from_dispatch(<Dispatch as DepthwiseOps>::depthwise_input_grad(grad, weight, plane, size))
        })?;
        let of_weight = self.time(name("weight gradient"), bytes, bar, || {
            let (x, grad) = (x.clone().into_dispatch(), grad.clone().into_dispatch());
            Tensor::from_dispatch(<Dispatch as DepthwiseOps>::depthwise_weight_grad(x, grad, plane))
        })?;
        Ok(vec![forward, of_input, of_weight])
    }
}
