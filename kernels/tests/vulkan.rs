//! The CubeCL kernels on Mesa's software rasterizer, the same source that CUDA gets.

use burn::tensor::{Device, DeviceKind, DeviceType, FloatDType, Tensor};
use ichd_kernels::parity::{self, Finding};
use ichd_kernels::{Ramp, SliceView, StoredPixels, Transport, Window, WindowPlan, window_tensor};

/// The rasterizer, or `None` with a word on it where Vulkan is not installed. CI sets `ICHD_REQUIRE_VULKAN`.
fn device() -> Option<Device> {
    // The loader complains about a missing folder otherwise, and tuning results must not go into the project.
    let none = Device::enumerate(DeviceType::Vulkan).is_empty();
    if none && std::env::var_os("ICHD_REQUIRE_VULKAN").is_none() {
        eprintln!("skipped: no Vulkan device (Debian: mesa-vulkan-drivers)");
        return None;
    }
    Some(Device::vulkan(DeviceKind::Cpu))
}

fn judge(findings: Vec<Finding>) {
    assert!(!findings.is_empty());
    for finding in &findings {
        println!("{}: {:.2e} of {:.2e}", finding.name, finding.error, finding.allowed);
    }
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| !finding.passed()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn windowing_is_the_same_as_on_the_cpu() {
    if let Some(device) = device() {
        judge(parity::windows(&device));
    }
}

#[test]
fn depthwise_convolution_is_the_same_as_on_the_cpu() {
    if let Some(device) = device() {
        judge(parity::depthwise(&device));
    }
}

/// What the daemon does on a GPU: one thread brings batches there and windows them while another computes with those before.
#[test]
fn images_that_another_thread_makes_ahead_are_the_same() {
    let Some(device) = device() else { return };
    let windows = [Window { level: 40.0, width: 80.0 }, Window { level: 80.0, width: 200.0 }];
    let plan = WindowPlan::new(&windows, Ramp::LinearExact, 24, &[0.5, 0.4], &[0.25, 0.3]).unwrap();
    // Batches of several sizes, each of other pixels.
    let batches: Vec<Vec<Vec<i16>>> =
        (0..24).map(|batch| (0..1 + batch % 5).map(|slice| pixels(batch * 8 + slice)).collect()).collect();
    let transport = Transport::of(&device);
    let window = |batch: &[Vec<i16>]| -> Tensor<4> {
        let views: Vec<SliceView<'_>> = batch.iter().map(|values| view(values)).collect();
        window_tensor(&plan, &views, &device, FloatDType::F32, transport).unwrap()
    };
    // Something that keeps the device busy and depends on every pixel.
    let compute = |images: Tensor<4>| -> Vec<f32> {
        let turn = |x: Tensor<4>, _| x.clone() * x.clone().swap_dims(1, 2) * 0.25 + x;
        (0..8).fold(images, turn).into_data().try_to_vec().unwrap()
    };
    let alone: Vec<Vec<f32>> = batches.iter().map(|batch| compute(window(batch))).collect();
    let (ahead, made) = std::sync::mpsc::sync_channel(0);
    let together: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let (batches, window, device) = (&batches, &window, &device);
        scope.spawn(move || {
            for batch in batches {
                let images = window(batch);
                device.flush().unwrap();
                ahead.send(images).unwrap();
            }
        });
        made.iter().map(compute).collect()
    });
    assert_eq!(alone, together);
    assert!(alone.iter().flatten().all(|value| value.is_finite()) && alone[0] != alone[5]);
}

const ROWS: usize = 40;
const COLUMNS: usize = 37;

fn pixels(seed: usize) -> Vec<i16> {
    (0..ROWS * COLUMNS).map(|at| ((at * 31 + seed * 7919) % 400) as i16 - 100).collect()
}

fn view(values: &[i16]) -> SliceView<'_> {
    SliceView { pixels: StoredPixels::I16(values), rows: ROWS, columns: COLUMNS, slope: 1.0, ..SliceView::default() }
}
