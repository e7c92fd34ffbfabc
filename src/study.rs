//! The summary of a study: slices in anatomical order, smoothed with their neighbors. Knows no file.

use std::collections::BTreeMap;

use ichd_plugin::label::{Label, N_LABELS};
use serde_json::{Value, json};

use crate::results::{NOTICE, STUDY_SCHEMA, by_label, program_json};

/// What the summary needs of one slice, read back from its result.
#[derive(Clone, Debug, PartialEq)]
pub struct StudySlice {
    /// SeriesInstanceUID.
    pub series: String,
    /// SOPInstanceUID.
    pub instance: String,
    /// Frame of a multi-frame instance.
    pub frame: Option<u32>,
    /// ImagePositionPatient.
    pub position: Option<[f64; 3]>,
    /// ImageOrientationPatient.
    pub orientation: Option<[f64; 6]>,
    /// GantryDetectorTilt in degrees.
    pub gantry_tilt: Option<f64>,
    /// InstanceNumber.
    pub instance_number: Option<i32>,
    /// Probabilities in label order.
    pub probabilities: [f32; N_LABELS],
    /// The `model` part of the result.
    pub model: Value,
}

impl StudySlice {
    /// Reads a slice result; `None` if it has not the shape of one.
    pub fn from_result(result: &Value) -> Option<StudySlice> {
        let mut probabilities = [0.0; N_LABELS];
        for (label, slot) in Label::ALL.iter().zip(&mut probabilities) {
            *slot = result["probabilities"][label.name()].as_f64()? as f32;
        }
        let geometry = &result["geometry"];
        Some(StudySlice {
            series: result["series_uid"].as_str()?.to_owned(),
            instance: result["instance_uid"].as_str()?.to_owned(),
            frame: result["frame"].as_u64().and_then(|frame| u32::try_from(frame).ok()),
            position: numbers(&geometry["position_mm"]),
            orientation: numbers(&geometry["orientation"]),
            gantry_tilt: geometry["gantry_tilt_deg"].as_f64(),
            instance_number: geometry["instance_number"].as_i64().and_then(|n| i32::try_from(n).ok()),
            probabilities,
            model: result["model"].clone(),
        })
    }
}

fn numbers<const N: usize>(value: &Value) -> Option<[f64; N]> {
    let list: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    list.try_into().ok()
}

/// A slice with its place in the series.
#[derive(Clone, Debug)]
struct Placed {
    slice: StudySlice,
    along_mm: Option<f64>,
    smoothed: [f32; N_LABELS],
}

/// The summary of a study.
pub fn summary(study: &str, slices: Vec<StudySlice>, weights: [f64; 3], revision: u32, created: &str) -> Value {
    let mut by_series: BTreeMap<String, Vec<StudySlice>> = BTreeMap::new();
    for slice in slices {
        by_series.entry(slice.series.clone()).or_default().push(slice);
    }
    let n_slices: usize = by_series.values().map(Vec::len).sum();
    let series: Vec<(String, Vec<Placed>, Vec<Value>)> = by_series
        .into_iter()
        .map(|(uid, slices)| {
            let (placed, warnings) = place(slices, weights);
            (uid, placed, warnings)
        })
        .collect();
    let placed = || series.iter().flat_map(|(_, placed, _)| placed);
    let mut models: Vec<&Value> = Vec::new();
    for slice in placed() {
        if !models.contains(&&slice.slice.model) {
            models.push(&slice.slice.model);
        }
    }
    json!({
        "schema": STUDY_SCHEMA,
        "notice": NOTICE,
        "study_uid": study,
        "revision": revision,
        "n_slices": n_slices,
        "models": models,
        "smoothing": weights,
        "maximum": maxima(placed()),
        "series": series.iter().map(|(uid, placed, warnings)| series_json(uid, placed, warnings)).collect::<Vec<_>>(),
        "program": program_json(),
        "created": created,
    })
}

