//! `ichd inspect`: one file as the daemon sees it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Common, say, site};
use crate::config::Config;
use crate::dicom;
use crate::disk::{Disk, RealDisk};
use crate::error::{Exit, Fatal};
use crate::identity::{picture_digest, sha256};
use crate::picture::{side_by_side, windowed};
use crate::reject::Rejection;
use crate::results::slice_path;
use crate::slice::Slice;

/// Arguments of `ichd inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file.
    file: PathBuf,
    /// Writes the windows of the (first) slice side by side to this PNG.
    #[arg(long, value_name = "PNG")]
    png: Option<PathBuf>,
}

pub fn inspect(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let examined = Examined::of(&config, &args.file)?;
    if common.json {
        say(examined.to_json());
    } else {
        examined.print();
    }
    let (Some(path), Ok([slice, ..])) = (&args.png, examined.verdict.as_deref()) else { return Ok(()) };
    let hu = slice_hu(slice);
    let windows = config.kernel_windows();
    let picture = |w: &ichd_kernels::Window| {
        (
            format!("level {} width {}", w.level, w.width),
            windowed(&hu, slice.rows, slice.columns, *w, config.ramp.into()),
        )
    };
    let sheet = side_by_side(&windows.iter().map(picture).collect::<Vec<_>>());
    let png = sheet.png().map_err(Fatal::io)?;
    RealDisk.write_whole(path, &png).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))?;
    if !common.json {
        say(format!("windows    {}", path.display()));
    }
    Ok(())
}

/// A file and its verdict.
pub struct Examined {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its slices, or why there are none.
    pub verdict: Result<Vec<Slice>, Rejection>,
}

impl Examined {
    /// Reads and judges a file as the daemon does.
    pub fn of(config: &Config, file: &Path) -> Result<Examined, Fatal> {
        let (_, bytes) = RealDisk
            .read(file, config.inbox.file_bytes_max)
            .map_err(|error| Fatal::new(Exit::Usage, format!("{}: {error}", file.display())))?;
        let verdict = dicom::decode(&bytes, &config.admission);
        Ok(Examined { bytes, verdict })
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        match &self.verdict {
            Ok(slices) => json!({
                "verdict": "accepted", "sha256": sha256(&self.bytes), "slices": slices.iter().map(facts).collect::<Vec<_>>(),
            }),
            Err(rejection) => json!({
                "verdict": "rejected", "code": rejection.code.word(), "tag": rejection.tag, "sentence": rejection.sentence,
            }),
        }
    }

    /// For people.
    pub fn print(&self) {
        match &self.verdict {
            Err(rejection) => say(format!("rejected   {rejection}")),
            Ok(slices) => {
                let (n_bytes, digest) = (self.bytes.len(), sha256(&self.bytes));
                say(format!("accepted   {} slice(s), {n_bytes} bytes, sha256 {digest}", slices.len()));
                for slice in slices {
                    print_facts(slice);
                }
            }
        }
    }
}

/// HU of every pixel; padding is air.
pub fn slice_hu(slice: &Slice) -> Vec<f32> {
    let is_padding =
        |index: usize| slice.padding.as_ref().is_some_and(|range| range.contains(&slice.pixels.get(index)));
    (0..slice.pixels.len()).map(|index| if is_padding(index) { -1000.0 } else { slice.hu(index) as f32 }).collect()
}

/// Least, greatest and mean HU and that of the middle pixel, padding as stored.
fn statistics(slice: &Slice) -> (f64, f64, f64, f64) {
    let values = || (0..slice.pixels.len()).map(|index| slice.hu(index));
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), hu| (low.min(hu), high.max(hu)));
    let middle = slice.hu(slice.rows / 2 * slice.columns + slice.columns / 2);
    (low, high, values().sum::<f64>() / slice.pixels.len().max(1) as f64, middle)
}

/// What may be shown of a slice: no name and no patient's number is ever read.
fn facts(slice: &Slice) -> Value {
    let (low, high, mean, middle) = statistics(slice);
    let warnings: Vec<&str> = slice.warnings.iter().map(|warning| warning.code).collect();
    json!({
        "study_uid": slice.ids.study, "series_uid": slice.ids.series, "instance_uid": slice.ids.instance, "frame": slice.ids.frame,
        "rows": slice.rows, "columns": slice.columns, "bits_stored": slice.bits_stored, "inverted": slice.inverted,
        "slope": slice.rescale.slope, "intercept": slice.rescale.intercept, "transfer_syntax": slice.transfer_syntax,
        "hu": {"min": low, "max": high, "mean": mean, "center": middle},
        "padding": slice.padding.as_ref().map(|range| [*range.start(), *range.end()]),
        "position_mm": slice.geometry.position, "gantry_tilt_deg": slice.geometry.gantry_tilt,
        "warnings": warnings, "picture_sha256": picture_digest(slice), "result": slice_path(slice),
    })
}

fn print_facts(slice: &Slice) {
    let (low, high, mean, middle) = statistics(slice);
    let frame = slice.ids.frame.map(|frame| format!(", frame {frame}")).unwrap_or_default();
    say(format!("instance   {}{frame}", slice.ids.instance.escape_debug()));
    say(format!("size       {} x {} pixels, {} bits stored", slice.columns, slice.rows, slice.bits_stored));
    say(format!("encoding   {}", slice.transfer_syntax));
    say(format!("rescale    HU = stored * {} + {}", slice.rescale.slope, slice.rescale.intercept));
    say(format!("HU         min {low}, max {high}, mean {mean:.3}, center {middle}"));
    if let Some(padding) = &slice.padding {
        say(format!("padding    stored values {} to {} are taken as air", padding.start(), padding.end()));
    }
    for warning in &slice.warnings {
        say(format!("warning    {}: {}", warning.code, warning.sentence));
    }
    say(format!("picture    sha256 {}", picture_digest(slice)));
    say(format!("result     {}", slice_path(slice)));
}
