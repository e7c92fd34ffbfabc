//! The model card: what a trained model is, what it was trained and measured on, what it is for, and how to make it again
//! (after Mitchell 2019, "Model Cards for Model Reporting"). Knows only the facts that it is given.

use std::fmt::Write as _;

use ichd_plugin::label::{Label, N_LABELS};

use super::table::{Align, Table, markdown_escaped};
use super::{confusion_table, decimal, grouped, label_table, millions};
use crate::measure::calibrate::{Fit, Method};
use crate::measure::metrics::{Interval, Metrics};
use crate::measure::operating::Rule;
use crate::results::NOTICE;

/// What holds for every model of this program; what the split says and a card's own limits follow.
pub const LIMITS: [&str; 4] = [
    "It scores single slices and sees no neighboring slice; studies are summarized by rules, not by training.",
    "Labels are taken for the truth, their errors included, and of the rare ones there are few positive patients.",
    "Calibration and predictive values hold for the prevalence of the validation slices.",
    "No subgroup (age, sex, scanner, operation, artifact) was looked at.",
];

/// What holds where no patient is on both sides.
const OTHER_PATIENTS: &str = "The validation slices are of other patients, but of the same sources as the training slices. \
                              Models of this kind lose much accuracy on other hospitals' scans: measure it there before you \
                              use it there.";

/// A part of the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Slices, each counted once.
    pub slices: u64,
    /// Studies, if known.
    pub studies: Option<u64>,
    /// Patients, if known.
    pub patients: Option<u64>,
    /// SHA-256 of the list of its slices, which names the split.
    pub sha256: String,
}

/// Everything that a card says. Texts are plain; nothing in them is taken as markup.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of its backbone.
    pub backbone: String,
    /// Its parameters, head included.
    pub parameters: u64,
    /// SHA-256 of its weights.
    pub weights_sha256: String,
    /// Where training began, such as the source of pretrained weights with their licence, or "random weights, seed 7".
    pub start: String,
    /// Name and version of the program, and the day.
    pub made_by: String,
    /// Name and source of the data set.
    pub data: String,
    /// Licence of the data set, as far as known.
    pub data_license: String,
    /// SHA-256 of the data set's index: slices and labels.
    pub data_sha256: String,
    /// How it was split.
    pub split: String,
    /// Patients with slices in both parts.
    pub shared_patients: u64,
    /// Training part.
    pub training: DataFacts,
    /// Validation part.
    pub validation: DataFacts,
    /// Windows, side, normalization and the training's settings, in order.
    pub settings: Vec<(String, String)>,
    /// Names the slices of `metrics`.
    pub evaluated_on: String,
    /// Metrics with the probabilities as the daemon gives them.
    pub metrics: &'a Metrics,
    /// Intervals of its AUROCs.
    pub intervals: Option<&'a [Option<Interval>; N_LABELS]>,
    /// Method and outcome of the calibration, and the slices that it was fitted on; None if not calibrated.
    pub calibration: Option<(Method, &'a Fit, String)>,
    /// How the operating points of `metrics` were chosen, and on which slices; None if they are 0.5.
    pub rule: Option<(Rule, String)>,
    /// Limits of this model, after those of all models.
    pub limits: Vec<String>,
    /// Commands that make it again.
    pub repeat: Vec<String>,
}

fn part(facts: &DataFacts) -> String {
    let mut text = format!("{} slices", grouped(facts.slices));
    for (count, what) in [(facts.studies, "studies"), (facts.patients, "patients")] {
        if let Some(count) = count {
            let _ = write!(text, ", {} {what}", grouped(count));
        }
    }
    text
}

/// A line of a table of two columns.
fn fact(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "| {} | {} |", markdown_escaped(name), markdown_escaped(value));
}

fn facts(out: &mut String, rows: &[(&str, String)]) {
    out.push_str("| | |\n| :--- | :--- |\n");
    rows.iter().for_each(|(name, value)| fact(out, name, value));
}

fn section(out: &mut String, title: &str) {
    let _ = write!(out, "\n## {title}\n\n");
}

fn list(out: &mut String, items: impl Iterator<Item = String>) {
    for item in items {
        let _ = writeln!(out, "- {}", markdown_escaped(&item));
    }
}