/// The highest probability of each label, plain and smoothed, and the slice that has it.
fn maxima<'a>(placed: impl Iterator<Item = &'a Placed> + Clone) -> Value {
    let best = |value: &dyn Fn(&Placed) -> f32| {
        let top = placed.clone().max_by(|a, b| value(a).total_cmp(&value(b)));
        top.map(|top| json!({"probability": value(top), "instance_uid": top.slice.instance, "frame": top.slice.frame}))
    };
    let entry = |(idx, label): (usize, &Label)| {
        let plain = best(&|placed| placed.slice.probabilities[idx]);
        let smoothed = best(&|placed| placed.smoothed[idx]);
        (label.name().to_owned(), json!({"slice": plain, "smoothed": smoothed}))
    };
    Value::Object(Label::ALL.iter().enumerate().map(entry).collect())
}

fn series_json(uid: &str, placed: &[Placed], warnings: &[Value]) -> Value {
    let slices: Vec<Value> = placed
        .iter()
        .map(|placed| {
            json!({
                "instance_uid": placed.slice.instance,
                "frame": placed.slice.frame,
                "along_normal_mm": placed.along_mm,
                "probabilities": by_label(&placed.slice.probabilities),
                "smoothed": by_label(&placed.smoothed),
            })
        })
        .collect();
    json!({"series_uid": uid, "warnings": warnings, "slices": slices})
}

/// Orders the slices of a series and smooths them.
fn place(slices: Vec<StudySlice>, weights: [f64; 3]) -> (Vec<Placed>, Vec<Value>) {
    let mut warnings = Vec::new();
    let normal = slices.iter().find_map(|slice| slice.orientation.and_then(slice_normal));
    let mut placed: Vec<Placed> = slices
        .into_iter()
        .map(|slice| {
            let along_mm = normal.zip(slice.position).map(|(normal, position)| dot(normal, position));
            Placed { along_mm, smoothed: slice.probabilities, slice }
        })
        .collect();
    let in_space = placed.iter().all(|placed| placed.along_mm.is_some());
    if in_space {
        placed
            .sort_by(|a, b| (a.along_mm.unwrap_or(0.0)).total_cmp(&b.along_mm.unwrap_or(0.0)).then_with(|| tie(a, b)));
        check_spacing(&placed, &mut warnings);
    } else {
        warnings.push(json!({
            "code": "no-position",
            "sentence": "Some slices have no position or orientation; the order is that of instance numbers."
        }));
        placed.sort_by(|a, b| a.slice.instance_number.cmp(&b.slice.instance_number).then_with(|| tie(a, b)));
    }
    check_tilt(&placed, &mut warnings);
    smooth(&mut placed, weights);
    (placed, warnings)
}

fn tie(a: &Placed, b: &Placed) -> std::cmp::Ordering {
    (&a.slice.instance, a.slice.frame).cmp(&(&b.slice.instance, b.slice.frame))
}

/// Unit normal of the slice plane: row direction x column direction. Axial slices are ordered from feet to head.
pub(crate) fn slice_normal(orientation: [f64; 6]) -> Option<[f64; 3]> {
    let [a, b, c, d, e, f] = orientation;
    let normal = [b * f - c * e, c * d - a * f, a * e - b * d];
    let length = dot(normal, normal).sqrt();
    (length.is_finite() && length > 1e-6).then(|| normal.map(|part| part / length))
}

pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Mentions a tilted gantry once, and not with each slice: the order is along the normal all the same, but a volume made
/// of such slices is sheared.
fn check_tilt(placed: &[Placed], warnings: &mut Vec<Value>) {
    let tilts: Vec<f64> =
        placed.iter().filter_map(|placed| placed.slice.gantry_tilt.filter(|tilt| *tilt != 0.0)).collect();
    let (least, most) =
        tilts.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), tilt| (l.min(*tilt), m.max(*tilt)));
    if tilts.is_empty() {
        return;
    }
    let degrees = if least == most { least.to_string() } else { format!("{least} to {most}") };
    let (tilted, all) = (tilts.len(), placed.len());
    warnings.push(json!({
        "code": "gantry-tilt",
        "sentence": format!("{tilted} of {all} slices were taken with the gantry tilted by {degrees} degrees.")
    }));
}

