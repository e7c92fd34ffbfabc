//! Logs to standard error, for people or for machines, and what they may hold. Knows no message.
//!
//! A file's name and folders are often a patient's name. Logs call a file by a tag instead, unless `log.file_names` is
//! on, and a panic shows its message only if that was written in the source: what is made at run time may quote values.

use std::fmt;
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Log, LogFormat};
use crate::flood::FloodGate;
use crate::identity::sha256;

/// Whether files go by their names. For the whole process, as the log is.
static FILE_NAMES: AtomicBool = AtomicBool::new(false);

/// Starts logging. A second call in one process changes nothing.
pub fn start(log: &Log, verbose: u8) {
    let filter = match verbose {
        0 => log.filter.clone(),
        1 => "info,ichd=debug".into(),
        _ => "info,ichd=trace".into(),
    };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.and(filter_fn(is_fit)).and(FloodGate);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = layer.with_ansi(std::io::stderr().is_terminal());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => layer.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    };
    // Only a second start can fail, and then the first one serves.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        FILE_NAMES.store(log.file_names, Ordering::Relaxed);
        panic::set_hook(Box::new(|info| eprintln!("{}", panic_line(info))));
    }
}

/// The libraries below speak of their own affairs, paths included; only their warnings matter here. Readers of DICOM
/// quote values even in those.
fn is_fit(event: &Metadata<'_>) -> bool {
    let target = event.target();
    if target.starts_with("ichd") { true } else { *event.level() <= Level::WARN && !target.starts_with("dicom") }
}

/// A panic without what it was about.
fn panic_line(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let said = info.payload().downcast_ref::<&'static str>().copied();
    let said = said.unwrap_or("its message is left out, because it may quote a file");
    format!("thread '{thread}' panicked at {place}: {said}")
}

/// A file as logs name it.
pub fn file(path: &Path) -> LoggedFile<'_> {
    LoggedFile { path, by_name: FILE_NAMES.load(Ordering::Relaxed) }
}

/// Whether logs name files and folders as they are.
pub fn names_files() -> bool {
    FILE_NAMES.load(Ordering::Relaxed)
}

/// A file as logs name it: the beginning of the SHA-256 of its path, or the path without control characters.
#[derive(Clone, Copy, Debug)]
pub struct LoggedFile<'p> {
    path: &'p Path,
    by_name: bool,
}

impl fmt::Display for LoggedFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.by_name {
            let digest = sha256(self.path.as_os_str().as_encoded_bytes());
            return write!(f, "file-{}", &digest[..12]);
        }
        let text = self.path.to_string_lossy();
        text.chars().try_for_each(|letter| {
            if letter.is_control() { write!(f, "{}", letter.escape_default()) } else { write!(f, "{letter}") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_by_a_tag_or_by_its_harmless_name() {
        let path = Path::new("/in/DOE^JOHN\n\u{1b}[31mERROR.dcm");
        let tag = LoggedFile { path, by_name: false }.to_string();
        assert_eq!(tag.len(), "file-".len() + 12);
        assert!(tag.starts_with("file-") && !tag.contains("DOE"), "{tag}");
        assert_ne!(tag, LoggedFile { path: Path::new("/in/other"), by_name: false }.to_string());
        let name = LoggedFile { path, by_name: true }.to_string();
        assert_eq!(name, "/in/DOE^JOHN\\n\\u{1b}[31mERROR.dcm");
    }
}
