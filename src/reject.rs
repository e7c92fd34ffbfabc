//! Why an input is refused: a stable code for programs, the tag, and a sentence for people.

use std::fmt;

macro_rules! codes {
    ($(#[doc = $doc:literal] $variant:ident = $word:literal),+ $(,)?) => {
        /// Stable words; other programs may match on them, so they are only ever added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RejectCode { $(#[doc = $doc] $variant),+ }

        impl RejectCode {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [RejectCode] = &[$(RejectCode::$variant),+];

            /// The word that stands in files.
            pub const fn word(self) -> &'static str {
                match self { $(RejectCode::$variant => $word),+ }
            }

            /// What it means, as a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(RejectCode::$variant => $doc.trim_ascii()),+ }
            }

            /// The code of that word.
            pub fn from_word(word: &str) -> Option<RejectCode> {
                RejectCode::ALL.iter().copied().find(|code| code.word() == word)
            }
        }
    };
}

codes! {
    /// No bytes at all.
    Empty = "empty-file",
    /// Larger than `inbox.file_bytes_max`, or would grow past `admission.inflated_bytes_max` or by more than `admission.expansion_max` when decoded.
    TooLarge = "file-too-large",
    /// Could not be read, again and again.
    Unreadable = "unreadable",
    /// No DICOM Part 10 file.
    NotDicom = "not-dicom",
    /// Lengths, nesting or encoding contradict each other or the size of the file.
    Corrupt = "corrupt-dicom",
    /// Ends before the data it announces.
    Truncated = "truncated",
    /// A media directory.
    DicomDir = "dicomdir",
    /// No pixel data: a report, a plan, a structure set.
    NotAnImage = "not-an-image",
    /// Modality is not CT.
    WrongModality = "wrong-modality",
    /// SOP class is not CT or enhanced CT.
    WrongSopClass = "wrong-sop-class",
    /// A localizer (scout, topogram).
    Localizer = "localizer",
    /// A derived picture: screen save, dose report, reformat.
    Derived = "derived-image",
    /// Colour, or a palette.
    NotMonochrome = "not-monochrome",
    /// Rows or columns missing, zero or outside the limits.
    BadSize = "bad-size",
    /// Bits allocated, stored and high bit do not fit together or are not supported.
    BadBits = "bad-bits",
    /// Rescale slope is zero, or slope or intercept is not a number.
    BadRescale = "bad-rescale",
    /// Fewer pixels than rows times columns.
    ShortPixels = "short-pixels",
    /// The transfer syntax is not supported.
    UnsupportedTransferSyntax = "unsupported-transfer-syntax",
    /// The compressed pixel data cannot be decoded.
    BadPixelData = "bad-pixel-data",
    /// A required tag is missing or empty.
    MissingTag = "missing-tag",
    /// More frames than the limit.
    TooManyFrames = "too-many-frames",
    /// The same SOPInstanceUID came before with another picture.
    UidConflict = "uid-conflict",
    /// The network gave no usable number for it.
    BadOutput = "non-finite-output",
    /// Processing it failed again and again.
    Poison = "poison",
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A refusal. The sentence holds no patient data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {sentence}{}", .tag.as_deref().map(|t| format!(" [{t}]")).unwrap_or_default())]
pub struct Rejection {
    /// For programs.
    pub code: RejectCode,
    /// The tag at fault, as `(gggg,eeee) Keyword`.
    pub tag: Option<String>,
    /// For people.
    pub sentence: String,
}

impl Rejection {
    /// A refusal that no single tag explains.
    pub fn new(code: RejectCode, sentence: impl Into<String>) -> Self {
        Rejection { code, tag: None, sentence: sentence.into() }
    }

    /// A refusal because of one tag, named as `(gggg,eeee) Keyword`.
    pub fn of_tag(code: RejectCode, tag: impl Into<String>, sentence: impl Into<String>) -> Self {
        Rejection { code, tag: Some(tag.into()), sentence: sentence.into() }
    }
}
