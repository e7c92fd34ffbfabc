//! `ichd demo`: a temporary site, the daemon as `run` starts it, synthetic heads into its inbox, a table and a picture.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ichd_kernels::{Ramp, Window};
use ichd_plugin::label::{Label, N_LABELS};
use serde_json::{Value, json};

use super::inspect::slice_hu;
use super::{Common, progress, run, say, site};
use crate::config::{After, Config};
use crate::dicom::{self, AdmissionRules};
use crate::disk::{Disk, RealDisk};
use crate::error::{Exit, Fatal};
use crate::ledger::SliceRecord;
use crate::model::{PHANTOM_ONLY, UNTRAINED};
use crate::parcel::{Fate, Report};
use crate::phantom::{PhantomOptions, write_dataset};
use crate::picture::{Tile, contact_sheet, label_bars, truth_note, windowed};
use crate::pipeline::{Pipeline, Source};
use crate::results::{NOTICE, millis, study_path};
use crate::roster::Routing;
use crate::telemetry;

/// Arguments of `ichd demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of synthetic studies, of 30 to 40 slices each.
    #[arg(long, default_value_t = 3)]
    studies: usize,
    /// The same seed gives the same heads.
    #[arg(long, default_value_t = 2019)]
    seed: u64,
    /// Folder to make; without it a new one in the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Longer than any demo takes without an outcome; then something is broken.
const PATIENCE: Duration = Duration::from_secs(120);
const TILES: usize = 12;

pub fn demo(common: &Common, args: &Args) -> Result<(), Fatal> {
    let mut config = site::settings(common)?;
    config.log.filter = if common.verbose == 0 { "error".into() } else { config.log.filter };
    telemetry::start(&config.log, common.verbose);
    let base = site_folder(args.out.as_deref())?;
    let mut config = demo_site(config, &base);
    // Who has no model yet sees one that can read these heads.
    if config.model.name == UNTRAINED && config.routes.is_empty() {
        config.model.name = PHANTOM_ONLY.into();
    }
    let say_step = |text: String| {
        if !common.json {
            say(text);
        }
    };

    say_step(format!("1. {} synthetic heads (seed {})", args.studies, args.seed));
    let heads = base.join("heads");
    let total = make_heads(&heads, args)?;

    say_step(format!("2. The daemon starts on {}", base.display()));
    let (site, _lock) = site::open(config.clone())?;
    say_step(format!("   {}", site.device.reason));
    let (routing, device) = (site.roster.routing.clone(), site.device.name.clone());
    let (is_trained, models) = (routing.is_trained(), backbones(&routing));
    let (sender, reports) = bounded(64);
    let pipeline = Pipeline::start(site, Source::Inbox, Some(sender))?;
    run::stop_on_signals(&pipeline.stop(), || {})?;

    say_step(format!("3. {total} slices drop into the inbox"));
    let begun = Instant::now();
    drop_into(&heads, &config.inbox.path)?;
    let slices = wait_for(&reports, total)?;
    let took = begun.elapsed();
    wait_for_studies(&config, &slices);
    pipeline.stop().wish();
    drop(reports);
    let count = pipeline.join()?;

    let labels = read_labels(&base.join("heads").join("labels.csv"))?;
    let picture = base.join("demo.png");
    let heading = format!("ichd {}  {models} on {device}", env!("CARGO_PKG_VERSION"));
    let caution = caution(is_trained, &config.model.name);
    let footer = format!("{}{NOTICE}", caution.map(|caution| format!("{caution} ")).unwrap_or_default());
    let finds = Finds::of(&config, &slices, &labels);
    draw(&config, &slices, &labels, &heading, &footer, &picture)?;
    let rate = count.slices as f64 / took.as_secs_f64();
    let summary = json!({
        "site": base, "slices": count.slices, "studies": args.studies, "seconds": took.as_secs_f64(), "slices_per_second": rate,
        "device": device, "model": config.model.name, "trained": is_trained, "finds": finds.to_json(), "results": config.results.path, "picture": picture,
    });
    if common.json {
        say(summary);
        return Ok(());
    }
    print_table(&config, &slices);
    say(format!(
        "{} slices in {:.1} s: {rate:.1} a second on {device}, settle time included.",
        count.slices,
        millis(took) / 1e3
    ));
    if is_trained {
        say(finds.sentence());
    }
    say(format!("Results:  {}", config.results.path.display()));
    say(format!("Picture:  {}", picture.display()));
    if let Some(caution) = caution {
        say(caution);
    }
    say(NOTICE);
    Ok(())
}

/// What nobody may overlook about the model.
fn caution(is_trained: bool, model: &str) -> Option<&'static str> {
    match (is_trained, model) {
        (false, _) => Some("UNTRAINED weights: numbers mean nothing."),
        (true, PHANTOM_ONLY) => Some("Knows SYNTHETIC heads only: on patients its numbers mean nothing."),
        (true, _) => None,
    }
}

