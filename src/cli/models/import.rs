//! `ichd models import`: weights from torchvision, timm or Keras become a model, or the reasons why not are listed.

use std::io::ErrorKind;
use std::path::PathBuf;

use ichd_plugin::import::{self, Imported, Names, Normalization, Options, Report, Target};
use ichd_plugin::label::Label;
use ichd_plugin::raw;
use ichd_plugin::spec::{BackboneSpec, Convention, Precision};
use serde_json::{Value, json};

use crate::cli::{Common, say, site};
use crate::config::Config;
use crate::error::{Exit, Fatal};
use crate::identity::sha256;
use crate::model::{self, MANIFEST_SCHEMA, Manifest, PREPROCESSING_VERSION, RESAMPLING};
use crate::registry;
use crate::yaml;

pub(super) const HELP: &str = "Examples:\n  ichd models import --backbone resnet50 --weights resnet50-0676ba61.pth\n  ichd models import --backbone xception --weights keras.safetensors --name keras-xception --dry-run\n\nRead are safetensors and PyTorch's .pth and .pt; nothing in a pickle is run. For Keras files,\ntools/keras_to_safetensors.py makes a safetensors file. Windows come from daemon.yaml; a first\nconvolution for three channels is adapted to another number of windows: the sum over its channels,\ndivided by their number, for each.";

/// Arguments of `ichd models import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which network; `ichd models list --backbones` shows them.
    #[arg(long)]
    backbone: String,
    /// The file of weights.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Name of the model; without it that of the backbone.
    #[arg(long)]
    name: Option<String>,
    /// Its version; without it the first free number.
    #[arg(long)]
    version: Option<String>,
    /// Whose names the file has; without it those that fit best.
    #[arg(long)]
    names: Option<NamesWord>,
    /// Whose arithmetic the weights were trained with; without it Keras' for Keras' names, else PyTorch's. timm's tf_
    /// networks need `keras`.
    #[arg(long)]
    convention: Option<ConventionWord>,
    /// What the weights expect of their input; without it what is known of the file's kind.
    #[arg(long)]
    normalization: Option<NormalizationWord>,
    /// Keep the file's head, which must have six units in the order any, epidural, intraparenchymal, intraventricular,
    /// subarachnoid, subdural.
    #[arg(long)]
    keep_head: bool,
    /// Seed of a fresh head.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NamesWord {
    Torch,
    Timm,
    Keras,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ConventionWord {
    Torch,
    Keras,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NormalizationWord {
    /// ImageNet's mean and deviation of an input in 0..1.
    Imagenet,
    /// An input in -1..1.
    Half,
    /// An input in 0..255 less a mean, blue channel first.
    Caffe,
    /// An input in 0..1.
    None,
}

pub(super) fn import(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let spec = registry::find(&args.backbone).ok_or_else(|| {
        let known: Vec<&str> = registry::BACKBONES.iter().map(|spec| spec.name).collect();
        Fatal::new(
            Exit::Usage,
            format!("the backbone `{}` is not known; known are {}", args.backbone, known.join(", ")),
        )
    })?;
    let name = args.name.clone().unwrap_or_else(|| spec.name.to_owned());
    let version = args.version.clone().unwrap_or_else(|| model::free_version(&config.model.path, &name));
    let file = args.weights.display().to_string();
    let bytes = std::fs::read(&args.weights).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound { Exit::Usage } else { Exit::Io };
        Fatal::new(exit, format!("{file}: {error}"))
    })?;
    let bag = raw::read(&bytes, &file).map_err(Fatal::config)?;
    let target = Target::of(spec, config.windows.len());
    let imported = import::import(&target, &bag, &file, &options(args)).map_err(Fatal::config)?;
    let convention = match args.convention {
        None => imported.convention,
        Some(ConventionWord::Torch) => Convention::Torch,
        Some(ConventionWord::Keras) => Convention::Keras,
    };
    let manifest = manifest(&config, spec, args, &imported, convention, &sha256(&bytes))?;
    let folder = if args.dry_run {
        None
    } else {
        let written =
            model::write_model(&config.model.path, &name, &version, &manifest, &imported.weights, Precision::F32);
        Some(written.map_err(Fatal::config)?)
    };
    if common.json {
        let mut answer = report_json(&imported.report);
        for (key, value) in [
            ("name", json!(name)),
            ("version", json!(version)),
            ("backbone", json!(spec.name)),
            ("folder", json!(folder)),
            ("trained", json!(manifest.trained)),
            ("names", json!(imported.names.name())),
            ("convention", json!(convention.name())),
            ("normalization", json!(imported.normalization)),
            ("mean", json!(manifest.mean)),
            ("std", json!(manifest.std)),
        ] {
            answer[key] = value;
        }
        say(answer);
        return Ok(());
    }
    show(common, &imported, convention, spec);
    match folder {
        Some(folder) => say(format!("Written: {}. Use it with `model: {{ name: {name} }}`.", folder.display())),
        None => say(format!("Nothing was written; without --dry-run this would become {name}/{version}.")),
    }
    if !manifest.trained {
        say("Its head was never trained: its probabilities mean nothing until it is.");
    }
    Ok(())
}

