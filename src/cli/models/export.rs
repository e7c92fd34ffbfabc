//! `ichd models export`: a model's weights for torchvision and timm.

use std::path::PathBuf;

use ichd_plugin::export::to_pytorch;
use ichd_plugin::spec::Convention;
use serde_json::json;

use crate::cli::{Common, say, site};
use crate::disk::{Disk, RealDisk};
use crate::error::{Exit, Fatal};
use crate::identity::sha256;
use crate::model;

pub(super) const HELP: &str = "Example: ichd models export resnet50 --out resnet50.safetensors\n\nIn Python:\n  model = torchvision.models.resnet50(); model.fc = torch.nn.Linear(2048, 6)\n  model.load_state_dict(safetensors.torch.load_file(\"resnet50.safetensors\"), strict=True)";

/// Arguments of `ichd models export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, or name/version; without a version the newest.
    name: String,
    /// The safetensors file to write; one that exists is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn export(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let out = args.out.display();
    if args.out.exists() {
        return Err(Fatal::new(Exit::Usage, format!("{out} exists already and is not overwritten")));
    }
    let model = model::load_by_name(&config, &args.name).map_err(Fatal::config)?;
    let card = &model.card;
    let bytes = to_pytorch(&model.weights).map_err(Fatal::config)?;
    RealDisk.write_whole(&args.out, &bytes).map_err(|error| Fatal::io(format!("{out}: {error}")))?;
    if common.json {
        say(json!({
            "name": card.name, "version": card.version, "backbone": card.backbone, "convention": card.convention.name(),
            "file": args.out, "sha256": sha256(&bytes), "tensors": model.weights.len(),
            "preprocessing": card.preprocessing.to_json(),
        }));
        return Ok(());
    }
    say(format!(
        "{out}: {} of {}/{}, with six units in {}",
        card.backbone, card.name, card.version, model.spec.classifier
    ));
    let (mean, std) = (&card.preprocessing.mean, &card.preprocessing.std);
    say(format!("They expect windows in 0..1, less {mean:?}, divided by {std:?}."));
    if card.convention == Convention::Keras {
        say("They were trained in Keras' arithmetic: torchvision loads them, but pads and normalizes otherwise.");
    }
    Ok(())
}
