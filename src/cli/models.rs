//! `ichd models`: what there is to score with, and how weights come in and go out.

mod check;
mod export;
mod import;
mod inspect;

use serde_json::json;

use super::{Common, say, site};
use crate::error::Fatal;
use crate::model;
use crate::registry::BACKBONES;

/// What can be asked about models.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Lists the models of the model folder, or the backbones that are compiled in.
    #[command(after_help = "Example: ichd models list --backbones")]
    List {
        /// Backbones instead of models.
        #[arg(long)]
        backbones: bool,
    },
    /// Everything about one model: its backbone, input, weights, and where they came from.
    #[command(after_help = "Example: ichd models inspect resnet50\n         ichd models inspect resnet50/2 --json")]
    Inspect(inspect::Args),
    /// Makes a model of weights from torchvision, timm or Keras.
    #[command(after_help = import::HELP, disable_version_flag = true)]
    Import(import::Args),
    /// Writes a model's weights as a file that torchvision and timm load.
    #[command(after_help = export::HELP)]
    Export(export::Args),
}

pub fn models(common: &Common, action: &Action) -> Result<(), Fatal> {
    match action {
        Action::List { backbones: true } => {
            list_backbones(common.json);
            Ok(())
        }
        Action::List { backbones: false } => list_models(common),
        Action::Inspect(args) => inspect::inspect(common, args),
        Action::Import(args) => import::import(common, args),
        Action::Export(args) => export::export(common, args),
    }
}

fn list_models(common: &Common) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let found = model::list(&config.model.path);
    let mut rows = vec![];
    for (name, version) in &found {
        match model::load_named(&config.model.path, &format!("{name}/{version}")) {
            Ok(model) => rows.push(json!({
                "name": name, "version": version, "backbone": model.card.backbone, "trained": model.card.trained,
                "calibrated": model.card.is_calibrated(), "sha256": model.card.sha256, "problem": null,
            })),
            Err(error) => rows.push(json!({"name": name, "version": version, "problem": error.to_string()})),
        }
    }
    if common.json {
        say(json!({"folder": config.model.path, "models": rows}));
        return Ok(());
    }
    say("untrained          built in: mobilenet_v2 with arbitrary weights, to try the daemon out");
    say("phantom_only       built in: mobilenet_v2 trained on synthetic heads only, for demo; never for patients");
    for row in rows {
        let name = format!("{}/{}", row["name"].as_str().unwrap_or(""), row["version"].as_str().unwrap_or(""));
        match row["problem"].as_str() {
            Some(problem) => say(format!("{name:<18} cannot be used: {problem}")),
            None => say(format!("{name:<18} {} trained: {}", row["backbone"].as_str().unwrap_or(""), row["trained"])),
        }
    }
    if found.is_empty() {
        say(format!("No trained model lies in {}.", config.model.path.display()));
    }
    Ok(())
}

fn list_backbones(as_json: bool) {
    if as_json {
        let rows: Vec<_> = BACKBONES
            .iter()
            .map(|spec| {
                json!({
                    "name": spec.name, "family": spec.family, "input_side": spec.input_side, "parameters": spec.parameters,
                    "parameters_imagenet": spec.parameters_imagenet, "multiply_adds": spec.multiply_adds, "paper": spec.paper,
                })
            })
            .collect();
        say(json!({ "backbones": rows }));
        return;
    }
    say(format!("{:<16}{:>6}{:>14}{:>16}  paper", "name", "side", "parameters", "multiply-adds"));
    for spec in BACKBONES {
        let (millions, billions) = (spec.parameters as f64 / 1e6, spec.multiply_adds as f64 / 1e9);
        say(format!("{:<16}{:>6}{millions:>12.2} M{billions:>14.2} G  {}", spec.name, spec.input_side, spec.paper));
    }
}
