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
//! - { name: brain, windows: [{ level: 40, width: 80 }] }
//! ```
//!
//! Recipes that have much in common can share it: `train: &usual { ... }` in one, `train: { <<: *usual, epochs: 3 }` in another.

use std::collections::HashSet;

use serde::Deserialize;

use super::recipe::TrainSetting;
use crate::config::WindowSetting;
use crate::limits::WINDOWS_MAX;
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
    let mut file: File = yaml::from_text(text)?;
    for recipe in &mut file.recipes {
        let at = |sentence: String| format!("recipe {}: {sentence}", recipe.name);
        yaml::merge_keys(&mut recipe.train).map_err(at)?;
        let count = recipe.windows.as_ref().map(Vec::len);
        if let Some(count) = count.filter(|count| !(1..=WINDOWS_MAX).contains(count)) {
            return Err(at(format!("{count} windows are not possible; 1 to {WINDOWS_MAX} would be right")));
        }
    }
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
    use super::super::recipe::Keep;
    use super::super::recipe::Recipe::Keys;
    use super::super::settings::{BalanceSetting, PositiveWeights};
    use super::*;
    use crate::registry;

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
        let none = complaint("backbones: [a]\nrecipes: [{ name: b, windows: [] }]");
        assert_eq!(none, "recipe b: 0 windows are not possible; 1 to 16 would be right");
        let merged = complaint("backbones: [a]\nrecipes: [{ name: b, train: { <<: 3 } }]");
        assert!(merged.starts_with("recipe b: "), "{merged}");
    }

    #[test]
    fn what_recipes_share_is_written_once() {
        let text = "backbones: [vgg16]\nrecipes:\n- { name: a, train: &a { epochs: 3, batch: 5 } }\n- { name: b, train: { <<: *a, batch: 6 } }\n";
        let cells = cells(text, &TrainSetting::default()).unwrap();
        let found: Vec<(u32, usize)> = cells.iter().map(|cell| (cell.setting.epochs, cell.setting.batch)).collect();
        assert_eq!(found, [(3, 5), (3, 6)]);
    }

    #[test]
    fn the_list_for_the_reports_table_has_its_eight_networks_trained_as_the_report_did() {
        // Settings that somebody changed must not change the table.
        let base = TrainSetting { epochs: 3, batch: 7, learning_rate: 0.1, patience: 2, ..TrainSetting::default() };
        let cells = cells(include_str!("../../docs/matrices/table2.yaml"), &base).unwrap();
        let names: Vec<&str> = cells.iter().map(|cell| cell.backbone.as_str()).collect();
        let table = [
            "vgg16",
            "resnet50",
            "inception_v3",
            "mobilenet_v2",
            "xception",
            "efficientnet_b0",
            "efficientnet_b2",
            "efficientnet_b3",
        ];
        assert_eq!(names, table);
        let report = TrainSetting { recipe: super::super::recipe::Recipe::Report, ..TrainSetting::default() };
        for cell in &cells {
            assert!(registry::find(&cell.backbone).is_some(), "{}", cell.backbone);
            assert_eq!(cell.name, format!("{}-report", cell.backbone));
            assert_eq!(cell.from, Some(format!("{}_imagenet", cell.backbone)));
            assert_eq!((cell.side, &cell.windows), (None, &None));
            let mut setting = cell.setting.effective();
            assert_eq!((setting.split.subset, setting.split.validation, setting.split.folds), (0.1, 0.15, 0));
            setting.split.subset = 1.0;
            assert_eq!(setting, report.effective());
        }
    }

    #[test]
    fn the_list_of_ablations_differs_from_its_reference_in_one_thing_each() {
        let base = TrainSetting {
            epochs: 3,
            label_weights: [3.0; 6],
            weight_decay: 0.5,
            balance: BalanceSetting { epidural_times: 2, negatives_per_positive: 9.0, ..BalanceSetting::default() },
            ..TrainSetting::default()
        };
        let text = include_str!("../../docs/matrices/ablations.yaml");
        let cells = cells(text, &base).unwrap();
        assert!(cells.iter().all(|cell| cell.backbone == "efficientnet_b0" && cell.setting.recipe == Keys));
        let (reference, rest) = cells.split_first().unwrap();
        assert_eq!(reference.name, "efficientnet_b0-reference");
        // The report's, but for the epoch that is kept.
        let mut report =
            TrainSetting { recipe: super::super::recipe::Recipe::Report, ..TrainSetting::default() }.effective();
        (report.recipe, report.keep, report.split.subset) = (Keys, Keep::LogLoss, 0.1);
        assert_eq!(reference.setting, report);
        let brain = WindowSetting { level: 40.0, width: 80.0 };
        let subdural = WindowSetting { level: 80.0, width: 200.0 };
        let soft = WindowSetting { level: 40.0, width: 380.0 };
        assert_eq!(reference.windows, Some(vec![brain, subdural, soft]));

        let balance = |epidural_times, negatives_per_positive, positive_weights| BalanceSetting {
            epidural_times,
            negatives_per_positive,
            positive_weights,
            ..BalanceSetting::default()
        };
        let with_balance = |epidural_times, negatives, weights| Cell {
            setting: TrainSetting { balance: balance(epidural_times, negatives, weights), ..reference.setting.clone() },
            ..reference.clone()
        };
        let any_twice = TrainSetting { label_weights: [2.0, 1.0, 1.0, 1.0, 1.0, 1.0], ..reference.setting.clone() };
        let expected = [
            ("brain", Cell { windows: Some(vec![brain]), ..reference.clone() }),
            ("brain_subdural", Cell { windows: Some(vec![brain, subdural]), ..reference.clone() }),
            ("unbalanced", with_balance(1, 0.0, PositiveWeights::None)),
            ("negatives_1_to_2", with_balance(1, 2.0, PositiveWeights::None)),
            ("any_twice", Cell { setting: any_twice, ..reference.clone() }),
            ("positives_square_root", with_balance(1, 0.0, PositiveWeights::SquareRoot)),
            ("positives_balanced", with_balance(1, 0.0, PositiveWeights::Balanced)),
            ("scratch", Cell { from: None, ..reference.clone() }),
        ];
        assert_eq!(rest.len(), expected.len());
        for (cell, (recipe, expected)) in rest.iter().zip(expected) {
            let name = format!("efficientnet_b0-{recipe}");
            assert_eq!(*cell, Cell { name, recipe: recipe.to_owned(), ..expected });
        }
    }
}
