//! Depthwise convolution and its gradients, `[n, height, width, channels]`.
//!
//! Neighboring units take neighboring channels, so every load and store of a plane of units is one run of memory. Sums
//! are f32 whatever the type of the tensors. There is no atomic: results are the same in every run.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use crate::geometry::{Act, Plane};
use crate::ops::DepthwiseOps;

/// Neighboring output columns of one unit: what they read overlaps and is loaded once.
const COLUMNS: usize = 4;

/// One unit: `columns` neighboring output pixels of one channel.
#[cube(launch)]
pub fn depthwise_forward<F: Float>(
    input: &Tensor<F>,
    weight: &Tensor<F>,
    bias: &Tensor<F>,
    output: &mut Tensor<F>,
    low: f32,
    high: f32,
    #[comptime] plane: Plane,
    #[comptime] columns: usize,
    #[comptime] fused: bool,
    #[comptime] silu: bool,
    #[define(F)] _dtype: ElemType,
) {
    let [top, left, _, _] = comptime!(plane.padding);
    let [taps_down, taps_across] = comptime!(plane.kernel);
    let [step_down, step_across] = comptime!(plane.stride);
    let reach = comptime!((columns - 1) * step_across + taps_across);

    let channels = output.shape(3);
    let across = output.shape(2);
    let down = output.shape(1);
    let blocks = across.div_ceil(columns);
    let channel = ABSOLUTE_POS % channels;
    let rest = ABSOLUTE_POS / channels;
    let first = (rest % blocks) * columns;
    let row = rest / blocks % down;
    let image = rest / blocks / down;
    if image >= output.shape(0) {
        terminate!();
    }

    let mut sums = Array::<f32>::new(columns);
    let mut weights = Array::<f32>::new(taps_across);
    #[unroll]
    for column in 0..columns {
        sums[column] = f32::new(0.0);
    }
    #[unroll]
    for tap_y in 0..taps_down {
        let place = row * step_down + tap_y;
        if place >= top && place < input.shape(1) + top {
            #[unroll]
            for tap_x in 0..taps_across {
                weights[tap_x] = f32::cast_from(
                    weight[channel * weight.stride(0) + tap_y * weight.stride(2) + tap_x * weight.stride(3)],
                );
            }
            let line = image * input.stride(0) + (place - top) * input.stride(1) + channel;
            #[unroll]
            for ahead in 0..reach {
                let place = first * step_across + ahead;
                if place >= left && place < input.shape(2) + left {
                    let value = f32::cast_from(input[line + (place - left) * input.stride(2)]);
                    #[unroll]
                    for tap_x in 0..taps_across {
                        if comptime!(
                            ahead >= tap_x
                                && (ahead - tap_x) % step_across == 0
                                && (ahead - tap_x) / step_across < columns
                        ) {
                            let column = comptime!((ahead - tap_x) / step_across);
                            sums[column] += value * weights[tap_x];
                        }
                    }
                }
            }
        }
    }
    #[unroll]
    for column in 0..columns {
        let x = first + column;
        if x < across {
            let mut sum = sums[column];
            if comptime!(fused) {
                sum += f32::cast_from(bias[channel]);
                sum = f32::clamp(sum, low, high);
                if comptime!(silu) {
                    sum /= f32::new(1.0) + f32::exp(-sum);
                }
            }
            let at = image * output.stride(0) + row * output.stride(1) + x * output.stride(2) + channel;
            output[at] = F::cast_from(sum);
        }
    }
}

