//! `ichd eval` and `ichd compare`: models on a labelled folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ichd_plugin::label::{Label, N_LABELS};
use ichd_plugin::spec::Precision;
use serde_json::json;

use super::train::{Screen, data_fatal, open, train_fatal};
use super::{Common, run, say, site};
use crate::device::Chosen;
use crate::disk::{Disk, RealDisk, make_folders};
use crate::error::{Exit, Fatal};
use crate::measure::Predictions;
use crate::measure::metrics::{self, Bootstrap, HALF, Metrics};
use crate::measure::report::{By, Evaluation, ModelRow, Page, comparison_table, confusion_table, label_table};
use crate::model::{self, Model};
use crate::names::csv_cell;
use crate::stage::Stop;
use crate::telemetry;
use crate::trainer::batches::Feed;
use crate::trainer::dataset::{DataFolder, Dataset};
use crate::trainer::outcome::parameters;
use crate::trainer::training::{score, warm_up};
use crate::trainer::worst;

/// Where the labelled slices are.
#[derive(Debug, clap::Args)]
pub struct Labelled {
    /// DICOM files, in any folders below.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Labels, as for `ichd train`.
    #[arg(long, value_name = "CSV")]
    labels: PathBuf,
    /// A split file and the part of it to look at, such as `runs/m/split.csv:validation`; all slices if not given.
    #[arg(long, value_name = "FILE:PART")]
    part: Option<String>,
    /// Folder for tables and curves.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Arguments of `ichd eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    labelled: Labelled,
    /// The model; that of the settings if not given.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Writes probabilities in the contest's format: `ID,Label`.
    #[arg(long, value_name = "CSV")]
    contest: Option<PathBuf>,
}

/// Arguments of `ichd compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    #[command(flatten)]
    labelled: Labelled,
    /// Models: names, or name/version.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Column to sort by.
    #[arg(long, default_value = "weighted_log_loss", value_parser = column)]
    by: By,
}

fn column(text: &str) -> Result<By, String> {
    By::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = By::ALL.iter().map(|by| by.name()).collect();
        format!("{} would be right", names.join(", "))
    })
}

/// Slices of one data set, and the device.
struct Bench {
    dataset: Dataset,
    slices: Vec<usize>,
    device: Chosen,
    batch: usize,
    /// Slices that were held against their digests, which the first model does for all.
    /// Threads that read ahead.
    threads: usize,
    stop: Stop,
}

/// What a model gave.
struct Found {
    probabilities: Vec<[f64; N_LABELS]>,
    predictions: Predictions,
    metrics: Metrics,
    slices_per_second: f64,
}

impl Bench {
    fn open(common: &Common, labelled: &Labelled) -> Result<(Bench, crate::config::Config), Fatal> {
        let config = site::settings(common)?;
        telemetry::start(&config.log, common.verbose);
        let stop = Stop::new();
        run::stop_on_signals(&stop, || {})?;
        let device = site::device(&config)?;
        let data = DataFolder {
            data: labelled.data.clone(),
            labels: labelled.labels.clone(),
            rules: config.admission.clone(),
            file_bytes_max: config.inbox.file_bytes_max,
        };
        let mut screen = Screen::new(common.json, stop.clone());
        let dataset = open(&data, &config.train, &mut screen)?;
        let slices = match &labelled.part {
            None => dataset.usable(),
            Some(text) => {
                let (file, part) = text
                    .rsplit_once(':')
                    .ok_or_else(|| Fatal::new(Exit::Usage, format!("--part: `{text}` is no FILE:PART")))?;
                dataset.part(Path::new(file), part).map_err(data_fatal)?
            }
        };
        if slices.is_empty() {
            return Err(Fatal::config("no slice is left to look at"));
        }
        let batch = config.train.batch;
        let threads = config.train.loaders();
        Ok((Bench { dataset, slices, device, batch, threads, stop }, config))
    }

    fn score(&self, model: &Model) -> Result<Found, Fatal> {
        let card = &model.card;
        let plan = card.preprocessing.plan().map_err(Fatal::config)?;
        let mut backbone = (model.spec.infer)(&self.device.device, card.variant(), Precision::F32);
        backbone.load(&model.weights).map_err(Fatal::config)?;
        let device = self.device.device.clone();
        let feed = Feed { dataset: &self.dataset, plan: &plan, device, threads: self.threads };
        let is_stopped = || self.stop.is_wished();
        warm_up(&feed, backbone.as_ref(), &self.slices, self.batch, &is_stopped)
            .map_err(|error| train_fatal(&error))?;
        let begun = Instant::now();
        let logits = score(&feed, backbone.as_ref(), &self.slices, self.batch, &is_stopped);
        let logits = logits.map_err(|error| train_fatal(&error))?;
        let seconds = begun.elapsed().as_secs_f64();
        let (targets, groups) = self.dataset.truth(&self.slices);
        let predictions = Predictions::from_logits(&logits, &targets, &groups, card.calibration.as_ref());
        let predictions = predictions.map_err(|error| Fatal::new(Exit::Bug, error.to_string()))?;
        let points = card.operating_points.unwrap_or([HALF; N_LABELS]);
        let metrics = metrics::evaluate(&predictions, &points);
        let probabilities = logits
            .iter()
            .map(|row| {
                let row = card.probabilities(row);
                std::array::from_fn(|label| row.get(label).copied().map_or(f64::NAN, f64::from))
            })
            .collect();
        let slices_per_second = self.slices.len() as f64 / seconds.max(1e-9);
        Ok(Found { probabilities, predictions, metrics, slices_per_second })
    }
}