/// Warns of slices at the same place and of gaps much wider than the usual spacing.
fn check_spacing(placed: &[Placed], warnings: &mut Vec<Value>) {
    let along: Vec<f64> = placed.iter().filter_map(|placed| placed.along_mm).collect();
    let mut gaps: Vec<f64> = along.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let same = gaps.iter().filter(|gap| **gap < 1e-3).count();
    if same > 0 {
        warnings.push(json!({
            "code": "same-position",
            "sentence": format!("{same} slices lie at the position of another one.")
        }));
    }
    gaps.retain(|gap| *gap >= 1e-3);
    gaps.sort_by(f64::total_cmp);
    let Some(usual) = gaps.get(gaps.len() / 2).copied() else { return };
    let wide = gaps.iter().filter(|gap| **gap > 1.5 * usual).count();
    if wide > 0 {
        warnings.push(json!({
            "code": "gap",
            "sentence": format!("{wide} gaps are wider than 1.5 times the usual spacing of {usual:.2} mm; slices may be missing.")
        }));
    }
}

/// Weighted mean of each slice and its two neighbors; at the ends the weights of those that exist are scaled to 1.
fn smooth(placed: &mut [Placed], weights: [f64; 3]) {
    let plain: Vec<[f32; N_LABELS]> = placed.iter().map(|placed| placed.slice.probabilities).collect();
    for (idx, placed) in placed.iter_mut().enumerate() {
        let below = idx.checked_sub(1).and_then(|below| plain.get(below)).map(|p| (weights[0], p));
        let above = plain.get(idx + 1).map(|p| (weights[2], p));
        let own = plain.get(idx).map(|p| (weights[1], p));
        let parts: Vec<_> = [below, own, above].into_iter().flatten().collect();
        let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
        for label in 0..N_LABELS {
            let sum: f64 = parts.iter().map(|(weight, p)| weight * f64::from(p[label])).sum();
            placed.smoothed[label] = (sum / total) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(instance: &str, z: f64, any: f32) -> StudySlice {
        let mut probabilities = [0.0; N_LABELS];
        probabilities[0] = any;
        StudySlice {
            series: "r".into(),
            instance: instance.into(),
            frame: None,
            position: Some([10.0, -5.0, z]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            gantry_tilt: None,
            instance_number: None,
            probabilities,
            model: json!({"name": "m"}),
        }
    }

    fn order(summary: &Value) -> Vec<&str> {
        let slices = summary["series"][0]["slices"].as_array().unwrap();
        slices.iter().map(|slice| slice["instance_uid"].as_str().unwrap()).collect()
    }

    #[test]
    fn slices_are_ordered_along_the_normal_and_smoothed() {
        let slices = vec![slice("c", 10.0, 0.0), slice("a", 0.0, 1.0), slice("b", 5.0, 0.5)];
        let summary = summary("s", slices, [0.2, 0.6, 0.2], 1, "t");
        assert_eq!(order(&summary), ["a", "b", "c"]);
        let smoothed = |idx: usize| summary["series"][0]["slices"][idx]["smoothed"]["any"].as_f64().unwrap();
        assert!((smoothed(0) - (0.6 + 0.1) / 0.8).abs() < 1e-6);
        assert!((smoothed(1) - 0.5).abs() < 1e-6);
        assert!((smoothed(2) - 0.1 / 0.8).abs() < 1e-6);
        assert_eq!(summary["maximum"]["any"]["slice"]["instance_uid"], "a");
        assert_eq!(summary["series"][0]["warnings"], json!([]));
    }

    #[test]
    fn a_tilted_gantry_orders_by_the_normal_and_not_by_z() {
        // The normal points along -y here: z does not change at all.
        let tilt = |instance: &str, y: f64| StudySlice {
            position: Some([0.0, y, 0.0]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
            ..slice(instance, 0.0, 0.0)
        };
        let summary = summary("s", vec![tilt("front", -9.0), tilt("back", 9.0)], [0.2, 0.6, 0.2], 1, "t");
        assert_eq!(order(&summary), ["back", "front"]);
    }

    #[test]
    fn a_tilt_is_told_once_with_how_many_slices_it_is_about() {
        let tilted = |instance: &str, z: f64, tilt| StudySlice { gantry_tilt: tilt, ..slice(instance, z, 0.0) };
        let warnings = |slices| summary("s", slices, [0.2, 0.6, 0.2], 1, "t")["series"][0]["warnings"].clone();
        let straight = vec![tilted("a", 0.0, None), tilted("b", 5.0, Some(0.0))];
        assert_eq!(warnings(straight.clone()), json!([]));
        let mut slices = straight;
        slices.extend([tilted("c", 10.0, Some(-12.5)), tilted("d", 15.0, Some(-12.5))]);
        let sentence = "2 of 4 slices were taken with the gantry tilted by -12.5 degrees.";
        assert_eq!(warnings(slices.clone()), json!([{"code": "gantry-tilt", "sentence": sentence}]));
        slices[0].gantry_tilt = Some(3.0);
        let told = warnings(slices)[0]["sentence"].to_string();
        assert!(told.contains("3 of 4 slices") && told.contains("by -12.5 to 3 degrees"), "{told}");
    }

    #[test]
    fn the_tilt_is_read_from_a_result() {
        let mut result = json!({
            "series_uid": "r", "instance_uid": "i", "frame": null, "model": {}, "probabilities": {},
            "geometry": {"position_mm": null, "orientation": null, "gantry_tilt_deg": 7.5, "instance_number": 1},
        });
        for label in Label::ALL {
            result["probabilities"][label.name()] = json!(0.5);
        }
        assert_eq!(StudySlice::from_result(&result).unwrap().gantry_tilt, Some(7.5));
        result["geometry"]["gantry_tilt_deg"] = Value::Null;
        assert_eq!(StudySlice::from_result(&result).unwrap().gantry_tilt, None);
    }

    /// Series are separate acquisitions: each has its own order, gaps and neighbors; only the maxima are the study's.
    #[test]
    fn each_series_of_a_study_is_ordered_and_smoothed_for_itself() {
        let of = |series: &str, instance: &str, z, any| StudySlice { series: series.into(), ..slice(instance, z, any) };
        // Interleaved in space: neighbors of one another only if series were mixed.
        let slices = vec![
            of("thin", "t2", 5.0, 0.0),
            of("bone", "b1", 2.0, 1.0),
            of("thin", "t1", 0.0, 0.0),
            of("bone", "b2", 7.0, 0.5),
            of("thin", "t3", 10.0, 0.75),
        ];
        let summary = summary("s", slices, [0.2, 0.6, 0.2], 1, "t");
        let series: Vec<&str> =
            summary["series"].as_array().unwrap().iter().map(|s| s["series_uid"].as_str().unwrap()).collect();
        assert_eq!((series, &summary["n_slices"]), (vec!["bone", "thin"], &json!(5)));
        let smoothed = |series: usize, slice: usize| {
            summary["series"][series]["slices"][slice]["smoothed"]["any"].as_f64().unwrap()
        };
        assert_eq!(order(&summary), ["b1", "b2"]);
        assert!((smoothed(0, 0) - (0.6 + 0.2 * 0.5) / 0.8).abs() < 1e-6);
        assert_eq!(smoothed(1, 0), 0.0, "the other series' slices are no neighbors");
        assert_eq!(summary["maximum"]["any"]["slice"]["instance_uid"], "b1");
        for series in 0..2 {
            assert_eq!(summary["series"][series]["warnings"], json!([]), "the other's slices make no gap and no twin");
        }
    }

    #[test]
    fn gaps_twins_and_missing_positions_are_told() {
        let mut slices: Vec<StudySlice> = (0..6).map(|n| slice(&n.to_string(), f64::from(n) * 5.0, 0.0)).collect();
        slices.push(slice("far", 60.0, 0.0));
        slices.push(slice("twin", 5.0, 0.0));
        let codes = |summary: &Value| {
            let warnings = summary["series"][0]["warnings"].as_array().unwrap().clone();
            warnings.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(codes(&summary("s", slices.clone(), [0.2, 0.6, 0.2], 1, "t")), ["same-position", "gap"]);
        slices[0].position = None;
        assert_eq!(codes(&summary("s", slices, [0.2, 0.6, 0.2], 1, "t")), ["no-position"]);
    }
}
