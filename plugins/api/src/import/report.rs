//! What became of every tensor of a file and of a network. Knows neither.

/// Why a tensor of the file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The classifier of another task, such as ImageNet's; a fresh head stands in its place.
    Classifier,
    /// A part that only training used, such as an auxiliary classifier, or layers before the classifier.
    LeftOut,
    /// A count of batches, which scoring does not need.
    Counter,
    /// Keras' normalization of the input, which the model's mean and deviation replace.
    InputNormalization,
    /// State of an optimizer or of a random generator.
    Training,
    /// No tensor.
    NoTensor,
}

impl Dropped {
    /// The reason for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Dropped::Classifier => "the classifier of another task, or one that --keep-head would keep",
            Dropped::LeftOut => "no part of the network as we use it",
            Dropped::Counter => "a count of batches",
            Dropped::InputNormalization => "normalization of the input; mean and std of the model replace it",
            Dropped::Training => "state of the training",
            Dropped::NoTensor => "no tensor",
        }
    }
}

/// A tensor of the network that came from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Our name.
    pub name: String,
    /// The file's name.
    pub from: String,
    /// What was done to it beyond reading.
    pub done: &'static str,
}

/// What became of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors that came from the file.
    pub used: Vec<Used>,
    /// Tensors that were made afresh, with how.
    pub fresh: Vec<(String, String)>,
    /// Names of the file that are not used, and why.
    pub dropped: Vec<(String, Dropped)>,
    /// What was decided on the way, for people.
    pub notes: Vec<String>,
}
