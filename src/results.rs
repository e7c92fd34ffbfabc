//! The shape of result files and where they lie. Knows no thread and no ledger.
//!
//! The JSON Schemas in `schemas/` are the contract; tests hold every file against them.

use std::ffi::OsStr;
use std::path::PathBuf;

use ichd_plugin::label::Label;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::Tick;
use crate::ensemble::{Answer, Ensemble};
use crate::names::{component, instance_component};
use crate::parcel::Work;
use crate::slice::Slice;

/// Name and version of the shape of a slice result.
pub const SLICE_SCHEMA: &str = "ichd.slice.v1";
/// Name and version of the shape of a study summary.
pub const STUDY_SCHEMA: &str = "ichd.study.v1";
/// Stands in every result.
pub const NOTICE: &str = "Research use only. Not a medical device.";

/// Result file of a slice, relative to the results folder.
pub fn slice_path(slice: &Slice) -> String {
    format!("{}/{}.json", component(&slice.ids.study), instance_component(&slice.ids.instance, slice.ids.frame))
}

/// Summary file of a study, relative to the results folder.
pub fn study_path(study: &str) -> String {
    format!("{}/study.json", component(study))
}

/// The daily log, relative to the results folder.
pub fn log_path(day: &str) -> PathBuf {
    PathBuf::from("log").join(format!("{day}.jsonl"))
}

/// Whether a file is called as a daily log is.
pub fn is_log_name(name: &OsStr) -> bool {
    let Some(day) = name.to_str().and_then(|name| name.strip_suffix(".jsonl")) else { return false };
    let is_digit = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    day.len() == 10 && day.bytes().enumerate().all(is_digit)
}

/// Logistic function.
pub fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// A number for each label, in label order.
pub fn by_label(values: &[f32]) -> Map<String, Value> {
    Label::ALL.iter().zip(values).map(|(label, value)| (label.name().to_owned(), json!(value))).collect()
}

/// What the stages measured, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[allow(missing_docs)]
pub struct Timings {
    pub read: f64,
    pub decode: f64,
    pub wait: f64,
    pub window: f64,
    pub infer: f64,
    pub batch_slices: usize,
    pub admitted_to_result: f64,
}

/// Milliseconds with microseconds kept.
pub fn millis(time: Tick) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What a slice result is made of.
#[derive(Debug)]
pub struct SliceResult<'a> {
    /// The slice and its origin.
    pub work: &'a Work,
    /// What was said about it.
    pub answer: &'a Answer,
    /// Name of the route it took.
    pub route: &'a str,
    /// Who scored it.
    pub scorer: &'a Ensemble,
    /// Where it was scored.
    pub device: &'a str,
    /// What it took.
    pub timings: Timings,
    /// The instance whose picture is the same, if no new work was done.
    pub duplicate_of: Option<String>,
    /// Calendar time.
    pub created: String,
}

impl SliceResult<'_> {
    /// The file's content.
    pub fn to_json(&self) -> Value {
        let (slice, origin, scorer) = (&self.work.slice, &self.work.origin, self.scorer);
        let probabilities = scorer.probabilities(self.answer);
        let positive = scorer.labels_above(&probabilities);
        let warnings: Vec<Value> =
            slice.warnings.iter().map(|warning| json!({"code": warning.code, "sentence": warning.sentence})).collect();
        json!({
            "schema": SLICE_SCHEMA,
            "notice": NOTICE,
            "study_uid": slice.ids.study,
            "series_uid": slice.ids.series,
            "instance_uid": slice.ids.instance,
            "frame": slice.ids.frame,
            "source": {
                "sha256": origin.sha256,
                "bytes": origin.fingerprint.bytes,
                "transfer_syntax": slice.transfer_syntax,
                "picture_sha256": self.work.key.picture,
                "rows": slice.rows,
                "columns": slice.columns,
            },
            "duplicate_of": self.duplicate_of,
            "geometry": geometry_json(slice),
            "route": self.route,
            "model": scorer.to_json(),
            "scorer": self.work.key.scorer,
            "preprocessing": scorer.preprocessing_json(),
            "logits": by_label(&self.answer.logits),
            "probabilities": by_label(&probabilities),
            "calibrated": scorer.is_calibrated(),
            "labels": positive,
            "members": scorer.members_json(self.answer),
            "warnings": warnings,
            "device": self.device,
            "timings_ms": self.timings,
            "program": program_json(),
            "created": self.created,
        })
    }
}

/// Name and version of this program.
pub fn program_json() -> Value {
    json!({"name": "ichd", "version": env!("CARGO_PKG_VERSION")})
}

fn geometry_json(slice: &Slice) -> Value {
    let geometry = &slice.geometry;
    json!({
        "position_mm": geometry.position,
        "orientation": geometry.orientation,
        "pixel_spacing_mm": geometry.pixel_spacing,
        "thickness_mm": geometry.thickness,
        "gantry_tilt_deg": geometry.gantry_tilt,
        "instance_number": geometry.instance_number,
    })
}

/// One line of the daily log.
pub fn log_line(seq: i64, result: &Value) -> String {
    let line = json!({
        "seq": seq,
        "created": result["created"],
        "study_uid": result["study_uid"],
        "series_uid": result["series_uid"],
        "instance_uid": result["instance_uid"],
        "frame": result["frame"],
        "probabilities": result["probabilities"],
        "labels": result["labels"],
        "route": result["route"],
        "model": result["model"]["name"],
        "model_version": result["model"]["version"],
        "trained": result["model"]["trained"],
        "duplicate_of": result["duplicate_of"],
        "warnings": result["warnings"].as_array().map(|all| all.iter().map(|w| w["code"].clone()).collect::<Vec<_>>()),
        "notice": NOTICE,
    });
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_is_accurate_and_finite() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert!((sigmoid(2.0) - 0.880_797_1).abs() < 1e-7);
        assert_eq!(sigmoid(-1000.0), 0.0);
        assert_eq!(sigmoid(1000.0), 1.0);
    }
}
