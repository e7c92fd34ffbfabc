//! The setting `device`: which device is wanted. Knows none.

/// The setting `device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The first CUDA device that passes its test, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device or an error.
    Cuda(usize),
}

impl Want {
    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str) -> Result<Want, String> {
        match text {
            "auto" => Ok(Want::Auto),
            "cpu" => Ok(Want::Cpu),
            "cuda" => Ok(Want::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Want::Cuda)
                .ok_or_else(|| format!("`{text}` is no device; auto, cpu or cuda:0 would be right")),
        }
    }
}