/// `ichd eval`.
pub fn eval(common: &Common, args: &Args) -> Result<(), Fatal> {
    let (bench, mut config) = Bench::open(common, &args.labelled)?;
    if let Some(name) = &args.model {
        config.model.name.clone_from(name);
    }
    let model = model::load(&config).map_err(Fatal::config)?;
    let found = bench.score(&model)?;
    let title = format!("{}/{}", model.card.name, model.card.version);
    let intervals = metrics::auroc_intervals(&found.predictions, &Bootstrap::default());
    let caption = format!("{title}, {} slices", bench.slices.len());
    let labels = label_table(&caption, &found.metrics, Some(&intervals));
    let confusion = confusion_table(&caption, &found.metrics);
    if let Some(file) = &args.contest {
        write(file, contest(&bench, &found.probabilities).as_bytes())?;
    }
    if let Some(out) = &args.labelled.out {
        make_folders(out).map_err(|error| Fatal::io(format!("{}: {error}", out.display())))?;
        let (predictions, metrics) = (&found.predictions, &found.metrics);
        let evaluation = Evaluation { title: &caption, predictions, metrics, intervals: &intervals };
        for (name, bytes) in evaluation.files("eval").map_err(Fatal::io)? {
            write(&out.join(name), &bytes)?;
        }
        let misses = worst::misses(&bench.slices, predictions);
        let sheet = worst::sheet(&bench.dataset, &title, &misses).map_err(|error| train_fatal(&error))?;
        write(&out.join("worst.png"), &sheet.png().map_err(Fatal::io)?)?;
        write(&out.join("worst.csv"), worst::table(&bench.dataset, &misses).as_bytes())?;
    }
    if common.json {
        say(json!({
            "model": title, "slices": bench.slices.len(), "metrics": found.metrics,
            "slices_per_second": found.slices_per_second,
        }));
    } else {
        say(labels.text());
        say(confusion.text());
        say(format!("{:.1} slices a second", found.slices_per_second));
    }
    Ok(())
}

/// RSNA's long table with probabilities.
fn contest(bench: &Bench, probabilities: &[[f64; N_LABELS]]) -> String {
    let mut text = String::from("ID,Label\n");
    for (at, row) in bench.slices.iter().zip(probabilities) {
        let instance = &bench.dataset.items[*at].instance;
        contest_rows(&mut text, instance, row);
    }
    text
}

fn contest_rows(text: &mut String, instance: &str, row: &[f64; N_LABELS]) {
    for label in Label::SUBTYPES.into_iter().chain([Label::Any]) {
        text.push_str(&format!("{},{}\n", csv_cell(&format!("{instance}_{label}")), row[label as usize]));
    }
}

/// `ichd compare`.
pub fn compare(common: &Common, args: &CompareArgs) -> Result<(), Fatal> {
    let (bench, config) = Bench::open(common, &args.labelled)?;
    let mut rows = Vec::new();
    for name in &args.models {
        let model = model::load_named(&config.model.path, name).map_err(Fatal::config)?;
        let found = bench.score(&model)?;
        let on = format!("{} slices", bench.slices.len());
        let mut row = ModelRow::new(format!("{} ({name})", model.spec.name), on, &found.metrics);
        row.parameters = Some(parameters(model.spec, model.card.preprocessing.windows.len()));
        row.epoch_seconds =
            model::manifest(&config.model.path, name).ok().and_then(|m| m.training["epoch_seconds"].as_f64());
        row.slices_per_second = Some(found.slices_per_second);
        rows.push(row);
    }
    let table = comparison_table("Models on the same slices", &rows, args.by);
    if let Some(out) = &args.labelled.out {
        make_folders(out).map_err(|error| Fatal::io(format!("{}: {error}", out.display())))?;
        write(&out.join("comparison.md"), table.markdown().as_bytes())?;
        write(&out.join("comparison.html"), Page::new("Comparison").table(&table).html().as_bytes())?;
    }
    if common.json {
        say(json!({ "models": rows }))
    } else {
        say(table.text())
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    RealDisk.write_whole(path, bytes).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_no_formulas_and_no_other_rows_in_the_contests_table() {
        let text = |instance: &str| {
            let mut text = String::new();
            contest_rows(&mut text, instance, &[0.5; N_LABELS]);
            text
        };
        assert!(text("ID_1").starts_with("ID_1_epidural,0.5\nID_1_intraparenchymal,0.5\n"), "{}", text("ID_1"));
        assert!(text("ID_1").ends_with("ID_1_any,0.5\n"));
        assert!(text("=1+1").lines().all(|line| line.starts_with("'=1+1_")), "{}", text("=1+1"));
        assert!(text("a,1\nb").starts_with("\"a,1\nb_epidural\",0.5\n"), "{}", text("a,1\nb"));
    }
}
