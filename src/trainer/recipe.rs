//! How training goes: what can be chosen, and the learning rate of each step. Knows no data.

use std::num::NonZero;
use std::path::PathBuf;

use ichd_plugin::backbone::Rule;
use ichd_plugin::label::N_LABELS;
use ichd_plugin::spec::Precision;
use serde::{Deserialize, Serialize};

use super::settings::{AugmentSetting, BalanceSetting, DataSetting, Report, SplitSetting};

/// Key `train`. Field for field the keys of `daemon.yaml`, whose comments say what they mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct TrainSetting {
    pub runs_path: PathBuf,
    pub cache_path: PathBuf,
    pub cache_side: usize,
    pub recipe: Recipe,
    pub epochs: u32,
    pub batch: usize,
    pub accumulate: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub warmup_epochs: f64,
    pub weight_decay: f64,
    pub average_decay: f64,
    pub label_weights: [f32; N_LABELS],
    pub keep: Keep,
    pub patience: u32,
    pub precision: Precision,
    pub stored: Precision,
    pub devices: usize,
    pub seed: u64,
    pub checkpoint_secs: u64,
    pub loader_threads: usize,
    pub data: DataSetting,
    pub split: SplitSetting,
    pub balance: BalanceSetting,
    pub augment: AugmentSetting,
}

/// Key `train.recipe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// The keys as they stand.
    Keys,
    /// The seed report's: Adam at 1e-4 throughout, ten epochs of batches of 32, every label alike, epidural eight times,
    /// the best validation accuracy kept.
    Report,
}

/// Key `train.schedule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same rate throughout.
    Constant,
    /// Half a cosine down to a hundredth (Loshchilov, Hutter 2016, arXiv 1608.03983, without restarts).
    Cosine,
}

/// Key `train.keep`: which epoch's weights become the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// That with the lowest weighted log loss on the validation part.
    LogLoss,
    /// That with the highest accuracy at 0.5 there.
    Accuracy,
}

/// Most threads that read ahead unless more are asked for: each holds batches in memory.
const LOADERS: usize = 8;
/// The rate's share at the end of a cosine.
const COSINE_FLOOR: f64 = 0.01;

impl Default for TrainSetting {
    fn default() -> Self {
        TrainSetting {
            runs_path: "site/runs".into(),
            cache_path: "site/cache".into(),
            cache_side: 0,
            recipe: Recipe::Keys,
            epochs: 10,
            batch: 32,
            accumulate: 1,
            learning_rate: 3e-4,
            schedule: Schedule::Cosine,
            warmup_epochs: 0.5,
            weight_decay: 0.01,
            average_decay: 0.998,
            label_weights: [2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            keep: Keep::LogLoss,
            patience: 4,
            precision: Precision::F32,
            stored: Precision::F32,
            devices: 1,
            seed: 1,
            checkpoint_secs: 120,
            loader_threads: 0,
            data: DataSetting::default(),
            split: SplitSetting::default(),
            balance: BalanceSetting { epidural_times: 4, ..BalanceSetting::default() },
            augment: AugmentSetting::default(),
        }
    }
}

impl TrainSetting {
    /// The settings that are meant: a recipe by name replaces the keys that it speaks of.
    pub fn effective(&self) -> TrainSetting {
        match self.recipe {
            Recipe::Keys => self.clone(),
            Recipe::Report => TrainSetting {
                epochs: 10,
                batch: 32,
                accumulate: 1,
                learning_rate: 1e-4,
                schedule: Schedule::Constant,
                warmup_epochs: 0.0,
                weight_decay: 0.0,
                average_decay: 0.0,
                label_weights: [1.0; N_LABELS],
                keep: Keep::Accuracy,
                patience: 0,
                balance: BalanceSetting { epidural_times: 8, ..BalanceSetting::default() },
                augment: AugmentSetting::default(),
                ..self.clone()
            },
        }
    }

