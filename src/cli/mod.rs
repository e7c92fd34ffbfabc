//! The command line: what can be asked for, and who answers. Does no work itself.

mod check;
mod demo;
mod eval;
mod explain;
mod inspect;
mod models;
mod phantom;
mod progress;
mod run;
mod score;
mod site;
mod split;
mod train;
mod warmup;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::fs::Mode;
use rustix::process::umask;

use crate::error::Fatal;

/// Watches a folder for head-CT DICOM files and writes the probability of hemorrhage for every slice.
///
/// Research use only. Not a medical device.
#[derive(Debug, Parser)]
#[command(name = "ichd", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Try it:\n  ichd demo                       synthetic heads through the whole daemon, with a picture\n  ichd score FOLDER --out OUT     score files once\n  ichd check                      is my daemon.yaml right?\n  ichd run                        the daemon\n\nExit codes: 0 fine, 64 wrong use, 69 device lost, 70 a bug, 74 disk, 75 a step took too long, 78 configuration or model."
)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Settings; without it ./daemon.yaml if there is one, else the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// auto, cpu or cuda:N; overrides the settings.
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
    /// More words; twice for all of them.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Answer in JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: watches the inbox until it is stopped.
    #[command(
        after_help = "Example: ichd run --config /etc/ichd/daemon.yaml\nStop it with SIGTERM or Ctrl-C: it finishes what it has taken."
    )]
    Run(run::Args),
    /// Synthetic heads through the whole daemon, then a table and a picture.
    #[command(after_help = "Example: ichd demo --studies 3 --out demo")]
    Demo(demo::Args),
    /// Scores files once, without watching: every path gets a line.
    #[command(after_help = "Example: ichd score /data/head-ct --out scores")]
    Score(score::Args),
    /// What the daemon sees in one file, its verdict, and a picture of the windows.
    #[command(after_help = "Example: ichd inspect slice.dcm --png slice.png")]
    Inspect(inspect::Args),
    /// Writes synthetic labelled head-CT studies as DICOM files.
    #[command(
        after_help = "Example: ichd phantom --out heads --studies 20 --seed 7\nLabels are in heads/labels.csv, in RSNA's format."
    )]
    Phantom(phantom::Args),
    /// Trains a backbone on a labelled folder; the model that comes out is served as it is.
    #[command(
        after_help = "Example: ichd train --data rsna/stage_2_train --labels rsna/stage_2_train.csv --backbone efficientnet_b3\nCtrl-C stops with a checkpoint; the same command with --resume goes on. Settings: section `train` of daemon.yaml."
    )]
    Train(train::Args),
    /// Scores a labelled folder and measures the answers.
    #[command(after_help = "Example: ichd eval --data heads --labels heads/labels.csv --model mobilenet_v2 --out eval")]
    Eval(eval::Args),
    /// Several models on the same labelled slices, in one table.
    #[command(after_help = "Example: ichd compare --data heads --labels heads/labels.csv resnet50 mobilenet_v2/2")]
    Compare(eval::CompareArgs),
    /// Splits labelled slices by patient, with every label as frequent in each part, and writes who is where.
    #[command(
        after_help = "Examples: ichd split --labels labels.csv --groups patients.csv --fraction 0.1 --names subset,rest --out subset.csv\n          ichd split --labels heads/labels.csv --data heads --folds 5 --out folds.csv\nIterative multi-label stratification (Sechidis, Tsoumakas, Vlahavas 2011) over patients, weighted by slices."
    )]
    Split(split::Args),
    /// Checks settings, folders, models, routes and device, and reports every problem at once.
    #[command(
        after_help = "Examples: ichd check --config daemon.yaml\n          ichd check --explain slice.dcm\n          ichd check --explain short-pixels"
    )]
    Check(check::Args),
    /// Gets a device ready for the daemon: loads every model of the settings and runs the batches that the daemon will run, so
    /// that kernels are compiled and chosen now. They are kept in the folder cache.path.
    #[command(
        after_help = "Example: ichd warmup --config /etc/ichd/daemon.yaml --device cuda:0\nRun it after an installation, or after a new driver; the daemon's next start is then a matter of seconds."
    )]
    Warmup(warmup::Args),
    /// Models and backbones.
    #[command(subcommand)]
    Models(models::Action),
    /// Completions for a shell, to standard output.
    #[command(after_help = "Example: ichd completions bash > /etc/bash_completion.d/ichd")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Does what the command line says.
///
/// # Errors
/// Whatever ends the command, with the exit code that it asks for.
pub fn execute(cli: Cli) -> Result<(), Fatal> {
    let Cli { common, command } = cli;
    keep_from_others();
    match command {
        Command::Run(args) => run::run(&common, &args),
        Command::Demo(args) => demo::demo(&common, &args),
        Command::Score(args) => score::score(&common, &args),
        Command::Inspect(args) => inspect::inspect(&common, &args),
        Command::Phantom(args) => phantom::phantom(&common, &args),
        Command::Train(args) => train::train(&common, &args),
        Command::Eval(args) => eval::eval(&common, &args),
        Command::Compare(args) => eval::compare(&common, &args),
        Command::Split(args) => split::split(&common, &args),
        Command::Check(args) => check::check(&common, &args),
        Command::Warmup(args) => warmup::warm_up(&common, &args),
        Command::Models(action) => models::models(&common, &action),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ichd", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Takes the rights of strangers from every file that is made from here on: what ichd reads and writes is about patients.
/// Owner and group keep what the caller's mask leaves them.
fn keep_from_others() {
    let mask = umask(Mode::RWXO);
    umask(mask | Mode::RWXO);
}

/// Prints a line to standard output. A reader that left, such as `head`, is no error.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
