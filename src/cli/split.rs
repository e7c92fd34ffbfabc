//! `ichd split`: parts of labelled slices, by patient, as a file.

use std::path::PathBuf;

use serde_json::json;

use super::{Common, progress, say, site};
use crate::disk::RealDisk;
use crate::error::{Exit, Fatal};
use crate::results::by_label;
use crate::trainer::groups;
use crate::trainer::inventory::{Inventory, InventoryOptions};
use crate::trainer::labels::{self, LabelTable};
use crate::trainer::settings::{FOLDS_MAX, SplitMode};
use crate::trainer::split::{Counts, Member, Plan, Split, prevalence_text};
use crate::trainer::split_file::is_part_name;

/// Arguments of `ichd split`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labels: RSNA's long csv (`ID,Label`), or a wide one (`id,any,epidural,...`).
    #[arg(long, value_name = "CSV")]
    labels: PathBuf,
    /// Which patient each image is of: a csv with columns `id` and `group` (or `patient`, `study`).
    #[arg(long, value_name = "CSV", required_unless_present = "data", conflicts_with = "data")]
    groups: Option<PathBuf>,
    /// The DICOM files themselves, instead of --groups: patients are read from them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Share of the slices in the first part.
    #[arg(long, value_name = "0..1", default_value_t = 0.15, conflicts_with = "folds")]
    fraction: f64,
    /// Names of the two parts.
    #[arg(long, value_delimiter = ',', num_args = 1, default_values_t = ["validation".to_owned(), "train".to_owned()], conflicts_with = "folds")]
    names: Vec<String>,
    /// Folds of the same size instead of two parts.
    #[arg(long, value_name = "N")]
    folds: Option<usize>,
    /// The same seed and data give the same split on every machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `patient` keeps patients together; `slice` does not, as the 2019 reports did, and says how many leak.
    #[arg(long, default_value = "patient", value_parser = ["patient", "slice"])]
    mode: String,
    /// File to write: csv with instance, group and part.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn split(common: &Common, args: &Args) -> Result<(), Fatal> {
    let plan = plan(args)?;
    let read = labels::read(&args.labels).map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
    for note in read.notes() {
        tracing::info!("{note}");
    }
    if !read.violations.is_empty() {
        tracing::warn!("{} images contradict themselves under `any`.", read.violations.len());
    }
    let table = read.table;
    let split = match (&args.groups, &args.data) {
        (Some(file), _) => {
            let groups = groups::read(file).map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
            let members: Vec<Member<'_>> = members(&table, &groups);
            let missing = table.len() - members.len();
            if missing > 0 {
                tracing::warn!("{missing} labelled images have no group in {} and are left out.", file.display());
            }
            finish(common, args, plan, &table, &members)
        }
        (None, Some(folder)) => {
            let inventory = inventory(common, folder, &table)?;
            finish(common, args, plan, &table, &inventory.members(&table))
        }
        (None, None) => Err(Fatal::new(Exit::Usage, "--groups or --data must be given")),
    };
    split.map(drop)
}

fn plan(args: &Args) -> Result<Plan, Fatal> {
    let usage = |sentence: String| Fatal::new(Exit::Usage, sentence);
    let mode = SplitMode::from_word(&args.mode).unwrap_or(SplitMode::Patient);
    if let Some(folds) = args.folds {
        if !(2..=FOLDS_MAX).contains(&folds) {
            return Err(usage(format!("--folds: {folds} is not possible; 2 to {FOLDS_MAX} would be right")));
        }
        return Ok(Plan::folds(mode, args.seed, folds));
    }
    if !(args.fraction > 0.0 && args.fraction < 1.0) {
        return Err(usage(format!(
            "--fraction: {} is not possible; a share between 0 and 1 would be right",
            args.fraction
        )));
    }
    match args.names.as_slice() {
        [first, second] if first != second && is_part_name(first) && is_part_name(second) => {
            Ok(Plan::two(mode, args.seed, first, args.fraction, second))
        }
        _ => Err(usage(
            "--names: two names of small letters, digits and dashes would be right, such as subset,rest".into(),
        )),
    }
}

fn members<'t>(table: &'t LabelTable, groups: &groups::GroupTable) -> Vec<Member<'t>> {
    let member = |row| {
        let group = *groups.get(table.id(row))?;
        Some(Member { instance: table.id(row), group, labels: table.labels(row) })
    };
    (0..table.len()).filter_map(member).collect()
}

fn inventory(common: &Common, folder: &std::path::Path, table: &LabelTable) -> Result<Inventory, Fatal> {
    let config = site::settings(common)?;
    let options = InventoryOptions { rules: config.admission, file_bytes_max: config.inbox.file_bytes_max };
    let bar = progress::bar(0, "files");
    let inventory = Inventory::take(folder, table, &options, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let inventory =
        inventory.map_err(|error| Fatal::new(Exit::Usage, format!("--data: {}: {error}", folder.display())))?;
    for line in inventory.problems.lines() {
        tracing::warn!("{}", line.trim_start());
    }
    Ok(inventory)
}

fn finish(
    common: &Common,
    args: &Args,
    plan: Plan,
    table: &LabelTable,
    members: &[Member<'_>],
) -> Result<Split, Fatal> {
    let split =
        Split::make(members, plan, table.digest()).map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?;
    split.write(&RealDisk, &args.out).map_err(|error| Fatal::io(format!("{}: {error}", args.out.display())))?;
    let (patients, leaking) = split.patients();
    let counts = split.counts(members);
    if let Some(warning) = split.warning() {
        tracing::warn!("{warning}");
    }
    if common.json {
        let part = |(part, counts): (&crate::trainer::split::Part, &Counts)| {
            json!({
                "name": part.name, "share": part.share, "slices": counts.slices,
                "prevalence": by_label(&counts.prevalences().map(|share| share as f32)),
            })
        };
        let parts: Vec<_> = split.plan.parts.iter().zip(&counts).map(part).collect();
        say(json!({
            "mode": split.plan.mode.word(), "seed": split.plan.seed, "labels_sha256": split.labels_sha256,
            "patients": patients, "leaking_patients": leaking, "parts": parts, "out": args.out,
        }));
        return Ok(split);
    }
    say(format!("{} slices of {patients} patients in {}; percent of slices:", split.slices.len(), args.out.display()));
    for (part, counts) in split.plan.parts.iter().zip(&counts) {
        say(format!("  {:<12}{:>8} slices: {}", part.name, counts.slices, prevalence_text(counts)));
    }
    if leaking > 0 {
        say(format!("  {leaking} patients have slices in more than one part"));
    }
    Ok(split)
}
