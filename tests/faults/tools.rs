//! What the fault tests share: a small model, slices by the thousand, the program with its log in a file, a private
//! place to mount things.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use serde_json::Value;

use crate::support::{Site, files, ichd, phantoms};

/// Longest wait for anything; a passing test never comes near it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Slices of one study.
pub const STUDY: u64 = 20;

/// Number from the environment, for runs that are longer than those of the suite.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A site whose daemon scores with a network on 32 x 32 pixels, so that the daemon is what is tested.
pub fn site(after: &str, more: &str) -> Site {
    let site = Site::new(after, more);
    change_settings(&site, "model: { path: models }", "model: { path: models, name: small }");
    let folder = site.path("models/small/1");
    fs::create_dir_all(&folder).unwrap();
    static MODEL: LazyLock<(Vec<u8>, String)> = LazyLock::new(|| {
        let bytes = ichd::registry::find("mobilenet_v2").unwrap().untrained(5).to_safetensors().unwrap();
        let digest = ichd::identity::sha256(&bytes);
        let manifest = format!(
            "schema: ichd.model.v1\nbackbone: mobilenet_v2\ntrained: true\ninput_side: 32\nwindows:\n- {{level: 40, width: 80}}\n- {{level: 80, width: 200}}\n- {{level: 40, width: 380}}\nramp: linear_exact\nresampling: bilinear_antialias\nmean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\nlabels: [any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural]\npreprocessing_version: 1\nweights_sha256: {digest}\n"
        );
        (bytes, manifest)
    });
    fs::write(folder.join("weights.safetensors"), &MODEL.0).unwrap();
    fs::write(folder.join("model.yaml"), &MODEL.1).unwrap();
    site
}

/// Replaces a piece of the site's `daemon.yaml`.
pub fn change_settings(site: &Site, from: &str, to: &str) {
    let path = site.path("daemon.yaml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Makes slices from one phantom: other identifiers and other pixels each, in no time.
pub struct Stamp {
    bytes: Vec<u8>,
    instance: Vec<usize>,
    study: Vec<usize>,
}

fn uid(kind: u64, number: u64) -> String {
    format!("2.25.{kind}{number:025}")
}

/// SOPInstanceUID of slice `number`.
pub fn instance_uid(number: u64) -> String {
    uid(1, number)
}

impl Stamp {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let slices = phantoms(folder.path(), 1, 9);
        let mut object = dicom_object::open_file(&slices[4]).unwrap();
        let (instance, study) = (uid(1, 777), uid(2, 777));
        for (tag, value) in [(Tag(8, 0x18), &instance), (Tag(0x20, 0xd), &study), (Tag(0x20, 0xe), &study)] {
            object.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(value.as_str())));
        }
        object.update_meta(|meta| meta.media_storage_sop_instance_uid.clone_from(&instance));
        let path = folder.path().join("template.dcm");
        object.write_to_file(&path).unwrap();
        let bytes = fs::read(path).unwrap();
        let places = |text: &str| -> Vec<usize> {
            let windows = bytes.windows(text.len()).enumerate();
            windows.filter(|(_, window)| *window == text.as_bytes()).map(|(place, _)| place).collect()
        };
        let (instance, study) = (places(&instance), places(&study));
        assert_eq!((instance.len(), study.len()), (2, 2));
        Stamp { bytes, instance, study }
    }

    /// The file of slice `number`; [`STUDY`] of them make a study.
    pub fn slice(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let uids = [(&self.instance, instance_uid(number)), (&self.study, uid(2, number / STUDY))];
        for (places, text) in uids {
            for place in places {
                bytes[*place..place + text.len()].copy_from_slice(text.as_bytes());
            }
        }
        // The last pixels lie outside of the head and are still part of the picture.
        let end = bytes.len();
        bytes[end - 8..].copy_from_slice(&number.to_le_bytes());
        bytes
    }
}

/// Puts bytes into a folder as a receiver does: written under a hidden name, then renamed.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let hidden = folder.join(format!(".{name}"));
    fs::write(&hidden, bytes).unwrap();
    fs::rename(hidden, folder.join(name)).unwrap();
}

/// Puts slices into the inbox.
pub fn put_slices(site: &Site, stamp: &Stamp, numbers: std::ops::Range<u64>) {
    for number in numbers {
        put(&site.path("inbox"), &format!("{number}.dcm"), &stamp.slice(number));
    }
}

/// The program, with its log in a file: a pipe that nobody reads would hold it up.
pub struct Program {
    pub child: Child,
    log: PathBuf,
}

