//! Who scores a slice: one model, or several whose logits are averaged. Pure arithmetic and the parts of results that
//! say so. Knows no device.

use std::sync::Arc;

use ichd_plugin::label::N_LABELS;
use serde_json::{Value, json};

use crate::identity::sha256;
use crate::model::{Calibration, ModelCard};
use crate::results::{by_label, sigmoid};

/// Logits of one slice in label order.
pub type Logits = [f32; N_LABELS];

/// Letters of the digest that serve as the version of an ensemble.
const VERSION_LEN: usize = 12;

/// One model, or several with their weights.
#[derive(Clone, Debug)]
pub struct Ensemble {
    name: String,
    members: Vec<Member>,
    scorer: String,
}

/// A model of an ensemble.
#[derive(Clone, Debug)]
pub struct Member {
    /// The model's facts.
    pub card: Arc<ModelCard>,
    /// Its weight in the mean, more than 0; only the ratio to the others counts.
    pub weight: f64,
}

/// What the network or networks said about one slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The logits that count.
    pub logits: Logits,
    /// The members' own, in their order; none of a single model.
    pub members: Vec<Logits>,
}

impl Ensemble {
    /// Of these members, at least one. `name` is that of the route, which several models go by.
    pub fn new(name: &str, members: Vec<Member>) -> Self {
        let scorer = match members.as_slice() {
            [only] => only.card.scorer(),
            several => digest(several),
        };
        Ensemble { name: name.to_owned(), members, scorer }
    }

    /// Its members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Names models, weights and preprocessing together: the same scorer gives the same picture the same logits.
    pub fn scorer(&self) -> &str {
        &self.scorer
    }

    /// Whether every member was trained.
    pub fn is_trained(&self) -> bool {
        self.members.iter().all(|member| member.card.trained)
    }

    /// Whether probabilities are calibrated: those of every member.
    pub fn is_calibrated(&self) -> bool {
        self.members.iter().all(|member| member.card.is_calibrated())
    }

    /// Its models in words: `a/1`, or `a/1 x 2 + b/3 x 1`.
    pub fn label(&self) -> String {
        let name = |member: &Member| format!("{}/{}", member.card.name, member.card.version);
        match self.members.as_slice() {
            [only] => name(only),
            several => {
                let parts: Vec<String> =
                    several.iter().map(|member| format!("{} x {}", name(member), member.weight)).collect();
                parts.join(" + ")
            }
        }
    }

    /// One slice's answer from the logits of each member, in their order.
    pub fn combine(&self, members: Vec<Logits>) -> Answer {
        match members.as_slice() {
            [only] => Answer { logits: *only, members: Vec::new() },
            several => Answer { logits: self.mean(several), members },
        }
    }

    /// The weighted mean of logits. A member that brings a calibration takes part with its calibrated logits: without it
    /// an overconfident model would count for more than its weight says.
    fn mean(&self, logits: &[Logits]) -> Logits {
        let sum: f64 = self.members.iter().map(|member| member.weight).sum();
        std::array::from_fn(|label| {
            let parts = self.members.iter().zip(logits);
            let weighed = parts.map(|(member, logits)| member.weight * calibrated(&member.card, label, logits[label]));
            (weighed.sum::<f64>() / sum) as f32
        })
    }

    /// Probabilities of an answer.
    pub fn probabilities(&self, answer: &Answer) -> Vec<f32> {
        match self.members.as_slice() {
            [only] => only.card.probabilities(&answer.logits),
            // The mean is of calibrated logits already.
            _ => answer.logits.iter().map(|logit| sigmoid(*logit)).collect(),
        }
    }

