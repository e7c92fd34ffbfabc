//! The text of a `daemon.yaml`.
#![no_main]

use ichd_fuzz::bounded;
use ichd_fuzz::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match bounded(text.len(), 4096, 16 << 20, || Config::from_text(text)) {
        Ok(config) => {
            assert!(!config.windows.is_empty() && config.batch.slices_max > 0);
            assert!(!config.kernel_windows().is_empty());
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            // YAML takes more letters than one for the end of a line, and the end of the text for a line more.
            let n_lines = 2 + text.chars().filter(|letter| "\n\r\u{85}\u{2028}\u{2029}".contains(*letter)).count();
            for problem in problems {
                assert!(!problem.sentence.is_empty());
                assert!(problem.line.is_none_or(|line| (1..=n_lines).contains(&line)), "line {:?}", problem.line);
            }
        }
    }
});