    /// Threads that read batches ahead: as many as the key says, or one for each core up to [`LOADERS`].
    pub fn loaders(&self) -> usize {
        match self.loader_threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get).min(LOADERS),
            threads => threads,
        }
    }

    /// The recipe in one line, for people.
    pub fn words(&self) -> String {
        let optimizer = match self.weight_decay {
            0.0 => "Adam".to_owned(),
            decay => format!("Adam with weight decay {decay}"),
        };
        let rate = match (self.warmup_epochs, self.schedule) {
            (0.0, Schedule::Constant) => "throughout".to_owned(),
            (0.0, Schedule::Cosine) => "falling by half a cosine".to_owned(),
            (warmup, Schedule::Constant) => format!("after {warmup} epochs of warm-up"),
            (warmup, Schedule::Cosine) => format!("after {warmup} epochs of warm-up, falling by half a cosine"),
        };
        let average = match self.average_decay {
            0.0 => "no moving average of the weights".to_owned(),
            decay => format!("a moving average of the weights ({decay})"),
        };
        let keep = match self.keep {
            Keep::LogLoss => "lowest weighted log loss",
            Keep::Accuracy => "highest accuracy",
        };
        let patience = match self.patience {
            0 => String::new(),
            patience => format!(", given up after {patience} epochs without a better one"),
        };
        let steps = match self.accumulate {
            1 => String::new(),
            batches => format!(", {batches} of them a step"),
        };
        let recipe = match self.recipe {
            Recipe::Keys => "the keys of `train`",
            Recipe::Report => "the report's",
        };
        format!(
            "Recipe ({recipe}): {optimizer}, learning rate {} {rate}; {} epochs of batches of {}{steps}; {average}; of all epochs \
             the one with the {keep} is kept{patience}; {}.",
            self.learning_rate,
            self.epochs,
            self.batch,
            self.precision.name()
        )
    }

    /// How step `step` of all, from 0, moves the weights. An epoch has `steps_per_epoch` of them.
    pub fn rule(&self, step: u64, steps_per_epoch: u64) -> Rule {
        let (step, per_epoch) = (step as f64, steps_per_epoch.max(1) as f64);
        let (warmup, all) = (self.warmup_epochs * per_epoch, f64::from(self.epochs) * per_epoch);
        let share = if step < warmup {
            (step + 1.0) / warmup.max(1.0)
        } else {
            match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Cosine => {
                    let way = ((step - warmup) / (all - warmup).max(1.0)).clamp(0.0, 1.0);
                    COSINE_FLOOR + (1.0 - COSINE_FLOOR) * (1.0 + (std::f64::consts::PI * way).cos()) / 2.0
                }
            }
        };
        Rule {
            learning_rate: self.learning_rate * share.min(1.0),
            weight_decay: self.weight_decay,
            average_decay: (self.average_decay > 0.0).then_some(self.average_decay),
        }
    }

    /// Reports values that have the right type and still make no sense.
    pub fn check(&self, report: Report<'_>) {
        let mut range = |key: &str, value: f64, least: f64, most: f64| {
            if !(least..=most).contains(&value) {
                report(&format!("train.{key}"), format!("{value} is not possible; {least} to {most} would be right"));
            }
        };
        range("epochs", self.epochs.into(), 1.0, 10_000.0);
        range("batch", self.batch as f64, 1.0, 4096.0);
        range("accumulate", self.accumulate as f64, 1.0, 1024.0);
        range("cache_side", self.cache_side as f64, 0.0, 4096.0);
        range("learning_rate", self.learning_rate, 1e-9, 10.0);
        range("warmup_epochs", self.warmup_epochs, 0.0, f64::from(self.epochs));
        range("weight_decay", self.weight_decay, 0.0, 10.0);
        range("average_decay", self.average_decay, 0.0, 0.999_999);
        range("devices", self.devices as f64, 1.0, 64.0);
        range("patience", self.patience.into(), 0.0, 10_000.0);
        range("checkpoint_secs", self.checkpoint_secs as f64, 1.0, 86_400.0);
        range("loader_threads", self.loader_threads as f64, 0.0, 256.0);
        for (at, weight) in self.label_weights.iter().enumerate() {
            range(&format!("label_weights[{at}]"), f64::from(*weight), 0.0, 1e6);
        }
        if self.precision == Precision::F16 {
            let sentence =
                "f16 is not possible: gradients vanish in it without a scaled loss; f32 or bf16 would be right";
            report("train.precision", sentence.into());
        }
        if self.label_weights.iter().sum::<f32>() <= 0.0 {
            report("train.label_weights", "must not all be 0".into());
        }
        self.data.check("train.data.", report);
        self.split.check("train.split.", report);
        self.balance.check("train.balance.", report);
        self.augment.check("train.augment.", report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let setting = TrainSetting { epochs: 10, warmup_epochs: 1.0, learning_rate: 1.0, ..TrainSetting::default() };
        let rate = |step| setting.rule(step, 100).learning_rate;
        assert_eq!((rate(0), rate(49), rate(99)), (0.01, 0.5, 1.0));
        assert!((100..999).all(|step| rate(step) >= rate(step + 1)));
        assert!(rate(999) < 0.011 && rate(5000) >= COSINE_FLOOR);
    }

    #[test]
    fn the_report_is_what_it_was() {
        let report = TrainSetting { recipe: Recipe::Report, ..TrainSetting::default() }.effective();
        assert!((0..3000).all(|step| report.rule(step, 300) == Rule::default()));
        assert_eq!((report.epochs, report.batch, report.keep), (10, 32, Keep::Accuracy));
        assert_eq!(report.balance.epidural_times, 8);
    }

    #[test]
    fn a_recipe_says_what_it_is() {
        assert_eq!(
            TrainSetting::default().words(),
            "Recipe (the keys of `train`): Adam with weight decay 0.01, learning rate 0.0003 after 0.5 epochs of warm-up, \
             falling by half a cosine; 10 epochs of batches of 32; a moving average of the weights (0.998); of all epochs the \
             one with the lowest weighted log loss is kept, given up after 4 epochs without a better one; f32."
        );
        assert_eq!(
            TrainSetting { recipe: Recipe::Report, accumulate: 3, ..TrainSetting::default() }.effective().words(),
            "Recipe (the report's): Adam, learning rate 0.0001 throughout; 10 epochs of batches of 32; no moving average of \
             the weights; of all epochs the one with the highest accuracy is kept; f32."
        );
    }

    #[test]
    fn half_precision_without_a_scaled_loss_is_refused() {
        let complaints = |precision| {
            let mut found = Vec::new();
            TrainSetting { precision, ..TrainSetting::default() }.check(&mut |key, _| found.push(key.to_owned()));
            found
        };
        assert_eq!(complaints(Precision::F16), ["train.precision"]);
        assert_eq!(complaints(Precision::Bf16), [""; 0]);
    }
}
