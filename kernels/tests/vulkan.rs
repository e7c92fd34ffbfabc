//! The CubeCL kernels on Mesa's software rasterizer, the same source that CUDA gets.

use burn::tensor::{Device, DeviceKind, DeviceType};
use ichd_kernels::parity::{self, Finding};

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
