//! `ichd models`: what there is to score with.

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
}

pub fn models(common: &Common, action: &Action) -> Result<(), Fatal> {
    let Action::List { backbones } = action;
    if *backbones {
        list_backbones(common.json);
        return Ok(());
    }
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
