//! The CubeCL kernels on Mesa's software rasterizer, the same source that CUDA gets.

use std::fs;
use std::path::Path;
use std::process::Command;

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

/// Set for the process of the next test but one.
const CHILD: &str = "ICHD_TEST_KEPT_KERNELS_CHILD";

/// What the tensor library is told: where it keeps compiled kernels, and where it says which it compiles.
fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "[compilation]\ncache = true\nlogger = {{ level = \"basic\", file = \"{folder}/compiled.txt\" }}\n\
         [environment]\nname = \"kept\"\npath = {{ directory = \"{folder}\" }}\n"
    )
}

/// Does the work of the next test when that asks for it.
#[test]
fn kept_kernels_child() {
    if std::env::var_os(CHILD).is_some()
        && let Some(device) = device()
    {
        judge(parity::windows(&device));
    }
}

/// The tensor library's store of compiled kernels, on our stand-in for its database, as a daemon's starts use it one after the
/// other.
#[test]
fn kernels_that_one_process_compiled_are_used_by_the_next() {
    if device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cubecl.toml"), settings(folder.path())).unwrap();
    let log = folder.path().join("compiled.txt");
    let compiled = || {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["kept_kernels_child", "--exact", "--nocapture"])
            .current_dir(folder.path())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
        assert!(output.contains(" of "), "nothing was compared: {output}");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(&log, "").unwrap();
        text
    };
    let first = compiled();
    assert!(!first.is_empty(), "nothing was compiled");
    assert!(folder.path().join("kept.db").exists());
    assert_eq!(compiled(), "", "the second process compiled what the first one had");
}
