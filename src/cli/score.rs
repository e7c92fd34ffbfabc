//! `ichd score`: files once through the same stages, without watching.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::bounded;
use ichd_plugin::label::Label;
use serde_json::json;

use super::{Common, progress, run, say, site};
use crate::config::{After, Config};
use crate::error::{Exit, Fatal};
use crate::ledger::SliceRecord;
use crate::parcel::{Fate, Report};
use crate::pipeline::{Pipeline, Source};
use crate::results::sigmoid;
use crate::{telemetry, watch};

/// Arguments of `ichd score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, or folders with all that lies below them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where results go, with the ledger: scoring again into the same folder repeats nothing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// In the end, prints where the time went.
    #[arg(long)]
    profile: bool,
}

pub fn score(common: &Common, args: &Args) -> Result<(), Fatal> {
    let mut config = site::settings(common)?;
    config.log.filter = if common.verbose == 0 { "error".into() } else { config.log.filter };
    telemetry::start(&config.log, common.verbose);
    let files = list(&args.paths, &args.out)?;
    let config = one_shot(config, &args.out);
    let (site, _lock) = site::open(config)?;
    if !common.json {
        eprintln!("{}", site.device.reason);
    }
    let (is_trained, begun) = (site.roster.routing.is_trained(), Instant::now());
    let bar = progress::bar(files.len() as u64, "files");
    let (sender, reports) = bounded(64);
    let pipeline = Pipeline::start(site, Source::Files { files, roots: args.paths.clone() }, Some(sender))?;
    let profile = pipeline.profile();
    run::stop_on_signals(&pipeline.stop(), || {})?;
    for report in reports {
        let line = if common.json { json_line(&report) } else { text_line(&report) };
        bar.suspend(|| say(line));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let count = pipeline.join()?;
    if args.profile
        && let Some(report) = profile()
    {
        run::say_profile(&report, common.json);
    }
    let secs = begun.elapsed().as_secs_f64();
    if !common.json {
        let rate = count.slices as f64 / secs;
        say(format!(
            "{count}; {} slices scored in {secs:.1} s ({rate:.1} a second). Results: {}",
            count.slices,
            args.out.display()
        ));
        if !is_trained {
            say("An untrained model takes part: its probabilities mean nothing.");
        }
        say(crate::results::NOTICE);
    }
    Ok(())
}

/// The settings with every path inside the output folder, and inputs left alone.
pub fn one_shot(mut config: Config, out: &Path) -> Config {
    config.inbox.after = After::Keep;
    config.inbox.path = out.join(".inbox");
    config.inbox.done_path = out.join(".done");
    config.inbox.rejected_path = out.join("rejected");
    config.results.path = out.to_owned();
    config.ledger.path = out.join("ledger.sqlite");
    config
}

fn list(paths: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, Fatal> {
    let mut files = Vec::new();
    let own = out.canonicalize().ok();
    for path in paths {
        let found =
            watch::list_files(path).map_err(|error| Fatal::new(Exit::Usage, format!("{}: {error}", path.display())))?;
        // Results that lie among the inputs are no inputs.
        let is_own = |file: &PathBuf| {
            own.as_ref().is_some_and(|own| file.canonicalize().is_ok_and(|file| file.starts_with(own)))
        };
        files.extend(found.into_iter().filter(|file| !is_own(file)));
    }
    Ok(files)
}

/// A path with control characters made visible: names come from outside.
fn shown(path: &Path) -> String {
    path.display()
        .to_string()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn any(slices: &[SliceRecord]) -> f32 {
    let top = slices
        .iter()
        .filter_map(|slice| slice.logits.get(Label::Any as usize))
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    sigmoid(top)
}

fn text_line(report: &Report) -> String {
    let path = shown(&report.path);
    match &report.fate {
        Fate::Done(slices) => format!("result     {path}: any {:.3}, {}", any(slices), result_names(slices)),
        Fate::Duplicate(slices) => format!("duplicate  {path}: any {:.3}, {}", any(slices), result_names(slices)),
        Fate::Rejected(rejection) => format!("rejected   {path}: {rejection}"),
        Fate::Returned => format!("rejected   {path}: unreadable: it vanished or changed while it was read"),
    }
}

fn result_names(slices: &[SliceRecord]) -> String {
    match slices {
        [only] => only.result.clone(),
        [first, ..] => format!("{} and {} more", first.result, slices.len() - 1),
        [] => "no slice".into(),
    }
}

fn json_line(report: &Report) -> String {
    let file = shown(&report.path);
    let results = |slices: &[SliceRecord]| slices.iter().map(|slice| slice.result.clone()).collect::<Vec<_>>();
    let line = match &report.fate {
        Fate::Done(slices) => json!({"file": file, "fate": "result", "results": results(slices)}),
        Fate::Duplicate(slices) => json!({"file": file, "fate": "duplicate", "results": results(slices)}),
        Fate::Rejected(rejection) => json!({
            "file": file, "fate": "rejected", "code": rejection.code.word(), "tag": rejection.tag, "sentence": rejection.sentence,
        }),
        Fate::Returned => json!({"file": file, "fate": "rejected", "code": "unreadable"}),
    };
    line.to_string()
}