    /// Labels at or above their operating points. Points are found for one model's probabilities and mean nothing for a
    /// mean, so several models have none.
    pub fn labels_above(&self, probabilities: &[f32]) -> Vec<&'static str> {
        match self.members.as_slice() {
            [only] => only.card.labels_above(probabilities),
            _ => Vec::new(),
        }
    }

    /// The part of a result that names the model. Several models go by the route's name, their common digest and the
    /// beginning of that as version.
    pub fn to_json(&self) -> Value {
        match self.members.as_slice() {
            [only] => only.card.to_json(),
            _ => json!({
                "name": self.name,
                "version": self.scorer.chars().take(VERSION_LEN).collect::<String>(),
                "sha256": self.scorer,
                "backbone": "ensemble",
                "trained": self.is_trained(),
                "operating_points": null,
            }),
        }
    }

    /// The part of a result that says how the input was made: of several models, that of the first.
    pub fn preprocessing_json(&self) -> Value {
        self.members.first().map_or(Value::Null, |member| member.card.preprocessing.to_json())
    }

    /// The part of a result that lists the members with what each said; null of a single model.
    pub fn members_json(&self, answer: &Answer) -> Value {
        if self.members.len() < 2 {
            return Value::Null;
        }
        let member = |(member, logits): (&Member, &Logits)| {
            let card = &member.card;
            json!({
                "name": card.name,
                "version": card.version,
                "sha256": card.sha256,
                "backbone": card.backbone,
                "trained": card.trained,
                "weight": member.weight,
                "preprocessing": card.preprocessing.to_json(),
                "logits": by_label(logits),
                "probabilities": by_label(&card.probabilities(logits)),
                "calibrated": card.is_calibrated(),
            })
        };
        self.members.iter().zip(&answer.members).map(member).collect()
    }
}

/// A logit as it enters the mean.
fn calibrated(card: &ModelCard, label: usize, logit: f32) -> f64 {
    match &card.calibration {
        None => logit.into(),
        Some(Calibration { scale, shift }) => f64::from(scale[label]) * f64::from(logit) + f64::from(shift[label]),
    }
}

/// Everything that the mean depends on.
fn digest(members: &[Member]) -> String {
    let member = |member: &Member| {
        let calibration = member.card.calibration.as_ref().map(|fit| json!([fit.scale, fit.shift]));
        json!([member.card.scorer(), member.weight, calibration])
    };
    let text = json!(["ichd.ensemble.v1", members.iter().map(member).collect::<Vec<_>>()]);
    sha256(text.to_string().as_bytes())
}

impl Answer {
    /// Whether all numbers are finite.
    pub fn is_finite(&self) -> bool {
        self.members.iter().chain([&self.logits]).flatten().all(|logit| logit.is_finite())
    }

    /// All numbers in one row, for the ledger: the logits that count, then those of each member.
    pub fn to_row(&self) -> Vec<f32> {
        [&self.logits].into_iter().chain(&self.members).flatten().copied().collect()
    }