impl Program {
    /// `ichd run` on the site, behind the words of another command.
    pub fn start_behind(site: &Site, words: &[&str], environment: &[(&str, &Path)]) -> Program {
        let daemon = ichd();
        let arguments = ["run".into(), "--config".into(), site.path("daemon.yaml").into_os_string()];
        let mut command = match words {
            [] => daemon,
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(daemon.get_program()).env_remove("RUST_LOG");
                command
            }
        };
        command.args(arguments).envs(environment.iter().copied());
        Program::spawn(site, command)
    }

    pub fn start(site: &Site) -> Program {
        Program::start_behind(site, &[], &[])
    }

    pub fn spawn(site: &Site, mut command: Command) -> Program {
        let log = site.path("daemon.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Program { child, log }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// All that was ever logged on this site.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, and tells exit code and signal.
    pub fn ended(&mut self) -> (Option<i32>, Option<i32>) {
        let status = self.end();
        (status.code(), status.signal())
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.log()
    }

    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(self.is_running(), "it ended before {what}: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "waited for {what} in vain: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_for_log(&mut self, words: &str) {
        self.wait_for_log_times(words, 1);
    }

    pub fn wait_for_log_times(&mut self, words: &str, times: usize) {
        let log = self.log.clone();
        let count = || fs::read_to_string(&log).map_or(0, |text| text.matches(words).count());
        self.wait_until(words, || count() >= times);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Slice results by file, read as bytes.
pub fn results(folder: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let is_slice = |file: &PathBuf| {
        file.extension().is_some_and(|e| e == "json") && file.file_name().is_some_and(|name| name != "study.json")
    };
    let slices = files(folder).into_iter().filter(is_slice);
    slices.map(|file| (file.clone(), fs::read(&file).unwrap())).collect()
}

/// Every name below a folder that is a temporary file's.
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        } else if entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    found
}

/// Slices 0 to `n` are through, each once, and nothing else is there. `folder` holds the site's folders.
pub fn assert_all_done_once(folder: &Path, n: u64) {
    let found = results(&folder.join("results"));
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for (file, bytes) in &found {
        let result: Value = serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        *numbers.entry(result["instance_uid"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for number in 0..n {
        assert_eq!(numbers.get(&instance_uid(number)), Some(&1), "slice {number} of {n}");
    }
    assert_eq!(found.len() as u64, n);
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut seqs = Vec::new();
    for log in files(&folder.join("results/log")) {
        for line in fs::read_to_string(&log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            *lines.entry(line["instance_uid"].as_str().unwrap().to_owned()).or_default() += 1;
            seqs.push(line["seq"].as_i64().unwrap());
        }
    }
    assert!(lines.values().all(|count| *count == 1) && lines.len() as u64 == n, "{} log lines for {n}", seqs.len());
    seqs.sort_unstable();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "numbers of lines repeat");
    for study in files(&folder.join("results")).iter().filter(|file| file.ends_with("study.json")) {
        serde_json::from_slice::<Value>(&fs::read(study).unwrap()).unwrap();
    }
    for part in ["results", "done", "rejected", "inbox"] {
        assert_eq!(leftovers(&folder.join(part)), Vec::<PathBuf>::new(), "temporary files stayed in {part}");
    }
}

/// A mount namespace of its own, in which file systems can be mounted that nobody else sees.
pub struct Mounts {
    holder: Child,
}

impl Mounts {
    /// Makes one, or says why not. Where ICHD_REQUIRE_MOUNTS is set it must be possible.
    pub fn new() -> Option<Mounts> {
        // As root at once; otherwise as root of a user namespace.
        for words in [&["--mount"][..], &["--mount", "--user", "--map-root-user"]] {
            let mut command = Command::new("unshare");
            command.args(words).args([
                "--propagation",
                "private",
                "sh",
                "-c",
                "mount -t tmpfs none /mnt && echo ready && exec sleep 3600",
            ]);
            let Ok(mut holder) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else { continue };
            let mut said = [0; 5];
            let is_ready = std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).is_ok();
            if is_ready && &said == b"ready" {
                return Some(Mounts { holder });
            }
            let _ = holder.kill();
            let _ = holder.wait();
        }
        assert!(std::env::var_os("ICHD_REQUIRE_MOUNTS").is_none(), "no file systems can be mounted here");
        println!("skipped: no file systems can be mounted here (needs root or user namespaces)");
        None
    }

    /// Words before a command that is to run in it.
    pub fn words(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let words = ["nsenter", "--target", &pid, "--mount", "--preserve-credentials"];
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        if fs::read_link("/proc/self/ns/user").ok() != fs::read_link(format!("/proc/{pid}/ns/user")).ok() {
            words.push("--user".into());
        }
        words
    }

    /// Runs a command in it.
    pub fn run(&self, command: &str) {
        let words = self.words();
        let status = Command::new(&words[0]).args(&words[1..]).args(["sh", "-ec", command]).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// How a path inside of it is called outside of it.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        PathBuf::from(root + path.to_str().unwrap())
    }

    pub fn start(&self, site: &Site) -> Program {
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Program::start_behind(site, &words, &[])
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Numbers without a pattern that follow from a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Writes a file in two halves, with a pause while it is open.
pub fn write_slowly(path: &Path, bytes: &[u8], pause: Duration) {
    let mut file = fs::File::create(path).unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first).unwrap();
    std::thread::sleep(pause);
    file.write_all(second).unwrap();
}