impl Card<'_> {
    /// The content of the Markdown file.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {} {}\n\n", markdown_escaped(&self.name), markdown_escaped(&self.version));
        let _ = write!(
            out,
            "**{NOTICE}**\n\nScores single head-CT slices for six labels: {}.\n",
            Label::ALL.map(Label::name).join(", ")
        );
        section(&mut out, "Model");
        let rows = [
            ("Backbone", self.backbone.clone()),
            ("Parameters", format!("{} ({})", millions(self.parameters), grouped(self.parameters))),
            ("Weights, SHA-256", self.weights_sha256.clone()),
            ("Trained from", self.start.clone()),
            ("Made by", self.made_by.clone()),
        ];
        facts(&mut out, &rows);
        self.use_section(&mut out);
        self.data_section(&mut out);
        section(&mut out, "Settings");
        let settings: Vec<(&str, String)> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        facts(&mut out, &settings);
        self.metrics_section(&mut out);
        self.calibration_section(&mut out);
        section(&mut out, "Limits");
        let patients = match self.shared_patients {
            0 => OTHER_PATIENTS.to_owned(),
            shared => self.leak(shared),
        };
        // The leak first: it concerns every number above.
        let first = if self.shared_patients > 0 { 0 } else { 1 };
        let mut limits: Vec<String> =
            LIMITS.into_iter().map(str::to_owned).chain(self.limits.iter().cloned()).collect();
        limits.insert(first, patients);
        list(&mut out, limits.into_iter());
        section(&mut out, "How to repeat");
        // Indented code ends nowhere but at the next unindented line, whatever a command contains.
        for line in self.repeat.iter().flat_map(|command| command.lines()) {
            let _ = writeln!(out, "    {line}");
        }
        out
    }

    /// What must be said where patients are on both sides.
    fn leak(&self, shared: u64) -> String {
        let of = self.validation.patients.map_or(String::new(), |all| format!(" of the {}", grouped(all)));
        format!(
            "This split leaks: {}{of} patients of the validation slices have slices in the training part, too. Slices of a \
             patient are almost alike, so all figures of this card are too good and say nothing about new patients.",
            grouped(shared)
        )
    }

    fn use_section(&self, out: &mut String) {
        section(out, "Intended use");
        let _ = writeln!(
            out,
            "{NOTICE} For research on the detection of intracranial hemorrhage: comparing networks,\n\
             studying the order of worklists on past data, teaching. Not for diagnosis or decisions about a patient, not as\n\
             the only reader of anything, not for images other than axial head CT without contrast agent."
        );
    }

    fn data_section(&self, out: &mut String) {
        section(out, "Data");
        let mut rows = vec![
            ("Data set", self.data.clone()),
            ("License", self.data_license.clone()),
            ("Index, SHA-256", self.data_sha256.clone()),
            ("Split", self.split.clone()),
            ("Training", part(&self.training)),
            ("Training split, SHA-256", self.training.sha256.clone()),
            ("Validation", part(&self.validation)),
            ("Validation split, SHA-256", self.validation.sha256.clone()),
        ];
        if self.shared_patients > 0 {
            rows.push(("Patients in both parts", grouped(self.shared_patients)));
        }
        facts(out, &rows);
    }

    fn metrics_section(&self, out: &mut String) {
        section(out, "Metrics");
        let caption = format!("Evaluated on {}", self.evaluated_on);
        out.push_str(&label_table(&caption, self.metrics, self.intervals).markdown());
        if self.intervals.is_some() {
            out.push_str("\nIntervals: 95 %, from resampled patients (cluster bootstrap, percentiles).\n");
        }
        let chosen = match &self.rule {
            None => "Operating points: 0.5, not chosen".to_owned(),
            Some((Rule::Youden, on)) => format!("Operating points: highest sensitivity + specificity on {on}"),
            Some((Rule::Sensitivity(wanted), on)) => {
                format!("Operating points: highest specificity with a sensitivity of at least {wanted} on {on}")
            }
        };
        out.push('\n');
        out.push_str(&confusion_table(&chosen, self.metrics).markdown());
    }

    fn calibration_section(&self, out: &mut String) {
        section(out, "Calibration");
        let Some((method, fit, fitted_on)) = &self.calibration else {
            out.push_str("None: probabilities are the network's own.\n");
            return;
        };
        let method = match method {
            Method::Temperature => {
                "Temperature scaling: probability = sigmoid(scale x logit), one scale for all labels."
            }
            Method::Platt => "Platt scaling: probability = sigmoid(scale x logit + shift).",
        };
        use Align::{Left, Right};
        let columns =
            [("label", Left), ("scale", Right), ("shift", Right), ("log loss before", Right), ("after", Right)];
        let mut table = Table::new(format!("Fitted on {fitted_on}"), &columns);
        for (idx, label) in Label::ALL.into_iter().enumerate() {
            let (one, line) = (fit.labels[idx], &fit.calibration);
            let numbers = [line.scale[idx], line.shift[idx]].map(|number| decimal(Some(f64::from(number)), 4));
            let losses = [one.before, one.after].map(|loss| decimal(loss, 5));
            let cells = [label.name().to_owned()].into_iter().chain(numbers).chain(losses);
            table.rows.push(cells.map(Into::into).collect());
        }
        table.notes = fit.remarks();
        if *fitted_on == self.evaluated_on {
            let sentence = "Fitted on the slices of the metrics above, which therefore flatter log loss, Brier score and \
                            calibration error a little.";
            table.notes.push(sentence.into());
        }
        let _ = write!(out, "{method}\n\n{}", table.markdown());
    }
}