    /// The reverse of [`Answer::to_row`]; `None` if the row is not that of `n_members` models.
    pub fn from_row(row: &[f32], n_members: usize) -> Option<Answer> {
        let expected = if n_members == 1 { 0 } else { n_members };
        match row.as_chunks::<N_LABELS>() {
            ([logits, members @ ..], []) if members.len() == expected => {
                Some(Answer { logits: *logits, members: members.to_vec() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ichd_kernels::{Ramp, Window};

    use ichd_plugin::spec::{Convention, Precision};

    use super::*;
    use crate::model::Preprocessing;

    fn card(name: &str, calibration: Option<Calibration>) -> Arc<ModelCard> {
        let preprocessing = Preprocessing {
            windows: vec![Window { level: 40.0, width: 80.0 }],
            ramp: Ramp::LinearExact,
            side: 64,
            mean: vec![0.5],
            std: vec![0.25],
        };
        Arc::new(ModelCard {
            name: name.into(),
            version: "1".into(),
            sha256: sha256(name.as_bytes()),
            backbone: "mobilenet_v2",
            convention: Convention::Torch,
            precision: Precision::F32,
            trained: name != "u",
            preprocessing,
            calibration,
            operating_points: Some([0.0; N_LABELS]),
        })
    }

    fn of(members: &[(&str, f64)]) -> Ensemble {
        let member = |(name, weight): &(&str, f64)| Member { card: card(name, None), weight: *weight };
        Ensemble::new("route", members.iter().map(member).collect())
    }

    #[test]
    fn one_model_is_itself_whatever_its_weight() {
        for weight in [1.0, 7.0] {
            let single = of(&[("a", weight)]);
            let answer = single.combine(vec![[0.1; N_LABELS]]);
            assert_eq!(single.scorer(), card("a", None).scorer());
            assert_eq!(answer, Answer { logits: [0.1; N_LABELS], members: Vec::new() });
            assert_eq!(single.to_json(), card("a", None).to_json());
            assert_eq!((single.members_json(&answer), single.label()), (Value::Null, "a/1".into()));
            assert_eq!(single.labels_above(&single.probabilities(&answer)).len(), N_LABELS);
        }
    }

    #[test]
    fn several_models_give_the_weighted_mean_of_their_logits() {
        let pair = of(&[("a", 3.0), ("b", 1.0)]);
        let answer = pair.combine(vec![[1.0; N_LABELS], [-1.0; N_LABELS]]);
        assert_eq!((answer.logits, answer.members.len()), ([0.5; N_LABELS], 2));
        assert_eq!(pair.probabilities(&answer)[0], sigmoid(0.5));
        assert!(pair.labels_above(&[1.0; N_LABELS]).is_empty() && pair.is_trained() && !pair.is_calibrated());
        assert!(!of(&[("a", 1.0), ("u", 1.0)]).is_trained());
        let members = pair.members_json(&answer);
        assert_eq!((members[1]["name"].as_str(), members[0]["weight"].as_f64()), (Some("b"), Some(3.0)));
        assert_eq!(pair.label(), "a/1 x 3 + b/1 x 1");
    }

    #[test]
    fn calibrations_are_applied_before_the_mean() {
        let fit = Calibration { scale: [2.0; N_LABELS], shift: [0.5; N_LABELS] };
        let member = |calibration| Member { card: card("a", calibration), weight: 1.0 };
        let mixed = Ensemble::new("r", vec![member(Some(fit.clone())), member(None)]);
        let answer = mixed.combine(vec![[1.0; N_LABELS], [-1.0; N_LABELS]]);
        assert_eq!(answer.logits, [(2.5 - 1.0) / 2.0; N_LABELS]);
        assert!(!mixed.is_calibrated());
        assert!(Ensemble::new("r", vec![member(Some(fit.clone())), member(Some(fit))]).is_calibrated());
    }

    #[test]
    fn the_scorer_changes_with_all_that_the_logits_depend_on() {
        let fit = Calibration { scale: [2.0; N_LABELS], shift: [0.5; N_LABELS] };
        let fitted = Member { card: card("a", Some(fit)), weight: 1.0 };
        let b = Member { card: card("b", None), weight: 1.0 };
        let scorers = [
            of(&[("a", 1.0), ("b", 1.0)]).scorer,
            of(&[("a", 2.0), ("b", 1.0)]).scorer,
            of(&[("a", 1.0), ("c", 1.0)]).scorer,
            of(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]).scorer,
            of(&[("a", 1.0)]).scorer,
            Ensemble::new("r", vec![fitted, b]).scorer,
        ];
        for (idx, scorer) in scorers.iter().enumerate() {
            assert!(!scorers[..idx].contains(scorer), "{idx}");
        }
        let renamed = Ensemble::new("other", of(&[("a", 1.0), ("b", 1.0)]).members);
        assert_eq!(renamed.scorer, scorers[0], "a route's name is no work");
    }

    #[test]
    fn answers_survive_the_ledger() {
        let single = Answer { logits: [0.25; N_LABELS], members: Vec::new() };
        let pair = Answer { logits: [0.25; N_LABELS], members: vec![[1.0; N_LABELS], [-0.5; N_LABELS]] };
        for (answer, n_members) in [(single, 1), (pair, 2)] {
            let row = answer.to_row();
            assert_eq!(Answer::from_row(&row, n_members), Some(answer));
            assert_eq!(Answer::from_row(&row, n_members + 1), None);
            assert_eq!(Answer::from_row(&row[1..], n_members), None);
        }
        assert!(!Answer { logits: [f32::NAN; N_LABELS], members: Vec::new() }.is_finite());
    }
}
