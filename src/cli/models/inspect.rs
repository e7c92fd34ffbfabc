//! `ichd models inspect`: everything that is known of one model.

use std::path::Path;

use serde_json::{Value, json};

use super::check;
use crate::cli::{Common, say, site};
use crate::disk::{Disk, RealDisk};
use crate::error::Fatal;
use crate::model::{self, Manifest, Model, PHANTOM_ONLY, UNTRAINED};

/// Arguments of `ichd models inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, or name/version; without a version the newest.
    name: String,
    /// Scores synthetic slices in every type of number, and with BatchNorms folded and not, and says how far apart the
    /// answers are. The record is kept beside the model, in check.json.
    #[arg(long)]
    check: bool,
}

pub(super) fn inspect(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let model = model::load_by_name(&config, &args.name).map_err(Fatal::config)?;
    // Models that come with the program have no folder.
    let (folder, more) = match args.name.as_str() {
        UNTRAINED => (Value::Null, json!({"metrics": null, "training": null, "data_sha256": null, "program": null})),
        PHANTOM_ONLY => {
            (Value::Null, origin(model::manifest(&config.model.path, PHANTOM_ONLY).map_err(Fatal::config)?))
        }
        name => {
            let found = model::find(&config.model.path, name).map_err(Fatal::config)?;
            (json!(found.folder), origin(found.manifest))
        }
    };
    let mut facts = facts(&model, folder.clone(), more);
    if args.check {
        let record = check::check(&model, &site::device(&config)?)?;
        if let Value::String(folder) = &folder {
            let path = Path::new(folder).join("check.json");
            let written = RealDisk.write_whole(&path, format!("{record:#}\n").as_bytes());
            written.map_err(|error| Fatal::io(format!("{}: {error}", path.display())))?;
        }
        facts["check"] = record;
    }
    if common.json {
        say(facts);
        return Ok(());
    }
    if let Value::Object(facts) = facts {
        for (key, value) in facts {
            let text = match value {
                Value::String(text) => text,
                Value::Null => "none".into(),
                value => value.to_string(),
            };
            say(format!("{key:<18} {text}"));
        }
    }
    Ok(())
}

/// Where a model comes from.
fn origin(manifest: Manifest) -> Value {
    json!({
        "metrics": manifest.metrics, "training": manifest.training, "data_sha256": manifest.data_sha256,
        "program": manifest.program,
    })
}

fn facts(model: &Model, folder: Value, more: Value) -> Value {
    let (card, spec) = (&model.card, model.spec);
    let statistics = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
    let count = |wanted: &dyn Fn(&str) -> bool| -> usize {
        model.weights.iter().filter(|(name, _)| wanted(name)).map(|(_, entry)| entry.values.len()).sum()
    };
    let mut facts = json!({
        "name": card.name,
        "version": card.version,
        "folder": folder,
        "backbone": card.backbone,
        "paper": spec.paper,
        "convention": card.convention.name(),
        "trained": card.trained,
        "weights_sha256": card.sha256,
        "scorer_sha256": card.scorer(),
        "parameters": count(&|name| !statistics(name)),
        "parameters_head": count(&|name| spec.is_classifier(name)),
        "statistics": count(&statistics),
        "tensors": model.weights.len(),
        "preprocessing": card.preprocessing.to_json(),
        "calibration": card.calibration,
        "operating_points": card.operating_points,
    });
    if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
        facts.extend(more);
    }
    facts
}
