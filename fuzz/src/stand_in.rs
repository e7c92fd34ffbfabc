//! The few types of settings whose own files need the tensor library. Same names, same words in files.

use serde::{Deserialize, Serialize};

/// `ichd_kernels::Window`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Window {
    pub level: f32,
    pub width: f32,
}

/// `ichd_kernels::Ramp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ramp {
    LinearExact,
    Linear,
}

/// `ichd_plugin::spec`.
pub mod spec {
    use super::{Deserialize, Serialize};

    /// `ichd_plugin::spec::Precision`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[allow(missing_docs)]
    pub enum Precision {
        F32,
        F16,
        Bf16,
    }

    impl Precision {
        /// As settings name it.
        pub const fn name(self) -> &'static str {
            match self {
                Precision::F32 => "f32",
                Precision::F16 => "f16",
                Precision::Bf16 => "bf16",
            }
        }
    }
}

/// `ichd_plugin::backbone`.
pub mod backbone {
    /// `ichd_plugin::backbone::Rule`.
    #[allow(missing_docs)]
    pub struct Rule {
        pub learning_rate: f64,
        pub weight_decay: f64,
        pub average_decay: Option<f64>,
    }
}