/// What the model found of what was planted, at its operating points, by slices.
#[derive(Debug, Default, PartialEq)]
struct Finds {
    bleeding: usize,
    found: usize,
    clean: usize,
    false_alarms: usize,
}

impl Finds {
    fn of(config: &Config, slices: &[SliceRecord], labels: &std::collections::HashMap<String, Vec<Label>>) -> Finds {
        let mut finds = Finds::default();
        for slice in slices {
            let result = read_json(&config.results.path.join(&slice.result));
            let is_called = result["labels"].as_array().is_some_and(|found| found.contains(&json!(Label::Any.name())));
            if labels.get(&slice.instance).is_some_and(|labels| labels.contains(&Label::Any)) {
                finds.bleeding += 1;
                finds.found += usize::from(is_called);
            } else {
                finds.clean += 1;
                finds.false_alarms += usize::from(is_called);
            }
        }
        finds
    }

    fn to_json(&self) -> Value {
        json!({
            "bleeding": self.bleeding, "found": self.found, "clean": self.clean, "false_alarms": self.false_alarms,
        })
    }

    fn sentence(&self) -> String {
        let Finds { bleeding, found, clean, false_alarms } = self;
        format!(
            "Of {bleeding} slices with blood {found} were found; {false_alarms} of {clean} without were called bleeding."
        )
    }
}

/// The backbones of all models, each once.
fn backbones(routing: &Routing) -> String {
    let mut names: Vec<&str> = Vec::new();
    for member in routing.routes.iter().flat_map(|route| route.ensemble.members()) {
        if !names.contains(&member.card.backbone) {
            names.push(member.card.backbone);
        }
    }
    names.join(", ")
}

fn site_folder(out: Option<&Path>) -> Result<PathBuf, Fatal> {
    match out {
        Some(path) if path.exists() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) => {
            Err(Fatal::new(Exit::Usage, format!("{} is not empty; give a new folder with --out", path.display())))
        }
        Some(path) => Ok(path.to_owned()),
        None => {
            let folder = tempfile::Builder::new().prefix("ichd-demo-").tempdir().map_err(Fatal::io)?;
            // The user wants to look at it afterwards.
            Ok(folder.keep())
        }
    }
}

/// The user's settings on a site of its own, with short waits.
fn demo_site(mut config: Config, base: &Path) -> Config {
    config.inbox.path = base.join("inbox");
    config.inbox.done_path = base.join("done");
    config.inbox.rejected_path = base.join("rejected");
    config.inbox.after = After::Move;
    config.inbox.settle_ms = 200;
    config.inbox.scan_secs = 2;
    config.results.path = base.join("results");
    config.results.study_quiet_secs = 1;
    config.ledger.path = base.join("ledger.sqlite");
    config
}

