//! `ichd warmup`: gets a device ready for the daemon, and says what that took.

use serde_json::{Value, json};

use super::{Common, say, site};
use crate::clock::{SystemClock, Tick};
use crate::error::Fatal;
use crate::frugal::Frugal;
use crate::infer::{batch_sizes, try_out};
use crate::kernel_cache::{Kept, entries};
use crate::pipeline::scorers;
use crate::telemetry;

/// Arguments of `ichd warmup`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// What one model took.
struct Row {
    model: String,
    backbone: &'static str,
    first_s: f64,
    second_s: f64,
}

pub fn warm_up(common: &Common, _args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    telemetry::start(&config.log, common.verbose);
    let roster = site::roster(&config)?;
    let (device, kept) = site::device_and_cache(&config)?;
    let sizes = batch_sizes(config.batch.slices_max, device.is_cpu());
    let clock = SystemClock::new();
    let mut rows = Vec::new();
    for (model, scorer) in roster.models.iter().zip(scorers(&roster, &device, &sizes)?) {
        let mut scorer = Frugal::new(scorer);
        let model_name = format!("{}/{}", model.card.name, model.card.version);
        tracing::info!(model = model_name, ?sizes, "A model is tried.");
        let mut pass = || -> Result<f64, Fatal> {
            let taken: Result<Vec<_>, Fatal> = sizes.iter().map(|size| try_out(&mut scorer, *size, &clock)).collect();
            Ok(taken?.iter().map(Tick::as_secs_f64).sum())
        };
        let (first_s, second_s) = (pass()?, pass()?);
        rows.push(Row { model: model_name, backbone: model.card.backbone, first_s, second_s });
    }
    report(common, &device.name, &sizes, &rows, &kept);
    Ok(())
}

fn report(common: &Common, device: &str, sizes: &[usize], rows: &[Row], kept: &Kept) {
    let (found, now) = match kept {
        // What cannot be counted now is looked at by the next start.
        Kept::Yes { file, entries: found } => (*found, entries(file).unwrap_or(0)),
        Kept::NotNeeded | Kept::No { .. } => (0, 0),
    };
    if common.json {
        let models: Vec<Value> = rows
            .iter()
            .map(|row| json!({"model": row.model, "backbone": row.backbone, "first_s": row.first_s, "second_s": row.second_s}))
            .collect();
        let cache = match kept {
            Kept::Yes { file, .. } => json!({"file": file, "entries_before": found, "entries": now}),
            Kept::NotNeeded | Kept::No { .. } => Value::Null,
        };
        say(json!({"device": device, "batch_sizes": sizes, "models": models, "cache": cache, "note": note(kept, now)}));
        return;
    }
    let all: Vec<String> = sizes.iter().map(usize::to_string).collect();
    say(format!("device {device}, batches of {}", all.join(", ")));
    say(format!("{:<24}{:<20}{:>12}{:>12}", "model", "backbone", "first s", "second s"));
    for row in rows {
        say(format!("{:<24}{:<20}{:>12.2}{:>12.2}", row.model, row.backbone, row.first_s, row.second_s));
    }
    say(note(kept, now));
}

/// What the next start will find.
fn note(kept: &Kept, now: u64) -> String {
    match kept {
        Kept::Yes { file, .. } if now > 0 => {
            format!("{now} entries are kept in {}: the next start uses them.", file.display())
        }
        Kept::Yes { file, .. } => format!("Nothing could be kept in {}: every start takes this long.", file.display()),
        Kept::NotNeeded | Kept::No { .. } => kept.to_string(),
    }
}
