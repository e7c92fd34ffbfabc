//! `ichd phantom`: synthetic labelled studies.

use std::path::PathBuf;

use ichd_plugin::label::Label;
use serde_json::json;

use super::{Common, progress, say};
use crate::error::{Exit, Fatal};
use crate::phantom::{PhantomError, PhantomOptions, write_dataset};
use crate::results::by_label;

/// Arguments of `ichd phantom`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of studies, of 30 to 40 slices each.
    #[arg(long, default_value_t = 4)]
    studies: usize,
    /// The same seed and options give the same files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of studies with blood.
    #[arg(long, default_value_t = 0.5, value_name = "0..1")]
    bleeds: f64,
    /// Subtypes that may occur, with commas between.
    #[arg(long, value_delimiter = ',', default_values_t = Label::SUBTYPES.map(|label| label.name().to_owned()))]
    subtypes: Vec<String>,
    /// Side of a slice in pixels.
    #[arg(long, default_value_t = 512)]
    side: usize,
    /// Identifiers and elements as in the RSNA 2019 set.
    #[arg(long)]
    rsna: bool,
}

pub fn phantom(common: &Common, args: &Args) -> Result<(), Fatal> {
    let options = PhantomOptions {
        studies: args.studies,
        seed: args.seed,
        bleed_share: args.bleeds,
        subtypes: subtypes(&args.subtypes)?,
        side: args.side,
        rsna_style: args.rsna,
        ..PhantomOptions::default()
    };
    let bar = progress::bar(0, "slices");
    let summary = write_dataset(&args.out, &options, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary.map_err(|error| match error {
        PhantomError::Options(_) => Fatal::new(Exit::Usage, error.to_string()),
        PhantomError::Io { .. } => Fatal::io(error),
        PhantomError::Encode(_) => Fatal::new(Exit::Bug, error.to_string()),
    })?;
    let positive = by_label(&summary.positive.map(|count| count as f32));
    if common.json {
        say(json!({"studies": summary.studies, "slices": summary.slices, "positive": positive}));
        return Ok(());
    }
    say(format!("{} slices of {} studies in {}", summary.slices, summary.studies, args.out.display()));
    for (label, count) in Label::ALL.iter().zip(summary.positive) {
        say(format!(
            "  {:<18}{count:>6} slices, {:>5.1} %",
            label.name(),
            100.0 * count as f64 / summary.slices as f64
        ));
    }
    say(format!("Labels: {}", args.out.join("labels.csv").display()));
    Ok(())
}

fn subtypes(names: &[String]) -> Result<Vec<Label>, Fatal> {
    let find = |name: &String| {
        Label::from_name(name).filter(|label| *label != Label::Any).ok_or_else(|| {
            let known = Label::SUBTYPES.map(Label::name).join(", ");
            Fatal::new(Exit::Usage, format!("--subtypes: `{name}` is no subtype; here stand {known}"))
        })
    };
    names.iter().map(find).collect()
}