fn make_heads(heads: &Path, args: &Args) -> Result<usize, Fatal> {
    let options =
        PhantomOptions { studies: args.studies, seed: args.seed, bleed_share: 0.8, ..PhantomOptions::default() };
    let bar = progress::bar(0, "slices made");
    let summary = write_dataset(heads, &options, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(summary.map_err(|error| Fatal::new(Exit::Usage, error.to_string()))?.slices)
}

/// Hard links appear in the inbox at once and complete, as a receiver's rename would make them.
fn drop_into(heads: &Path, inbox: &Path) -> Result<(), Fatal> {
    for file in crate::watch::list_files(heads).map_err(Fatal::io)? {
        if file.extension().is_some_and(|extension| extension == "dcm")
            && let Some(name) = file.file_name()
        {
            let hidden = inbox.join(format!(".{}", name.to_string_lossy()));
            fs::copy(&file, &hidden).and_then(|_| fs::rename(&hidden, inbox.join(name))).map_err(Fatal::io)?;
        }
    }
    Ok(())
}

fn wait_for(reports: &Receiver<Report>, total: usize) -> Result<Vec<SliceRecord>, Fatal> {
    let bar = progress::bar(total as u64, "slices scored");
    let mut slices = Vec::new();
    for _ in 0..total {
        match reports.recv_timeout(PATIENCE) {
            Ok(Report { fate: Fate::Done(done) | Fate::Duplicate(done), .. }) => slices.extend(done),
            Ok(Report { path, fate }) => {
                return Err(Fatal::new(Exit::Bug, format!("{} has no result: {fate:?}", path.display())));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(Fatal::new(
                    Exit::Bug,
                    format!("{} of {total} slices came out, then none for {PATIENCE:?}", slices.len()),
                ));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(slices)
}

/// Summaries follow their studies after a quiet second.
fn wait_for_studies(config: &Config, slices: &[SliceRecord]) {
    let begun = Instant::now();
    let mut expected: std::collections::HashMap<&str, u64> = std::collections::HashMap::new();
    for slice in slices {
        *expected.entry(&slice.study).or_default() += 1;
    }
    let is_whole = |(study, n_slices): (&&str, &u64)| read_study(config, study)["n_slices"].as_u64() == Some(*n_slices);
    while !expected.iter().all(is_whole) && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The summary of a study; null while there is none.
fn read_study(config: &Config, study: &str) -> Value {
    read_json(&config.results.path.join(study_path(study)))
}

fn read_json(path: &Path) -> Value {
    let bytes = fs::read(path).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Positive subtypes of each image in an RSNA label table.
fn read_labels(path: &Path) -> Result<std::collections::HashMap<String, Vec<Label>>, Fatal> {
    let text = fs::read_to_string(path).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))?;
    let mut labels: std::collections::HashMap<String, Vec<Label>> = std::collections::HashMap::new();
    for row in text.lines().skip(1) {
        let Some((id, "1")) = row.split_once(',') else { continue };
        if let Some((image, name)) = id.rsplit_once('_')
            && let Some(label) = Label::from_name(name)
        {
            labels.entry(image.to_owned()).or_default().push(label);
        }
    }
    Ok(labels)
}

fn print_table(config: &Config, slices: &[SliceRecord]) {
    let mut studies: Vec<&str> = slices.iter().map(|slice| slice.study.as_str()).collect();
    studies.sort_unstable();
    studies.dedup();
    let names: String = Label::ALL.iter().map(|label| format!("{:>17}", label.name())).collect();
    say(format!("\nHighest smoothed probability per study\n{:<14}{:>7}{names}", "study", "slices"));
    for study in studies {
        let summary = read_study(config, study);
        let cell = |label: &Label| {
            let value = summary["maximum"][label.name()]["smoothed"]["probability"].as_f64();
            value.map_or(format!("{:>17}", "-"), |value| format!("{value:>17.3}"))
        };
        let tail = &study[study.len().saturating_sub(10)..];
        say(format!("..{tail:<12}{:>7}{}", summary["n_slices"], Label::ALL.iter().map(cell).collect::<String>()));
    }
    say("");
}

/// A sheet of slices: those with blood first, then some from base to vertex.
fn draw(
    config: &Config,
    slices: &[SliceRecord],
    labels: &std::collections::HashMap<String, Vec<Label>>,
    heading: &str,
    footer: &str,
    path: &Path,
) -> Result<(), Fatal> {
    let mut chosen = choose(slices, labels);
    chosen.truncate(TILES);
    let tiles: Result<Vec<Tile>, Fatal> = chosen.iter().map(|slice| tile(config, slice, labels)).collect();
    let png = contact_sheet(heading, &tiles?, 4, footer).png().map_err(Fatal::io)?;
    RealDisk.write_whole(path, &png).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))
}

/// Takes turns between the subtypes and slices without blood, so that a sheet shows some of each.
fn choose<'a>(
    slices: &'a [SliceRecord],
    labels: &std::collections::HashMap<String, Vec<Label>>,
) -> Vec<&'a SliceRecord> {
    let mut groups: Vec<Vec<&SliceRecord>> = vec![Vec::new(); N_LABELS];
    let mut sorted: Vec<&SliceRecord> = slices.iter().collect();
    sorted.sort_by(|a, b| a.instance.cmp(&b.instance));
    for slice in sorted {
        let found = labels.get(&slice.instance).and_then(|labels| labels.iter().find(|label| **label != Label::Any));
        groups[found.map_or(0, |label| *label as usize)].push(slice);
    }
    let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|turn| groups.iter().filter_map(move |group| group.get(turn).copied()).collect::<Vec<_>>())
        .collect()
}

fn tile(
    config: &Config,
    slice: &SliceRecord,
    labels: &std::collections::HashMap<String, Vec<Label>>,
) -> Result<Tile, Fatal> {
    let file = config.inbox.done_path.join(format!("{}.dcm", slice.instance));
    let (_, bytes) =
        RealDisk.read(&file, u64::MAX).map_err(|error| Fatal::io(format!("{}: {error}", file.display())))?;
    let decoded =
        dicom::decode(&bytes, &AdmissionRules::default()).map_err(|error| Fatal::new(Exit::Bug, error.to_string()))?;
    let Some(picture) = decoded.first() else { return Err(Fatal::new(Exit::Bug, "a phantom without slices")) };
    let window = Window { level: 40.0, width: 80.0 };
    let image = windowed(&slice_hu(picture), picture.rows, picture.columns, window, Ramp::LinearExact);
    let z = picture.geometry.position.map_or(0.0, |position| position[2]);
    let known = labels.get(&slice.instance);
    let truth = Label::ALL.map(|label| known.is_some_and(|known| known.contains(&label)));
    let result = read_json(&config.results.path.join(&slice.result));
    let probabilities =
        Label::ALL.map(|label| result["probabilities"][label.name()].as_f64().unwrap_or(f64::NAN) as f32);
    Ok(Tile {
        image,
        title: format!("z {z:.0} mm  L 40 W 80"),
        bars: label_bars(probabilities),
        note: truth_note(&truth),
    })
}
