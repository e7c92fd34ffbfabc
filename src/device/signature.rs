//! What compiled kernels hold good for: the device's name, its driver and the compiler. Computes nothing.

use super::Want;
use crate::kernel_cache::Signature;

/// Of the device that would be tried first. `None` for the CPU, and where there is no such device.
#[cfg(not(feature = "cuda"))]
pub fn signature(_want: Want) -> Option<Signature> {
    None
}

/// Of the device that would be tried first. `None` for the CPU, and where there is no such device.
#[cfg(feature = "cuda")]
pub fn signature(want: Want) -> Option<Signature> {
    use cudarc::driver::result;

    let index = match want {
        Want::Cpu => return None,
        Want::Cuda(index) => index,
        Want::Auto => 0,
    };
    if !super::has_driver() || !super::has_compiler() {
        return None;
    }
    result::init().ok()?;
    let device = result::device::get(i32::try_from(index).ok()?).ok()?;
    let device = result::device::get_name(device).ok()?;
    let (mut driver, mut major, mut minor) = (0, 0, 0);
    // SAFETY: the library is there, and writes one number to a place that is ours.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut driver) }.result().ok()?;
    // SAFETY: the library is there, and writes two numbers to places that are ours.
    unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }.result().ok()?;
    Some(Signature { device, driver: format!("driver {driver} nvrtc {major}.{minor}") })
}
