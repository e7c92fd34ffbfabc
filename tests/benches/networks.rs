//! Images a second of a backbone on the CPU: scoring and training steps. Run with
//! `cargo bench --workspace --bench networks`, against PyTorch with `tools/peer_networks.py`, which passes
//! `BACKBONE forward|forward-bf16|step BATCH ROUNDS`.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use ichd::registry;
use ichd_plugin::fill;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::{BackboneSpec, Precision, Variant};

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

fn measure(spec: &BackboneSpec, what: &str, n: usize, rounds: usize) {
    let device = Device::flex();
    let weights = fill::weights(&(spec.shapes)(3), &fill::golden);
    eprint!("{} {what}, batch {n}: ", spec.name);
    if what == "step" {
        // As in the report and its peers: 224 pixels for all.
        let images = images(n, 224);
        let mut network = (spec.train)(&device, Variant::default());
        network.load(&weights).expect("weights of the backbone's own shapes");
        let targets = Tensor::<2>::from_data(TensorData::new(vec![0.0f32; n * N_LABELS], [n, N_LABELS]), &device);
        rates(rounds, n, || {
            black_box(network.step(images.clone(), targets.clone(), 1e-4));
        });
    } else {
        let images = images(n, spec.input_side);
        let precision = if what == "forward-bf16" { Precision::Bf16 } else { Precision::F32 };
        let mut network = (spec.infer)(&device, Variant::default(), precision);
        network.load(&weights).expect("weights of the backbone's own shapes");
        rates(rounds, n, || {
            black_box(network.forward(images.clone()).into_data());
        });
    }
}

fn main() -> ExitCode {
    // Cargo passes --bench; everything else is ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.as_slice() {
        [name, what, n, rounds] => {
            let Some(spec) = registry::find(name) else {
                eprintln!("there is no backbone {name}");
                return ExitCode::FAILURE;
            };
            let number = |text: &String| text.parse().unwrap_or(1usize);
            measure(spec, what, number(n), number(rounds).max(1));
        }
        _ => {
            for spec in registry::BACKBONES {
                measure(spec, "forward", 1, 9);
                measure(spec, "forward", 32, 3);
            }
            for name in ["mobilenet_v2", "resnet50", "efficientnet_b0"] {
                if let Some(spec) = registry::find(name) {
                    measure(spec, "step", 32, 3);
                }
            }
        }
    }
    ExitCode::SUCCESS
}