/// One unit: the gradient of one input value, gathered from the outputs that read it.
#[allow(clippy::manual_is_multiple_of, reason = "kernels have no such function")]
#[cube(launch)]
pub fn depthwise_input_gradient<F: Float>(
    grad: &Tensor<F>,
    weight: &Tensor<F>,
    output: &mut Tensor<F>,
    #[comptime] plane: Plane,
    #[define(F)] _dtype: ElemType,
) {
    let [top, left, _, _] = comptime!(plane.padding);
    let [taps_down, taps_across] = comptime!(plane.kernel);
    let [step_down, step_across] = comptime!(plane.stride);

    let channels = output.shape(3);
    let channel = ABSOLUTE_POS % channels;
    let rest = ABSOLUTE_POS / channels;
    let x = rest % output.shape(2);
    let y = rest / output.shape(2) % output.shape(1);
    let image = rest / output.shape(2) / output.shape(1);
    if image >= output.shape(0) {
        terminate!();
    }

    let mut sum = f32::new(0.0);
    #[unroll]
    for tap_y in 0..taps_down {
        let place = y + top;
        if place >= tap_y && (place - tap_y) % step_down == 0 && (place - tap_y) / step_down < grad.shape(1) {
            let line = image * grad.stride(0) + (place - tap_y) / step_down * grad.stride(1) + channel;
            #[unroll]
            for tap_x in 0..taps_across {
                let place = x + left;
                if place >= tap_x && (place - tap_x) % step_across == 0 && (place - tap_x) / step_across < grad.shape(2)
                {
                    let value = f32::cast_from(grad[line + (place - tap_x) / step_across * grad.stride(2)]);
                    let at = channel * weight.stride(0) + tap_y * weight.stride(2) + tap_x * weight.stride(3);
                    sum += value * f32::cast_from(weight[at]);
                }
            }
        }
    }
    let at = image * output.stride(0) + y * output.stride(1) + x * output.stride(2) + channel;
    output[at] = F::cast_from(sum);
}

/// Channels and output rows of a cube of the weight gradient.
const LANES: usize = 32;
const ROWS: usize = 8;

/// One unit: products of a channel over every `parts * ROWS`-th output row, as partial sums `[parts * ROWS, taps, channels]`.
/// A second launch adds them: shared memory would save little, and not every Vulkan driver gets valid code for it.
#[cube(launch)]
pub fn depthwise_weight_products<F: Float>(
    input: &Tensor<F>,
    grad: &Tensor<F>,
    partial: &mut Tensor<f32>,
    #[comptime] plane: Plane,
    #[define(F)] _dtype: ElemType,
) {
    let [top, left, _, _] = comptime!(plane.padding);
    let [taps_down, taps_across] = comptime!(plane.kernel);
    let [step_down, step_across] = comptime!(plane.stride);
    let taps = comptime!(taps_down * taps_across);

    let channels = grad.shape(3);
    let lane = UNIT_POS_X as usize;
    let channel = CUBE_POS_X as usize * LANES + lane;
    let parts = CUBE_COUNT_Y as usize;
    let part = CUBE_POS_Y as usize;
    let rows = grad.shape(0) * grad.shape(1);

    let mut sums = Array::<f32>::new(taps);
    #[unroll]
    for tap in 0..taps {
        sums[tap] = f32::new(0.0);
    }
    if channel < channels {
        let mut row = part * ROWS + UNIT_POS_Y as usize;
        while row < rows {
            let image = row / grad.shape(1);
            let y = row % grad.shape(1);
            let grad_line = image * grad.stride(0) + y * grad.stride(1) + channel;
            for x in 0..grad.shape(2) {
                let value = f32::cast_from(grad[grad_line + x * grad.stride(2)]);
                #[unroll]
                for tap_y in 0..taps_down {
                    let place_y = y * step_down + tap_y;
                    if place_y >= top && place_y < input.shape(1) + top {
                        let line = image * input.stride(0) + (place_y - top) * input.stride(1) + channel;
                        #[unroll]
                        for tap_x in 0..taps_across {
                            let place_x = x * step_across + tap_x;
                            if place_x >= left && place_x < input.shape(2) + left {
                                let other = f32::cast_from(input[line + (place_x - left) * input.stride(2)]);
                                sums[comptime!(tap_y * taps_across + tap_x)] += value * other;
                            }
                        }
                    }
                }
            }
            row += parts * ROWS;
        }
    }

    if channel < channels {
        #[unroll]
        for tap in 0..taps {
            let share = part * ROWS + UNIT_POS_Y as usize;
            partial[(share * taps + tap) * channels + channel] = sums[tap];
        }
    }
}

/// One unit: one weight's gradient, `[channels, 1, kernel height, kernel width]`.
#[cube(launch)]
pub fn depthwise_weight_sum<F: Float>(
    partial: &Tensor<f32>,
    output: &mut Tensor<F>,
    #[comptime] taps: usize,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= output.shape(0) * taps {
        terminate!();
    }
    let channels = output.shape(0);
    let channel = ABSOLUTE_POS % channels;
    let tap = ABSOLUTE_POS / channels;
    let mut sum = f32::new(0.0);
    for part in 0..partial.shape(0) {
        sum += partial[(part * taps + tap) * channels + channel];
    }
    output[channel * taps + tap] = F::cast_from(sum);
}

