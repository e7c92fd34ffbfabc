//! Models in a site's folder.

use std::fs;
use std::path::Path;

use ichd_plugin::weights::Weights;

/// A `mobilenet_v2` that says it was trained. `folder` is that of the version; the first window has this width.
pub fn put_model(folder: &Path, weights: &Weights, side: usize, width: f32) {
    fs::create_dir_all(folder).unwrap();
    let bytes = weights.to_safetensors().unwrap();
    let digest = ichd::identity::sha256(&bytes);
    fs::write(folder.join("weights.safetensors"), bytes).unwrap();
    let manifest = format!(
        "schema: ichd.model.v1\nbackbone: mobilenet_v2\ntrained: true\ninput_side: {side}\nwindows:\n- {{level: 40, width: {width}}}\n- {{level: 80, width: 200}}\n- {{level: 40, width: 380}}\nramp: linear_exact\nresampling: bilinear_antialias\nmean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\nlabels: [any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural]\npreprocessing_version: 1\nweights_sha256: {digest}\n"
    );
    fs::write(folder.join("model.yaml"), manifest).unwrap();
}
