//! Logs to standard error, for people or for machines, and what they may hold. Knows no message.
//!
//! A file's name and folders are often a patient's name. Logs call a file by a tag instead, unless `log.file_names` is
//! on, and a panic shows its message only if that was written in the source: what is made at run time may quote values.
//!
//! Whoever reads the log may be slow, or gone with the pipe still open. A thread of its own writes the lines; who logs waits
//! for it as long as it writes, so that no line is missing at the end, and does not wait for one that is stuck.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
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
    let layer = tracing_subscriber::fmt::layer().with_writer(|| &*OUTLET);
    let layer = layer.with_ansi(io::stderr().is_terminal());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => layer.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    };
    // Only a second start can fail, and then the first one serves.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        FILE_NAMES.store(log.file_names, Ordering::Relaxed);
        panic::set_hook(Box::new(|info| say(&panic_line(info))));
    }
}

/// A line on standard error that is no part of the log. Like the log it waits for no reader who is stuck.
pub fn say(line: &str) {
    OUTLET.put(format!("{line}\n").as_bytes());
}

/// Lines that found no reader since this was asked last, once there is one again.
pub fn lost() -> u64 {
    if OUTLET.is_stuck.load(Ordering::Relaxed) { 0 } else { OUTLET.lost.swap(0, Ordering::Relaxed) }
}

/// Lines that are kept for a reader who is stuck.
const LINES_KEPT: usize = 1000;

/// A reader who takes longer for a line is stuck.
const READER_PATIENCE: Duration = Duration::from_millis(500);

/// Standard error.
static OUTLET: LazyLock<Outlet> = LazyLock::new(|| Outlet::new(io::stderr(), LINES_KEPT, READER_PATIENCE));

/// Where lines go, one after the other.
struct Outlet {
    lines: Sender<Line>,
    patience: Duration,
    is_stuck: Arc<AtomicBool>,
    lost: AtomicU64,
}

struct Line {
    bytes: Vec<u8>,
    /// Dropped when it is written.
    _unwritten: Sender<()>,
}

impl Outlet {
    fn new(mut to: impl Write + Send + 'static, kept: usize, patience: Duration) -> Outlet {
        let (lines, for_writer): (Sender<Line>, Receiver<Line>) = bounded(kept);
        let is_stuck = Arc::new(AtomicBool::new(false));
        let goes_on = Arc::clone(&is_stuck);
        let write = move || {
            for line in for_writer {
                // A log that cannot be written has nowhere to say so.
                let _ = to.write_all(&line.bytes).and_then(|()| to.flush());
                goes_on.store(false, Ordering::Relaxed);
            }
        };
        // Without the thread all lines are lost, which is told by nobody; but then no stage of the daemon starts either.
        let _ = std::thread::Builder::new().name("log".into()).spawn(write);
        Outlet { lines, patience, is_stuck, lost: AtomicU64::new(0) }
    }

    fn put(&self, line: &[u8]) {
        let (unwritten, written) = bounded(0);
        match self.lines.try_send(Line { bytes: line.to_vec(), _unwritten: unwritten }) {
            Ok(()) if self.is_stuck.load(Ordering::Relaxed) => {}
            // Nothing is ever sent.
            Ok(()) => {
                if written.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
                    self.is_stuck.store(true, Ordering::Relaxed);
                    // Or it was only slow, as in a process that was stopped as a whole.
                    if written.try_recv() == Err(TryRecvError::Disconnected) {
                        self.is_stuck.store(false, Ordering::Relaxed);
                    }
                }
            }
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Write for &Outlet {
    /// Each line comes whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Libraries whose very warnings quote what may be a patient's: readers of DICOM values, the watcher paths.
const NEVER: [&str; 2] = ["dicom", "notify"];

/// The libraries below speak of their own affairs, paths included; only their warnings matter here, and not all of those.
fn is_fit(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let is_ours = target.starts_with("ichd");
    is_ours || (*event.level() <= Level::WARN && !NEVER.iter().any(|library| target.starts_with(library)))
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
    use std::sync::Mutex;

    use super::*;

    /// Takes so many lines, then none until it may go on.
    struct Reader {
        at_once: usize,
        read: Arc<Mutex<Vec<String>>>,
        go_on: Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.at_once == 0 {
                let _ = self.go_on.recv();
            }
            self.at_once = self.at_once.saturating_sub(1);
            self.read.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_when_put_and_a_reader_who_is_stuck_costs_lines_and_no_time() {
        let ((may_go, go_on), read) = (bounded(0), Arc::default());
        let reader = Reader { at_once: 5, read: Arc::clone(&read), go_on };
        let outlet = Outlet::new(reader, 10, Duration::from_millis(50));
        for number in 0..5 {
            outlet.put(format!("{number}").as_bytes());
            assert_eq!(read.lock().unwrap().len(), number + 1, "it is written by now");
        }
        let begun = std::time::Instant::now();
        (5..105).for_each(|number| outlet.put(format!("{number}").as_bytes()));
        assert!(begun.elapsed() < Duration::from_secs(5), "a hundred lines waited for a reader who is stuck");
        // One is being written, ten are kept.
        assert_eq!(outlet.lost.load(Ordering::Relaxed), 89);
        drop(may_go);
        while read.lock().unwrap().len() < 16 {
            std::thread::yield_now();
        }
        while outlet.is_stuck.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        outlet.put(b"again");
        let expected: Vec<String> = (0..16).map(|number| number.to_string()).chain(["again".into()]).collect();
        assert_eq!(*read.lock().unwrap(), expected);
    }

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
