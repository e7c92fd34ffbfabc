//! Images a second of MobileNetV2 on the CPU: scoring and training steps. Run with `cargo bench --workspace --bench mobilenet`,
//! against PyTorch with `tools/peer_networks.py`, which passes `forward|step`, a batch size and a number of rounds.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use ichd_mobilenet::MOBILENET_V2;
use ichd_plugin::fill;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{Convention, Precision};

/// Images `[n, 3, side, side]` that lie channels-last in memory, as windowing leaves them.
fn images(n: usize, side: usize) -> Tensor<4> {
    let values: Vec<f32> =
        (0..n * side * side * 3).map(|at| ((at * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::<4>::from_data(TensorData::new(values, [n, side, side, 3]), &Device::flex()).permute([0, 3, 1, 2])
}

fn rates(rounds: usize, n: usize, mut work: impl FnMut()) {
    work();
    let mut rates: Vec<f64> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            work();
            n as f64 / begun.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{{\"median\": {:.3}, \"best\": {:.3}}}", rates[rounds / 2], rates[rounds - 1]);
}

fn measure(what: &str, n: usize, rounds: usize) {
    let device = Device::flex();
    let weights = fill::weights(&(MOBILENET_V2.shapes)(), &fill::golden);
    let images = images(n, MOBILENET_V2.input_side);
    eprint!("mobilenet_v2 {what}, batch {n}: ");
    if what == "forward" {
        let mut network = (MOBILENET_V2.infer)(&device, Convention::Torch, Precision::F32);
        network.load(&weights).expect("weights of the backbone's own shapes");
        rates(rounds, n, || {
            black_box(network.forward(images.clone()).into_data());
        });
    } else {
        let mut network = (MOBILENET_V2.train)(&device, Convention::Torch);
        network.load(&weights).expect("weights of the backbone's own shapes");
        let targets = Tensor::<2>::from_data(TensorData::new(vec![0.0f32; n * N_LABELS], [n, N_LABELS]), &device);
        rates(rounds, n, || {
            black_box(network.step(images.clone(), targets.clone(), 1e-4));
        });
    }
}

fn main() {
    // Cargo passes --bench; everything else is ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.as_slice() {
        [what, n, rounds] => {
            let number = |text: &String| text.parse().unwrap_or(1usize);
            measure(what, number(n), number(rounds).max(1));
        }
        _ => {
            measure("forward", 1, 30);
            measure("forward", 32, 7);
            measure("step", 32, 5);
        }
    }
}
