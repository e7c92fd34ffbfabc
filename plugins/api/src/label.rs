//! The six labels and their fixed order.

use std::fmt;

/// What a slice is scored for. The order is that of every logit vector, weight file and result file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// Any hemorrhage at all.
    Any,
    /// Between skull and dura.
    Epidural,
    /// In the brain's tissue.
    Intraparenchymal,
    /// In the ventricles.
    Intraventricular,
    /// In the sulci and cisterns.
    Subarachnoid,
    /// Between dura and brain.
    Subdural,
}

/// Number of labels, and so of logits.
pub const N_LABELS: usize = 6;

impl Label {
    /// All labels in their fixed order.
    pub const ALL: [Label; N_LABELS] = [
        Label::Any,
        Label::Epidural,
        Label::Intraparenchymal,
        Label::Intraventricular,
        Label::Subarachnoid,
        Label::Subdural,
    ];

    /// The five subtypes: every label but `any`.
    pub const SUBTYPES: [Label; N_LABELS - 1] =
        [Label::Epidural, Label::Intraparenchymal, Label::Intraventricular, Label::Subarachnoid, Label::Subdural];

    /// The word used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Label::Any => "any",
            Label::Epidural => "epidural",
            Label::Intraparenchymal => "intraparenchymal",
            Label::Intraventricular => "intraventricular",
            Label::Subarachnoid => "subarachnoid",
            Label::Subdural => "subdural",
        }
    }

    /// The label of that name.
    pub fn from_name(name: &str) -> Option<Label> {
        Label::ALL.into_iter().find(|label| label.name() == name)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
