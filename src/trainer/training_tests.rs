//! The loop: stopped in validation, numbers that are none any more, the best weights so far.

use std::fs;

use ichd_plugin::label::Label;

use super::super::dataset::tests::Heads;
use super::*;
use crate::device::{self, Want};
use crate::disk::RealDisk;
use crate::registry;

const LAST_LAYER: &str = "classifier.1.weight";

/// Small heads and everything that a run on them takes.
struct World {
    heads: Heads,
    dataset: Dataset,
    parts: Parts,
    device: Chosen,
    preprocessing: Preprocessing,
    start: Weights,
}

impl World {
    fn new() -> World {
        let mut heads = Heads::new();
        (heads.setting.epochs, heads.setting.batch, heads.setting.average_decay) = (2, 8, 0.5);
        let dataset = heads.open();
        let parts = heads.split(&dataset, "split").unwrap();
        let spec = registry::find("mobilenet_v2").unwrap();
        let config = crate::config::Config::default();
        let preprocessing = Preprocessing {
            windows: config.kernel_windows(),
            ramp: config.ramp.into(),
            side: 32,
            mean: spec.mean.to_vec(),
            std: spec.std.to_vec(),
        };
        let device = device::choose(Want::Cpu).unwrap();
        World { heads, dataset, parts, device, preprocessing, start: spec.untrained(1) }
    }

    fn training<'w>(&'w self, folder: &'w Path) -> Training<'w> {
        Training {
            spec: registry::find("mobilenet_v2").unwrap(),
            variant: Variant::default(),
            preprocessing: &self.preprocessing,
            device: &self.device,
            setting: &self.heads.setting,
            dataset: &self.dataset,
            parts: &self.parts,
            start: &self.start,
            folder,
            digest: "run".into(),
            disk: &RealDisk,
        }
    }
}

/// Wishes to stop once the pass over the training part, or the whole epoch, of that number is done.
#[derive(Default)]
struct Impatient {
    pass: Option<u32>,
    epoch: Option<u32>,
    is_stopped: bool,
}

impl Onlooker for Impatient {
    fn batch(&mut self, epoch: u32, done: u64, all: u64, _loss: f64, _rate: f64) {
        self.is_stopped |= self.pass == Some(epoch) && done == all;
    }

    fn epoch(&mut self, epoch: &Epoch, _waited: f64, _is_best: bool) {
        self.is_stopped |= self.epoch == Some(epoch.epoch);
    }

    fn tell(&mut self, _line: String) {}

    fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

fn best(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("best.safetensors")).unwrap()
}

/// The weights with a last layer whose sums are beyond what f32 holds.
fn overflowing(weights: &Weights, name: &str) -> Weights {
    let mut broken = weights.clone();
    let entry = broken.get(name).unwrap().clone();
    broken.insert(name, entry.shape, vec![3e38; entry.values.len()]);
    broken
}

#[test]
fn a_stop_in_validation_loses_no_step_and_changes_no_weight() {
    let world = World::new();
    let (whole, cut) = (world.heads.path("whole"), world.heads.path("cut"));
    let training = world.training(&whole);
    assert!(matches!(training.run(false, &mut Impatient::default()).unwrap(), End::Done { .. }));
    let training = world.training(&cut);
    let stopped = training.run(false, &mut Impatient { pass: Some(1), ..Impatient::default() }).unwrap();
    assert_eq!(stopped, End::Stopped);
    let progress = checkpoint::read_progress(&RealDisk, &cut).unwrap().unwrap();
    assert!(progress.epoch == 0 && progress.batches_done > 2 && progress.best.is_none(), "{progress:?}");
    assert!(matches!(training.best_so_far(), Err(TrainError::NoBest { .. })));
    // Again in the validation of the same epoch, which has no batch left.
    let mut at_once = Impatient { is_stopped: true, ..Impatient::default() };
    assert_eq!(training.run(true, &mut at_once).unwrap(), End::Stopped);
    let done = training.run(true, &mut Impatient::default()).unwrap();
    assert_eq!(done, End::Done { best_epoch: training.best_so_far().unwrap() });
    assert!(best(&whole) == best(&cut), "the run that was stopped ended elsewhere");
    let losses = |folder: &Path| -> Vec<(f64, Option<f64>)> {
        let epochs = epoch::parse(&fs::read_to_string(folder.join("metrics.csv")).unwrap()).unwrap();
        epochs.iter().map(|row| (row.train_loss, row.weighted_log_loss)).collect()
    };
    assert_eq!(losses(&whole), losses(&cut));
}

#[test]
fn a_loss_that_is_no_number_after_a_good_epoch_leaves_its_weights_and_the_checkpoint() {
    let world = World::new();
    let folder = world.heads.path("run");
    let training = world.training(&folder);
    training.run(false, &mut Impatient { epoch: Some(1), ..Impatient::default() }).unwrap();
    let kept = best(&folder);
    // The weights go astray behind the checkpoint.
    let progress = checkpoint::read_progress(&RealDisk, &folder).unwrap().unwrap();
    let state = folder.join("checkpoint").join(&progress.state);
    let weights = Weights::from_safetensors(&fs::read(&state).unwrap(), "state").unwrap();
    let broken = overflowing(&weights, &format!("weight/{LAST_LAYER}")).to_safetensors().unwrap();
    fs::write(&state, &broken).unwrap();
    let error = training.run(true, &mut Impatient::default()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { epoch: 2, best_epoch: Some(1), .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("The weights of epoch 1, the best so far") && text.contains("--resume --finish"), "{text}");
    assert!(best(&folder) == kept && training.best_so_far().unwrap() == 1);
    assert!(fs::read(&state).unwrap() == broken, "the checkpoint was replaced");
    assert_eq!(checkpoint::read_progress(&RealDisk, &folder).unwrap(), Some(progress));
}

#[test]
fn what_first_fails_in_validation_ends_the_run_like_a_loss() {
    let world = World::new();
    let folder = world.heads.path("run");
    let training = world.training(&folder);
    let plan = training.plan().unwrap();
    let feed = training.feed(&plan);
    let mut progress = Progress { epoch: 4, steps: 99, best: Some(0.5), best_epoch: 2, ..Progress::default() };
    let broken = overflowing(&world.start, LAST_LAYER);
    let error = training.validate(&feed, &broken, &progress, &|| false).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { epoch: 5, steps: 99, best_epoch: Some(3), .. }), "{error}");
    let text = error.to_string();
    let labels = Label::ALL.map(Label::name);
    assert!(labels.iter().any(|label| text.contains(&format!("a logit of {label} is"))), "{text}");
    // Weights that are no numbers replace no checkpoint.
    let mut trainee = parallel::trainee(training.spec, std::slice::from_ref(&world.device.device), training.variant);
    trainee.load(&world.start).unwrap();
    training.checkpoint(trainee.as_mut(), &mut progress).unwrap();
    let before = fs::read(folder.join("checkpoint/progress.json")).unwrap();
    let mut broken = world.start.clone();
    let entry = broken.get(LAST_LAYER).unwrap().clone();
    broken.insert(LAST_LAYER, entry.shape, vec![f32::NAN; entry.values.len()]);
    trainee.load(&broken).unwrap();
    progress.steps = 100;
    let error = training.checkpoint(trainee.as_mut(), &mut progress).unwrap_err().to_string();
    assert!(error.contains("the weights are no numbers any more (weight/classifier.1.weight)"), "{error}");
    assert_eq!(fs::read(folder.join("checkpoint/progress.json")).unwrap(), before);
}
