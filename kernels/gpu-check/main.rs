//! gpu-check: is ichd right and fast on this machine's GPU? One program to carry to a machine that has a driver and a CUDA
//! toolkit (NVRTC and headers) and nothing else.
//!
//! Three parts: `kernels` compares every kernel with its CPU form and times it against the device's copy bandwidth; `networks`
//! compares every backbone's logits with the CPU's and times scoring, from stored pixels to logits and alone; `training`
//! compares gradients and times steps as `train` makes them. All lines are printed as they are found, and with `--json FILE`
//! the file is complete after each of them, so that a run that is cut off has told what it knew. `tools/peer_gpu.py` times
//! PyTorch in the same cases. With `--device cpu` and small sizes the last two parts can be tried without a GPU.

mod kernels;
mod machine;
mod measure;
mod networks;
mod report;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use burn::tensor::DeviceType;
use clap::{Parser, ValueEnum};
use ichd::device::{Chosen, Want, choose, self_test};
use ichd::engine::EngineError;
use ichd::error::Exit;
use ichd::kernel_cache::keep_nothing;
use ichd::registry;
use ichd_plugin::spec::{BackboneSpec, Precision};

use machine::Machine;
use measure::Budget;
use report::Journal;

/// Compares and times ichd's kernels, networks and training on a GPU.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-check",
    version,
    max_term_width = 100,
    after_help = "Example: gpu-check --only networks --backbones resnet50,xception --json ichd.json --limit 500\nTry it:  gpu-check --device cpu --only networks,training --backbones mobilenet_v2 --side 64 --batches 2 --train-batch 2 --seconds 0\n\nExit codes: 0 all right, 1 something is wrong or was not done, 64 wrong use, 69 device lost, 74 disk."
)]
struct Args {
    /// cuda:N; cpu to try networks and training out.
    #[arg(long, default_value = "cuda:0", value_parser = Want::parse)]
    device: Want,
    /// Parts to do.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["kernels", "networks", "training"])]
    only: Vec<Part>,
    /// Backbones of networks and training; all of them without it.
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = backbone)]
    backbones: Vec<&'static BackboneSpec>,
    /// Types of number that networks score in, in this order.
    #[arg(long, value_delimiter = ',', default_values = ["f32", "bf16", "f16"], value_parser = precision)]
    precisions: Vec<Precision>,
    /// Types of number that training multiplies in, in this order.
    #[arg(long, value_delimiter = ',', default_values = ["bf16", "f32"], value_parser = train_precision)]
    train_precisions: Vec<Precision>,
    /// Slices of the batches that networks score, in this order.
    #[arg(long, value_delimiter = ',', default_values = ["32", "1", "256"], value_parser = above_zero)]
    batches: Vec<usize>,
    /// Slices of a batch in training.
    #[arg(long, default_value = "32", value_parser = above_zero)]
    train_batch: usize,
    /// Slices of a windowing batch that is held to the bar.
    #[arg(long, default_value = "256", value_parser = above_zero)]
    window_batch: usize,
    /// Side of the networks' input; without it their own, and in training 224 and their own.
    #[arg(long, value_parser = above_zero)]
    side: Option<usize>,
    /// GPUs that share batches in training, beside one alone; without it all that there are.
    #[arg(long, value_parser = above_zero)]
    devices: Option<usize>,
    /// Seconds that each measurement lasts, after its warm-up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Begins nothing new after so many seconds.
    #[arg(long)]
    limit: Option<f64>,
    /// Adds what is found to this file of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Commit of the sources, where the build was not told (environment variable ICHD_COMMIT).
    #[arg(long)]
    commit: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Kernels,
    Networks,
    Training,
}

fn backbone(name: &str) -> Result<&'static BackboneSpec, String> {
    registry::find(name).ok_or_else(|| {
        let names: Vec<&str> = registry::BACKBONES.iter().map(|spec| spec.name).collect();
        format!("there is no backbone of that name; there are {}", names.join(", "))
    })
}

fn precision(name: &str) -> Result<Precision, String> {
    Precision::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| "f32, bf16 or f16".to_owned())
}

/// f16's range is too short for gradients; the trainer refuses it too.
fn train_precision(name: &str) -> Result<Precision, String> {
    precision(name).ok().filter(|precision| *precision != Precision::F16).ok_or_else(|| "bf16 or f32".to_owned())
}

fn above_zero(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number above 0".to_owned())
}

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// The device cannot be used, or not any more.
    #[error("{0}")]
    Device(String),
    /// What was found could not be written.
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: std::io::Error },
    /// The file of JSON holds something else.
    #[error("{path} is no file of gpu-check: {reason}")]
    File { path: PathBuf, reason: String },
}

impl Stop {
    fn exit(&self) -> u8 {
        match self {
            Stop::Device(_) => Exit::Device as u8,
            Stop::Disk { .. } => Exit::Io as u8,
            Stop::File { .. } => Exit::Usage as u8,
        }
    }
}

/// What the parts are done with.
struct Bench<'b> {
    chosen: &'b Chosen,
    args: &'b Args,
    budget: Budget,
}

impl Bench<'_> {
    fn backbones(&self) -> Vec<&'static BackboneSpec> {
        if self.args.backbones.is_empty() { registry::BACKBONES.to_vec() } else { self.args.backbones.clone() }
    }

    /// Records a failure. Whether the device is lost, or only could not do this, its self-test tells.
    fn excuse(&self, journal: &mut Journal, what: &str, error: &EngineError) -> Result<(), Stop> {
        journal.not_done(what, error.to_string())?;
        match error {
            EngineError::Device(cause) => self_test(&self.chosen.device)
                .map_err(|reason| Stop::Device(format!("{what}: {cause}; now its self-test fails too ({reason})"))),
            _ => Ok(()),
        }
    }
}

fn run(args: &Args, journal: &mut Journal) -> Result<(), Stop> {
    keep_nothing();
    let chosen = choose(args.device).map_err(Stop::Device)?;
    let machine = if chosen.is_cpu() { Machine::without_gpu() } else { Machine::with_gpu(&chosen)? };
    journal.begin(&chosen.name, machine)?;
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
    let budget = Budget::new(seconds(args.seconds), args.limit.map(seconds));
    let bench = Bench { chosen: &chosen, args, budget };
    for part in &args.only {
        match part {
            Part::Kernels if chosen.is_cpu() => journal.not_done("kernels", "they are compared with the CPU's")?,
            Part::Kernels => kernels::run(&bench, journal)?,
            Part::Networks => networks::run(&bench, journal)?,
            Part::Training => training::run(&bench, journal)?,
        }
    }
    Ok(())
}

/// GPUs of this machine.
fn gpus() -> usize {
    burn::tensor::Device::enumerate(DeviceType::Cuda).len()
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; wrong use is 64, whatever the parser thinks.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    // Set by whoever builds: there is no build script, so the program cannot ask git.
    let commit = args.commit.as_deref().or(option_env!("ICHD_COMMIT")).unwrap_or("unknown");
    let done = Journal::open(args.json.as_deref(), commit).and_then(|mut journal| {
        let done = run(&args, &mut journal);
        journal.end();
        done.map(|()| journal.is_right())
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(stop) => {
            eprintln!("gpu-check: {stop}");
            ExitCode::from(stop.exit())
        }
    }
}
