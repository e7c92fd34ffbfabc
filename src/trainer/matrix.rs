//! A list of runs to compare: every backbone with every recipe. Knows no data and no device.
//!
//! The file:
//!
//! ```yaml
//! backbones:
//! - resnet50                                   # random weights
//! - { backbone: vgg16, from: vgg16_imagenet }  # and, if wished, side
//! recipes:
//! - { name: report, train: { recipe: report } }
//! - { name: scratch, pretrained: false }
//! - { name: brain, windows: [{ level: 40, width: 80 }, { level: 40, width: 80 }, { level: 40, width: 80 }] }
//! ```

use std::collections::HashSet;

use serde::Deserialize;

use super::recipe::TrainSetting;
use crate::config::WindowSetting;
use crate::names;
use crate::yaml::{self, Value};

/// Keys of `train` that belong to data and machine and not to a recipe: all runs share them.
const SHARED: [&str; 5] = ["runs_path", "cache_path", "cache_side", "loader_threads", "data"];
/// More runs than anybody wants to wait for.
const RUNS_MAX: usize = 1000;

/// The file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    backbones: Vec<Backbone>,
    recipes: Vec<Recipe>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Backbone {
    Name(String),
    Details(Details),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    backbone: String,
    from: Option<String>,
    side: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    name: String,
    #[serde(default = "yes")]
    pretrained: bool,
    windows: Option<Vec<WindowSetting>>,
    #[serde(default)]
    train: Value,
}

fn yes() -> bool {
    true
}

/// One run of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Name of backbone and recipe, which is that of its folder and its model.
    pub name: String,
    /// The backbone.
    pub backbone: String,
    /// The recipe.
    pub recipe: String,
    /// The model that it begins with; random weights if none.
    pub from: Option<String>,
    /// Side of the input, if another than usual.
    pub side: Option<usize>,
    /// Windows, if others than usual.
    pub windows: Option<Vec<WindowSetting>>,
    /// How it is trained.
    pub setting: TrainSetting,
}

/// Reads the list. A recipe's `train` overrides keys of `base`.
///
/// # Errors
/// What does not fit, with the entry that it stands in.
pub fn cells(text: &str, base: &TrainSetting) -> Result<Vec<Cell>, String> {
    let file: File = yaml::from_text(text)?;
    let n_runs = file.backbones.len() * file.recipes.len();
    if !(1..=RUNS_MAX).contains(&n_runs) {
        return Err(format!("{n_runs} runs are listed; 1 to {RUNS_MAX} would be right"));
    }
    let base = yaml::to_value(base)?;
    let mut cells = Vec::with_capacity(n_runs);
    for backbone in file.backbones {
        let Details { backbone, from, side } = match backbone {
            Backbone::Name(backbone) => Details { backbone, from: None, side: None },
            Backbone::Details(details) => details,
        };
        for recipe in &file.recipes {
            let name = format!("{backbone}-{}", recipe.name);
            if names::component(&name) != name {
                return Err(format!("recipe `{}`: `{name}` cannot be the name of a folder", recipe.name));
            }
            let setting =
                merged(&base, &recipe.train).map_err(|sentence| format!("recipe {}: {sentence}", recipe.name))?;
            cells.push(Cell {
                name,
                backbone: backbone.clone(),
                recipe: recipe.name.clone(),
                from: from.clone().filter(|_| recipe.pretrained),
                side,
                windows: recipe.windows.clone(),
                setting,
            });
        }
    }
    let mut seen = HashSet::new();
    match cells.iter().find(|cell| !seen.insert(&cell.name)) {
        Some(twice) => Err(format!("the run {} stands twice", twice.name)),
        None => Ok(cells),
    }
}

/// The settings with a recipe's keys on top, all of it checked as in `daemon.yaml`.
fn merged(base: &Value, over: &Value) -> Result<TrainSetting, String> {
    if let Some(key) = SHARED.into_iter().find(|key| over.get(key).is_some()) {
        return Err(format!("train.{key} is the same for all runs; it belongs into daemon.yaml"));
    }
    let mut value = base.clone();
    put_over(&mut value, over, "train")?;
    let setting: TrainSetting = yaml::from_text(&yaml::to_text(&value)?)?;
    let mut problems = Vec::new();
    setting.effective().check(&mut |key, sentence| problems.push(format!("{key}: {sentence}")));
    if problems.is_empty() { Ok(setting) } else { Err(problems.join("; ")) }
}

fn put_over(value: &mut Value, over: &Value, path: &str) -> Result<(), String> {
    match (value, over) {
        (_, Value::Null) => Ok(()),
        (Value::Mapping(value), Value::Mapping(over)) => over.iter().try_for_each(|(key, over)| {
            let name = key.as_str().unwrap_or("?");
            let path = format!("{path}.{name}");
            match value.get_mut(key) {
                Some(value) => put_over(value, over, &path),
                None => Err(format!("{path} is unknown")),
            }
        }),
        (Value::Mapping(_), _) => Err(format!("{path} must be a mapping")),
        (value, over) => {
            *value = over.clone();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "backbones: [resnet50, { backbone: vgg16, from: vgg16_imagenet, side: 96 }]\nrecipes:\n- { name: report, train: { recipe: report } }\n- { name: scratch, pretrained: false, train: { epochs: 3, balance: { epidural_times: 2 } } }\n";

    #[test]
    fn every_backbone_comes_with_every_recipe() {
        let base = TrainSetting { batch: 7, ..TrainSetting::default() };
        let cells = cells(TEXT, &base).unwrap();
        let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names, ["resnet50-report", "resnet50-scratch", "vgg16-report", "vgg16-scratch"]);
        assert_eq!(cells[0].setting.effective().epochs, 10);
        let scratch = &cells[3];
        assert_eq!((scratch.from.as_deref(), scratch.side), (None, Some(96)));
        assert_eq!((scratch.setting.epochs, scratch.setting.balance.epidural_times, scratch.setting.batch), (3, 2, 7));
        assert_eq!(cells[2].from.as_deref(), Some("vgg16_imagenet"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let complaint = |text: &str| cells(text, &TrainSetting::default()).unwrap_err();
        let with = |train: &str| complaint(&format!("backbones: [vgg16]\nrecipes: [{{ name: a, train: {train} }}]"));
        assert_eq!(with("{ epoch: 3 }"), "recipe a: train.epoch is unknown");
        assert_eq!(with("{ augment: 3 }"), "recipe a: train.augment must be a mapping");
        assert!(with("{ epochs: 0 }").contains("train.epochs: 0 is not possible"), "{}", with("{ epochs: 0 }"));
        assert!(with("{ epochs: many }").starts_with("recipe a: epochs: invalid type"), "{}", with("{ epochs: many }"));
        assert!(with("{ cache_path: x }").contains("the same for all runs"));
        assert!(complaint("backbones: []\nrecipes: []").starts_with("0 runs"));
        assert!(complaint("backbones: [a, a]\nrecipes: [{ name: b }]").contains("a-b stands twice"));
        assert!(complaint("backbones: [a]\nrecipes: [{ name: ../b }]").contains("cannot be the name of a folder"));
        assert!(complaint("backbones: [a]\nrecipes: [{ name: b, epochs: 3 }]").contains("unknown field `epochs`"));
    }
}