fn options(args: &Args) -> Options {
    Options {
        names: args.names.map(|word| match word {
            NamesWord::Torch => Names::Torch,
            NamesWord::Timm => Names::Timm,
            NamesWord::Keras => Names::Keras,
        }),
        normalization: args.normalization.map(|word| match word {
            NormalizationWord::Imagenet => Normalization::Imagenet,
            NormalizationWord::Half => Normalization::Half,
            NormalizationWord::Caffe => Normalization::Caffe,
            NormalizationWord::None => Normalization::None,
        }),
        keep_head: args.keep_head,
        seed: args.seed,
    }
}

fn manifest(
    config: &Config,
    spec: &BackboneSpec,
    args: &Args,
    imported: &Imported,
    convention: Convention,
    digest: &str,
) -> Result<Manifest, Fatal> {
    let file = args.weights.file_name().map(|name| name.to_string_lossy().into_owned());
    let origin = json!({
        "imported": {
            "file": file, "sha256": digest, "names": imported.names.name(), "normalization": imported.normalization,
            "head": if args.keep_head { "kept".to_owned() } else { format!("fresh, seed {}", args.seed) },
        }
    });
    Ok(Manifest {
        schema: MANIFEST_SCHEMA.into(),
        backbone: spec.name.into(),
        convention,
        trained: args.keep_head,
        input_side: spec.input_side,
        windows: config.windows.clone(),
        ramp: config.ramp,
        resampling: RESAMPLING.into(),
        mean: imported.mean.clone(),
        std: imported.std.clone(),
        labels: Label::ALL.map(|label| label.name().to_owned()).to_vec(),
        preprocessing_version: PREPROCESSING_VERSION,
        weights_sha256: String::new(),
        calibration: None,
        operating_points: None,
        metrics: yaml::Value::Null,
        data_sha256: None,
        training: yaml::to_value(&origin).map_err(Fatal::config)?,
        program: Some(concat!("ichd ", env!("CARGO_PKG_VERSION")).into()),
    })
}

fn report_json(report: &Report) -> Value {
    let used: Vec<Value> =
        report.used.iter().map(|used| json!({"name": used.name, "from": used.from, "done": used.done})).collect();
    let fresh: Vec<Value> = report.fresh.iter().map(|(name, how)| json!({"name": name, "how": how})).collect();
    let dropped: Vec<Value> =
        report.dropped.iter().map(|(name, why)| json!({"from": name, "why": why.reason()})).collect();
    // An import that lacks anything or has anything left over fails; the two keys say so to a reader of many answers.
    json!({"used": used, "fresh": fresh, "dropped": dropped, "missing": [], "left_over": [], "notes": report.notes})
}

fn show(common: &Common, imported: &Imported, convention: Convention, spec: &BackboneSpec) {
    let Report { used, fresh, dropped, notes } = &imported.report;
    say(format!(
        "{} by {} names, in {} arithmetic; input: {} (mean {:?}, std {:?})",
        spec.name,
        imported.names.name(),
        convention.name(),
        imported.normalization,
        imported.mean,
        imported.std
    ));
    say(format!("{:>6} used{}", used.len(), if common.verbose > 0 { "" } else { " (-v lists them)" }));
    for used in used.iter().filter(|_| common.verbose > 0) {
        let done = if used.done.is_empty() { String::new() } else { format!(" ({})", used.done) };
        say(format!("         {} <- {}{done}", used.name, used.from));
    }
    say(format!("{:>6} fresh", fresh.len()));
    for (how, names) in grouped(fresh.iter().map(|(name, how)| (how.as_str(), name.as_str()))) {
        say(format!("         {how}: {}", short(&names)));
    }
    say(format!("{:>6} dropped", dropped.len()));
    for (why, names) in grouped(dropped.iter().map(|(name, why)| (why.reason(), name.as_str()))) {
        say(format!("         {why}: {}", short(&names)));
    }
    say("     0 missing\n     0 left over");
    for note in notes {
        say(format!("Note: {note}."));
    }
}

/// Names by what is said of them, in the order of their first.
fn grouped<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (word, name) in pairs {
        match groups.iter_mut().find(|(known, _)| *known == word) {
            Some((_, names)) => names.push(name),
            None => groups.push((word, vec![name])),
        }
    }
    groups
}

/// A few names, and how many more there are.
fn short(names: &[&str]) -> String {
    const SHOWN: usize = 6;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
