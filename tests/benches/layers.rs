//! Time and multiplications a second of single convolutions on the CPU, as scoring runs them. Run with
//! `cargo bench --workspace --bench layers -- [bf16] IMAGES SIDE INPUTS OUTPUTS KERNEL STRIDE ...`; 0 outputs: depthwise;
//! bf16: products in bfloat16.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use ichd_kernels::{Act, After, Plane, Products, Way, among_threads, conv2d_packed, depthwise_conv2d, pack};

fn filled(len: usize) -> Vec<f32> {
    (0..len).map(|at| ((at * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let products = if std::env::args().any(|arg| arg == "bf16") { Products::Half } else { Products::Whole };
    let device = Device::flex();
    for layer in numbers.as_chunks::<6>().0 {
        let [n, side, inputs, outputs, kernel, stride] = *layer;
        let plane = Plane::square(kernel, stride);
        let x =
            Tensor::<4>::from_data(TensorData::new(filled(n * side * side * inputs), [n, side, side, inputs]), &device);
        let is_depthwise = outputs == 0;
        let (rows, columns) = if is_depthwise { (inputs, 1) } else { (outputs, inputs) };
        let shape = [rows, columns, kernel, kernel];
        let weight = Tensor::<4>::from_data(TensorData::new(filled(shape.iter().product()), shape), &device);
        let bias = Tensor::<1>::from_data(TensorData::new(filled(rows), [rows]), &device);
        let after = || After { bias: Some(bias.clone()), addend: None, act: Act::Relu6 };
        let packed = (!is_depthwise).then(|| pack(weight.clone(), [stride; 2], products));
        let work = || match &packed {
            Some(packed) => conv2d_packed(x.clone(), Way::AsItIs, packed.clone(), outputs, plane, after()),
            None => depthwise_conv2d(x.clone(), weight.clone(), plane, after()),
        };
        let mut best = f64::INFINITY;
        let begun = Instant::now();
        let mut rounds = 0;
        among_threads(|| {
            while rounds < 5 || begun.elapsed().as_secs_f64() < 0.4 {
                let at = Instant::now();
                black_box(work());
                best = best.min(at.elapsed().as_secs_f64());
                rounds += 1;
            }
        });
        let size = [side.div_ceil(stride); 2];
        let products = n * size[0] * size[1] * rows * columns * kernel * kernel;
        println!(
            "{n} x {side}^2 x {inputs:4} -> {outputs:4}, {kernel} x {kernel} / {stride}: {:8.3} ms, {:6.1} G multiply-adds/s",
            best * 1e3,
            products as f64 / best / 1e9
        );
    }
}
