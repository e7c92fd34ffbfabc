//! Windowing on the GPU: one launch from the stored pixels of a batch to the network's input.
//!
//! A unit makes a block of 4 x 4 output pixels in registers. It reads each pixel under the block once, windows it once and
//! adds it to the four columns that it may count for, then each finished source row to the four rows. Nothing is written
//! but the output. Shared memory is not needed: neighboring blocks overlap by two filter widths, which the first-level
//! cache holds. (CubeCL 0.11.3 also makes invalid SPIR-V of shared memory where a Vulkan driver lacks
//! VK_KHR_workgroup_memory_explicit_layout, as Mesa's rasterizer does.)

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{FloatDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::upload::{LINE_FIELDS, Launch, SLICE_FIELDS, TABLE_FIELDS, WindowOps};
use crate::resize::BLOCK;

/// Units of a cube across and down: neighbors read neighboring pixels.
const UNITS: [usize; 2] = [32, 4];

/// One stored value. 16-bit pixels come as they are or two in a word; bits above the sign are gone either way.
#[cube]
fn stored<I: Int>(pixels: &[I], at: usize, signed: bool, #[comptime] packed: bool) -> i32 {
    let bits = if comptime!(packed) {
        let word = u32::cast_from(pixels[at / 2]);
        (word >> (u32::cast_from(at % 2) * 16)) & 0xffff
    } else {
        u32::cast_from(i32::cast_from(pixels[at])) & 0xffff
    };
    let value = i32::cast_from(bits);
    select(signed, (value ^ 0x8000) - 0x8000, value)
}

/// `output` is `[n, side, side, channels]`, `N` values at a time; what the other arguments hold is said in `upload.rs`.
#[cube(launch_unchecked)]
pub fn window_blocks<I: Int, O: Float, N: Size>(
    pixels: &[I],
    slices: &[i32],
    lines: &[f32],
    tables: &[i32],
    weights: &[f32],
    output: &mut [Vector<O, N>],
    side: u32,
    #[comptime] channels: usize,
    #[comptime] packed: bool,
    #[define(I, O)] _dtypes: [ElemType; 2],
) {
    let side = side as usize;
    let block_x = ABSOLUTE_POS_X as usize;
    let block_y = ABSOLUTE_POS_Y as usize;
    let slice = CUBE_POS_Z as usize;
    if block_x * BLOCK >= side || block_y * BLOCK >= side {
        terminate!();
    }

    let of_slice = slice * SLICE_FIELDS;
    let origin = slices[of_slice] as usize;
    let pitch = slices[of_slice + 1] as usize;
    let source_rows = slices[of_slice + 2] as usize;
    let source_columns = slices[of_slice + 3] as usize;
    let mirrored = slices[of_slice + 4] != 0;
    let upside_down = slices[of_slice + 5] != 0;
    let signed = slices[of_slice + 6] != 0;
    let padding_first = slices[of_slice + 7];
    let padding_last = slices[of_slice + 8];
    let across = (slices[of_slice + 9] as usize + block_x) * TABLE_FIELDS;
    let down = (slices[of_slice + 10] as usize + block_y) * TABLE_FIELDS;
    let of_lines = slice * comptime!(1 + channels * LINE_FIELDS);
    let instead = lines[of_lines];

    let first_column = tables[across] as usize;
    let n_columns = tables[across + 1] as usize;
    let across_weights = tables[across + 2] as usize;
    let first_row = tables[down] as usize;
    let n_rows = tables[down + 1] as usize;
    let down_weights = tables[down + 2] as usize;

    let row_values = comptime!(BLOCK * channels);
    let mut sums = Array::<f32>::new(comptime!(BLOCK * BLOCK * channels));
    #[unroll]
    for which in 0..comptime!(BLOCK * BLOCK * channels) {
        sums[which] = f32::new(0.0);
    }
    let mut narrowed = Array::<f32>::new(row_values);
    for row in 0..n_rows {
        let y = select(upside_down, source_rows - 1 - (first_row + row), first_row + row);
        let line = origin + y * pitch;
        #[unroll]
        for which in 0..row_values {
            narrowed[which] = f32::new(0.0);
        }
        for column in 0..n_columns {
            let x = first_column + column;
            let x = select(mirrored, source_columns - 1 - x, x);
            let integer = stored::<I>(pixels, line + x, signed, packed);
            let is_padding = integer >= padding_first && integer <= padding_last;
            let value = select(is_padding, instead, f32::cast_from(integer));
            let of_weights = across_weights + column * BLOCK;
            #[unroll]
            for channel in 0..channels {
                let at = of_lines + comptime!(1 + channel * LINE_FIELDS);
                let windowed = f32::clamp(value - lines[at], lines[at + 1], lines[at + 2]);
                #[unroll]
                for out in 0..BLOCK {
                    narrowed[comptime!(out * channels + channel)] += weights[of_weights + out] * windowed;
                }
            }
        }
        #[unroll]
        for out in 0..BLOCK {
            let weight = weights[down_weights + row * BLOCK + out];
            #[unroll]
            for which in 0..row_values {
                sums[comptime!(out * row_values + which)] += weight * narrowed[which];
            }
        }
    }

    let width = N::value();
    #[unroll]
    for out in 0..BLOCK {
        let y = block_y * BLOCK + out;
        if y < side {
            #[unroll]
            for group in 0..comptime!(row_values / width) {
                let x = block_x * BLOCK + comptime!(group * width / channels);
                if x < side {
                    let mut values = Vector::<O, N>::empty();
                    #[unroll]
                    for lane in 0..width {
                        let which = comptime!(group * width + lane);
                        let at = of_lines + comptime!(1 + (which % channels) * LINE_FIELDS);
                        let value = sums[comptime!(out * row_values + which)] * lines[at + 3] + lines[at + 4];
                        values.insert(lane, O::cast_from(value));
                    }
                    let first = ((slice * side + y) * side + block_x * BLOCK) * channels;
                    output[first / width + group] = values;
                }
            }
        }
    }
}

impl WindowOps for CubeBackend {
    fn window_batch(
        pixels: CubeTensor,
        slices: CubeTensor,
        lines: CubeTensor,
        tables: CubeTensor,
        weights: CubeTensor,
        launch: Launch,
        dtype: FloatDType,
    ) -> CubeTensor {
        let Launch { n, side, channels, packed } = launch;
        let client = pixels.client.clone();
        let shape = Shape::from(vec![n, side, side, channels]);
        let output = empty_device_contiguous_dtype(client.clone(), pixels.device.clone(), shape, dtype.into());
        let cubes = |axis: usize| side.div_ceil(BLOCK * UNITS[axis]) as u32;
        let dtypes = [pixels.dtype, output.dtype].map(dtype_to_storage_type);
        // Whole blocks are stored four values at a time.
        let width = if side.is_multiple_of(BLOCK) { 4 } else { 1 };
        // SAFETY: every place that the kernel reads comes from tables that `upload.rs` made of checked slices, and it writes
        // only where `side` allows; the arguments have the lengths that these tables were made for.
        unsafe {
            window_blocks::launch_unchecked(
                &client,
                CubeCount::Static(cubes(0), cubes(1), n as u32),
                CubeDim::new_2d(UNITS[0] as u32, UNITS[1] as u32),
                width,
                into_contiguous(pixels).into_buffer_arg(),
                into_contiguous(slices).into_buffer_arg(),
                into_contiguous(lines).into_buffer_arg(),
                into_contiguous(tables).into_buffer_arg(),
                into_contiguous(weights).into_buffer_arg(),
                output.clone().into_buffer_arg(),
                side as u32,
                channels,
                packed,
                dtypes,
            );
        }
        output
    }
}
