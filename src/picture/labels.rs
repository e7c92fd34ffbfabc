//! How probabilities and truth stand below a slice on a sheet.

use ichd_plugin::label::{Label, N_LABELS};

/// A name that fits beside its bar.
pub fn short(label: Label) -> &'static str {
    match label {
        Label::Intraparenchymal => "parenchymal",
        Label::Intraventricular => "ventricular",
        other => other.name(),
    }
}

/// Bars of a slice's probabilities.
pub fn label_bars(probabilities: [f32; N_LABELS]) -> Vec<(String, f32)> {
    Label::ALL.iter().zip(probabilities).map(|(label, value)| (short(*label).to_owned(), value)).collect()
}

/// The subtypes that a slice really has.
pub fn truth_note(truth: &[bool; N_LABELS]) -> String {
    let names: Vec<&str> = Label::SUBTYPES.into_iter().filter(|label| truth[*label as usize]).map(short).collect();
    match (names.is_empty(), truth[Label::Any as usize]) {
        (false, _) => format!("truth: {}", names.join(", ")),
        (true, true) => "truth: blood".to_owned(),
        (true, false) => "truth: no blood".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_in_words() {
        let of = |labels: &[Label]| truth_note(&Label::ALL.map(|label| labels.contains(&label)));
        assert_eq!(of(&[]), "truth: no blood");
        assert_eq!(of(&[Label::Any]), "truth: blood");
        assert_eq!(of(&[Label::Any, Label::Intraventricular, Label::Subdural]), "truth: ventricular, subdural");
    }
}