#[cfg(test)]
mod tests {
    use super::super::evaluation::tests::metrics_of_eight;
    use super::super::tests::check;
    use super::*;
    use crate::measure::calibrate;

    fn facts_of(slices: u64, sha256: &str) -> DataFacts {
        DataFacts { slices, studies: None, patients: Some(slices / 40), sha256: sha256.into() }
    }

    fn card<'a>(metrics: &'a Metrics, fit: &'a Fit) -> Card<'a> {
        Card {
            name: "head_1".into(),
            version: "2026-11-24".into(),
            backbone: "resnet50".into(),
            parameters: 23_520_326,
            weights_sha256: "0a1b".into(),
            start: "random weights, seed 7".into(),
            made_by: "ichd 0.1.0".into(),
            data: "synthetic heads | of seed 1".into(),
            data_license: "none".into(),
            data_sha256: "2c3d".into(),
            split: "by patient, fold 0 of 5".into(),
            shared_patients: 0,
            training: facts_of(8000, "4e5f"),
            validation: facts_of(2000, "6071"),
            settings: vec![("epochs".into(), "10".into()), ("optimizer".into(), "Adam, 1e-4".into())],
            evaluated_on: "the validation split".into(),
            metrics,
            intervals: None,
            calibration: Some((Method::Platt, fit, "the validation split".into())),
            rule: Some((Rule::default(), "the validation split".into())),
            limits: vec!["Heads are <synthetic>.".into()],
            repeat: vec![
                "ichd phantom --out heads --seed 1".into(),
                "ichd train --data heads \\\n  --labels heads.csv".into(),
            ],
        }
    }

    fn fit() -> Fit {
        let logits: Vec<[f32; 6]> = (0..8u8).map(|k| [f32::from(k) - 3.5; 6]).collect();
        let targets: Vec<[bool; 6]> =
            (0..8).map(|k| [k > 4 || k == 2, k > 4 || k == 2, true, k > 3, k < 4, false]).collect();
        calibrate::fit(Method::Platt, &logits, &targets).unwrap()
    }

    #[test]
    fn the_card_looks_like_this() {
        let (metrics, fit) = (metrics_of_eight(), fit());
        check(&card(&metrics, &fit).markdown(), "card.md");
    }

    #[test]
    fn what_was_not_done_is_said() {
        let (metrics, fit) = (metrics_of_eight(), fit());
        let text = Card { calibration: None, rule: None, ..card(&metrics, &fit) }.markdown();
        assert!(text.contains("None: probabilities are the network's own."));
        assert!(text.contains("Operating points: 0.5, not chosen"));
        assert!(text.contains(NOTICE) && !text.contains("flatter"));
    }

    #[test]
    fn patients_on_both_sides_are_told() {
        let (metrics, fit) = (metrics_of_eight(), fit());
        let text = Card { split: "by slice".into(), shared_patients: 48, ..card(&metrics, &fit) }.markdown();
        assert!(text.contains("This split leaks: 48 of the 50 patients of the validation slices"), "{text}");
        assert!(text.contains("| Patients in both parts | 48 |") && !text.contains("of other patients"), "{text}");
    }
}