/// Tensors whose channels lie side by side are taken as they are, pitched or not.
fn channels_inside(tensor: CubeTensor) -> CubeTensor {
    if tensor.meta.strides()[3] == 1 { tensor } else { into_contiguous(tensor) }
}

fn empty_like(model: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(model.client.clone(), model.device.clone(), shape, model.dtype)
}

fn forward(input: CubeTensor, weight: CubeTensor, bias: Option<CubeTensor>, plane: Plane, act: Act) -> CubeTensor {
    let input = channels_inside(input);
    let [n, height, width, channels] = input.shape().dims();
    let [down, across] = plane.must_output([height, width]);
    let output = empty_like(&input, Shape::from(vec![n, down, across, channels]));
    let client = input.client.clone();
    let units = n * down * across.div_ceil(COLUMNS) * channels;
    let cube_dim = CubeDim::new(&client, units);
    let cube_count = calculate_cube_count_elemwise(&client, units, cube_dim);
    let fused = bias.is_some();
    let [low, high] = act.bounds().map(|bound| bound.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32);
    let dtype = dtype_to_storage_type(input.dtype);
    depthwise_forward::launch(
        &client,
        cube_count,
        cube_dim,
        input.into_tensor_arg(),
        weight.clone().into_tensor_arg(),
        // Without a bias the kernel reads none; the argument only has to be some buffer.
        bias.map_or_else(|| weight, into_contiguous).into_tensor_arg(),
        output.clone().into_tensor_arg(),
        low,
        high,
        plane,
        COLUMNS,
        fused,
        act == Act::Silu,
        dtype,
    );
    output
}

impl DepthwiseOps for CubeBackend {
    fn depthwise(input: CubeTensor, weight: CubeTensor, plane: Plane) -> CubeTensor {
        forward(input, weight, None, plane, Act::Linear)
    }

    fn depthwise_fused(input: CubeTensor, weight: CubeTensor, bias: CubeTensor, plane: Plane, act: Act) -> CubeTensor {
        forward(input, weight, Some(bias), plane, act)
    }

    fn depthwise_input_grad(grad: CubeTensor, weight: CubeTensor, plane: Plane, size: [usize; 2]) -> CubeTensor {
        let grad = channels_inside(grad);
        let [n, _, _, channels] = grad.shape().dims();
        let output = empty_like(&grad, Shape::from(vec![n, size[0], size[1], channels]));
        let client = grad.client.clone();
        let units = output.shape().num_elements();
        let cube_dim = CubeDim::new(&client, units);
        let cube_count = calculate_cube_count_elemwise(&client, units, cube_dim);
        let dtype = dtype_to_storage_type(grad.dtype);
        depthwise_input_gradient::launch(
            &client,
            cube_count,
            cube_dim,
            grad.into_tensor_arg(),
            weight.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            plane,
            dtype,
        );
        output
    }

    fn depthwise_weight_grad(input: CubeTensor, grad: CubeTensor, plane: Plane) -> CubeTensor {
        let (input, grad) = (channels_inside(input), channels_inside(grad));
        let [n, down, _, channels] = grad.shape().dims();
        let [taps_down, taps_across] = plane.kernel;
        let taps = taps_down * taps_across;
        let client = grad.client.clone();
        // Enough parts to fill a large GPU, few enough that adding them up costs nothing.
        let parts = (n * down).div_ceil(ROWS * 4).clamp(1, 64);
        let partial = empty_device_contiguous_dtype(
            client.clone(),
            grad.device.clone(),
            Shape::from(vec![parts * ROWS, taps, channels]),
            burn::tensor::DType::F32,
        );
        let dtype = dtype_to_storage_type(grad.dtype);
        let output = empty_like(&grad, Shape::from(vec![channels, 1, taps_down, taps_across]));
        depthwise_weight_products::launch(
            &client,
            CubeCount::Static(channels.div_ceil(LANES) as u32, parts as u32, 1),
            CubeDim::new_2d(LANES as u32, ROWS as u32),
            input.into_tensor_arg(),
            grad.into_tensor_arg(),
            partial.clone().into_tensor_arg(),
            plane,
            dtype,
        );
        let cube_dim = CubeDim::new(&client, channels * taps);
        let cube_count = calculate_cube_count_elemwise(&client, channels * taps, cube_dim);
        depthwise_weight_sum::launch(
            &client,
            cube_count,
            cube_dim,
            partial.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            taps,
            dtype,
        );
        output
    }
}
