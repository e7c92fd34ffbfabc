//! A site in a temporary folder, the real program on it, and phantoms to feed it.

pub mod heap;
pub mod model;
pub mod pth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ichd::phantom::{PhantomOptions, write_dataset};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything; a passing test never comes near it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Site {
    pub folder: TempDir,
}

impl Site {
    /// A site whose settings are short of waits; `more` is appended to its `daemon.yaml`.
    pub fn new(after: &str, more: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "inbox: {{ path: inbox, settle_ms: 100, scan_secs: 1, after: {after}, done_path: done, rejected_path: rejected }}\n\
             results: {{ path: results, study_quiet_secs: 1 }}\nledger: {{ path: ledger.sqlite }}\nmodel: {{ path: models }}\n\
             device: cpu\n{more}"
        );
        fs::write(folder.path().join("daemon.yaml"), text).unwrap();
        fs::create_dir(folder.path().join("inbox")).unwrap();
        Site { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self) -> Daemon {
        let child =
            ichd().args(["run", "--config"]).arg(self.path("daemon.yaml")).stderr(Stdio::piped()).spawn().unwrap();
        Daemon { child }
    }

    /// Puts a file into the inbox as a receiver does: written under a hidden name, then renamed.
    pub fn drop_file(&self, file: &Path, name: &str) {
        let hidden = self.path("inbox").join(format!(".{name}"));
        fs::copy(file, &hidden).unwrap();
        fs::rename(hidden, self.path("inbox").join(name)).unwrap();
    }

    /// All slice results, read.
    pub fn results(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for file in files(&self.path("results")) {
            let is_slice =
                file.extension().is_some_and(|e| e == "json") && file.file_name().is_some_and(|n| n != "study.json");
            if is_slice {
                found.push(serde_json::from_slice(&fs::read(&file).unwrap()).unwrap());
            }
        }
        found
    }

    /// Lines of the daily logs.
    pub fn log_lines(&self) -> Vec<Value> {
        let logs = files(&self.path("results/log"));
        let text: String = logs.iter().map(|log| fs::read_to_string(log).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Site) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited for {what} in vain");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
}

impl Daemon {
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Asks it to stop and gives its exit code and log.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        use std::io::Read;
        self.signal(signal);
        let mut log = String::new();
        let stderr = self.child.stderr.take();
        stderr.unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, without what the environment of a test run might set.
pub fn ichd() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ichd"));
    command.env_remove("RUST_LOG").current_dir(std::env::temp_dir());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    ichd().args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All regular files below a folder, none if there is no such folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_dir() { ichd::watch::list_files(folder).unwrap() } else { Vec::new() }
}

/// Small phantoms; the paths of the slices.
pub fn phantoms(folder: &Path, studies: usize, slices: usize) -> Vec<PathBuf> {
    let options = PhantomOptions {
        studies,
        seed: 11,
        bleed_share: 1.0,
        side: 64,
        slices: slices..=slices,
        ..PhantomOptions::default()
    };
    write_dataset(folder, &options, &|_, _| {}).unwrap();
    files(folder).into_iter().filter(|file| file.extension().is_some_and(|e| e == "dcm")).collect()
}

/// A JSON Schema.
pub fn schema(text: &str) -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
}

/// Holds a file against its schema.
pub fn assert_valid(validator: &jsonschema::Validator, value: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}\n{value:#}");
}

/// A file of the committed test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom").join(name)
}

impl Daemon {
    /// Waits for an end of its own accord.
    pub fn stop_by_itself(mut self) -> (Option<i32>, String) {
        use std::io::Read;
        let mut log = String::new();
        let stderr = self.child.stderr.take();
        stderr.unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}
