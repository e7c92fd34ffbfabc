//! `daemon.yaml`: what was written, checked as a whole, with every problem named at its line.
//! Knows no folder's content; `ichd check` looks at those.

mod routes;

use std::path::{Path, PathBuf};

use ichd_kernels::{Ramp, Window};
use ichd_plugin::spec::Precision;
use serde::{Deserialize, Serialize};

use crate::dicom::AdmissionRules;
use crate::identity::sha256;
use crate::limits::WINDOWS_MAX;
use crate::trainer::recipe::TrainSetting;
use crate::yaml::{self, Step, Value};

pub use routes::{DEFAULT_ROUTE, MatchSetting, MemberSetting, RouteSetting, Texts};

/// All settings. Field for field the keys of `daemon.yaml`, whose comments say what they mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Config {
    pub inbox: Inbox,
    pub results: Results,
    pub ledger: LedgerFile,
    pub disk: DiskSetting,
    pub retention: RetentionSetting,
    pub admission: AdmissionRules,
    pub model: ModelChoice,
    pub windows: Vec<WindowSetting>,
    pub ramp: RampSetting,
    pub routes: Vec<RouteSetting>,
    pub batch: BatchSetting,
    pub decode: DecodeSetting,
    pub limits: LimitSetting,
    pub device: String,
    pub precision: Precision,
    pub cache: CacheSetting,
    pub train: TrainSetting,
    pub metrics: MetricsSetting,
    pub log: Log,
}

/// Key `inbox`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Inbox {
    pub path: PathBuf,
    pub settle_ms: u64,
    pub scan_secs: u64,
    pub watch: Watch,
    pub file_bytes_max: u64,
    pub after: After,
    pub done_path: PathBuf,
    pub rejected_path: PathBuf,
    pub attempts_max: u32,
}

/// How new files are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// The system's file events, and scans.
    Events,
    /// Scans alone.
    Poll,
}

/// What happens to a file after its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// It stays.
    Keep,
    /// It is moved to the done or the rejected folder.
    Move,
    /// It is deleted; a refused one is moved to the rejected folder.
    Delete,
}

/// Key `results`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Results {
    pub path: PathBuf,
    pub study_quiet_secs: u64,
    pub smoothing: [f64; 3],
}

/// Key `ledger`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct LedgerFile {
    pub path: PathBuf,
}

/// Key `disk`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct DiskSetting {
    pub free_bytes_min: u64,
    pub free_bytes_resume: u64,
}

/// Key `retention`. 0 is without end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct RetentionSetting {
    pub done_days: u32,
    pub done_bytes_max: u64,
    pub rejected_days: u32,
    pub rejected_bytes_max: u64,
    pub log_days: u32,
    pub log_bytes_max: u64,
}

/// Key `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct ModelChoice {
    pub path: PathBuf,
    pub name: String,
}

/// One item of `windows`, in HU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WindowSetting {
    pub level: f32,
    pub width: f32,
}

/// Key `ramp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RampSetting {
    /// level -+ width/2.
    LinearExact,
    /// DICOM's older rule.
    Linear,
}

/// Key `batch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct BatchSetting {
    pub slices_max: usize,
    pub wait_ms_max: u64,
}

/// Key `decode`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct DecodeSetting {
    pub threads: usize,
}

/// Key `limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct LimitSetting {
    pub step_secs_max: u64,
    pub stop_secs_max: u64,
}

/// Key `cache`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct CacheSetting {
    pub path: PathBuf,
}

/// Key `metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct MetricsSetting {
    pub path: PathBuf,
    pub every_secs: u64,
}

/// Key `log`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
    pub file_names: bool,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            inbox: Inbox::default(),
            results: Results::default(),
            ledger: LedgerFile::default(),
            disk: DiskSetting::default(),
            retention: RetentionSetting::default(),
            admission: AdmissionRules::default(),
            model: ModelChoice::default(),
            windows: vec![
                WindowSetting { level: 40.0, width: 80.0 },
                WindowSetting { level: 80.0, width: 200.0 },
                WindowSetting { level: 40.0, width: 380.0 },
            ],
            ramp: RampSetting::LinearExact,
            routes: Vec::new(),
            batch: BatchSetting::default(),
            decode: DecodeSetting::default(),
            limits: LimitSetting::default(),
            device: "auto".into(),
            precision: Precision::F32,
            cache: CacheSetting::default(),
            train: TrainSetting::default(),
            metrics: MetricsSetting::default(),
            log: Log::default(),
        }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            path: "site/inbox".into(),
            settle_ms: 1000,
            scan_secs: 10,
            watch: Watch::Events,
            file_bytes_max: 512 << 20,
            after: After::Keep,
            done_path: "site/done".into(),
            rejected_path: "site/rejected".into(),
            attempts_max: 3,
        }
    }
}

impl Default for Results {
    fn default() -> Self {
        Results { path: "site/results".into(), study_quiet_secs: 60, smoothing: [0.2, 0.6, 0.2] }
    }
}

impl Default for LedgerFile {
    fn default() -> Self {
        LedgerFile { path: "site/ledger.sqlite".into() }
    }
}

impl Default for DiskSetting {
    fn default() -> Self {
        DiskSetting { free_bytes_min: 256 << 20, free_bytes_resume: 512 << 20 }
    }
}

impl Default for ModelChoice {
    fn default() -> Self {
        ModelChoice { path: "models".into(), name: "untrained".into() }
    }
}

impl Default for BatchSetting {
    fn default() -> Self {
        BatchSetting { slices_max: 16, wait_ms_max: 20 }
    }
}

impl Default for CacheSetting {
    fn default() -> Self {
        CacheSetting { path: "site/kernels".into() }
    }
}

impl Default for LimitSetting {
    fn default() -> Self {
        LimitSetting { step_secs_max: 120, stop_secs_max: 60 }
    }
}

impl Default for MetricsSetting {
    fn default() -> Self {
        MetricsSetting { path: "site/metrics.prom".into(), every_secs: 15 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Text, filter: "info".into(), file_names: false }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file from 1; `None` for what no line causes.
    pub line: Option<usize>,
    /// The key, as `inbox.settle_ms`.
    pub key: String,
    /// What is wrong and what would be right.
    pub sentence: String,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems_text(.file, .problems))]
pub struct ConfigError {
    /// Where it was read from.
    pub file: PathBuf,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// Problems as lines `file:line: key: sentence`.
pub fn problems_text(file: &Path, problems: &[Problem]) -> String {
    let line_text = |problem: &Problem| {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        format!("{}{line}: {key}{}", file.display(), problem.sentence)
    };
    problems.iter().map(line_text).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads, checks and resolves the file at `path`; relative paths in it start at its folder.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let fail = |problems| ConfigError { file: path.to_owned(), problems };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let sentence = format!(
                "cannot be read: {error}. Give another file with --config, or copy daemon.yaml from the source"
            );
            fail(vec![Problem { line: None, key: String::new(), sentence }])
        })?;
        let config = Config::from_text(&text).map_err(fail)?;
        Ok(config.resolved(path.parent().unwrap_or(Path::new(""))))
    }

    /// Reads and checks a configuration; paths stay as written.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_text(text: &str) -> Result<Config, Vec<Problem>> {
        let value = yaml::parse(text).map_err(|sentence| vec![syntax_problem(sentence)])?;
        let value = if value.is_null() { Value::Mapping(Default::default()) } else { value };
        let known = known_keys().map_err(|sentence| vec![syntax_problem(sentence)])?;
        let mut problems = Vec::new();
        yaml::compare(&value, &known, &mut Vec::new(), &mut |path, sentence| {
            problems.push(Problem { line: Some(yaml::line_of(text, path)), key: yaml::path_text(path), sentence });
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let config: Config = if matches!(&value, Value::Mapping(map) if map.is_empty()) {
            Config::default()
        } else {
            yaml::from_text(text).map_err(|sentence| vec![syntax_problem(sentence)])?
        };
        config.check(&mut |key, sentence| {
            problems.push(Problem { line: Some(line_of_key(text, key)), key: key.to_owned(), sentence });
        });
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The same with relative paths starting at `base`.
    pub fn resolved(mut self, base: &Path) -> Config {
        for path in [
            &mut self.inbox.path,
            &mut self.inbox.done_path,
            &mut self.inbox.rejected_path,
            &mut self.results.path,
            &mut self.ledger.path,
            &mut self.model.path,
            &mut self.cache.path,
            &mut self.metrics.path,
            &mut self.train.runs_path,
            &mut self.train.cache_path,
        ] {
            if path.is_relative() {
                *path = base.join(&*path);
            }
        }
        self
    }

    /// Reports values that have the right type and still make no sense.
    fn check(&self, report: &mut dyn FnMut(&str, String)) {
        self.check_numbers(report);
        self.check_disk(report);
        self.check_windows(report);
        self.check_folders(report);
        if let Err(error) = crate::device::Want::parse(&self.device) {
            report("device", error);
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.filter) {
            report("log.filter", format!("{error}; a level such as `info` would be right"));
        }
        if !routes::is_model_name(&self.model.name) {
            report("model.name", routes::MODEL_NAME_RULE.into());
        }
        routes::check(&self.routes, report);
        self.train.check(report);
    }

    fn check_numbers(&self, report: &mut dyn FnMut(&str, String)) {
        let mut range = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                report(key, format!("{value} is not possible; {least} to {most} would be right"));
            }
        };
        const DAY_SECS: u64 = 86_400;
        range("inbox.settle_ms", self.inbox.settle_ms, 1, DAY_SECS * 1000);
        range("inbox.scan_secs", self.inbox.scan_secs, 1, DAY_SECS);
        range("inbox.file_bytes_max", self.inbox.file_bytes_max, 1, 1 << 40);
        range("inbox.attempts_max", self.inbox.attempts_max.into(), 1, 1000);
        range("results.study_quiet_secs", self.results.study_quiet_secs, 0, DAY_SECS);
        range("admission.side_min", self.admission.side_min as u64, 1, self.admission.side_max as u64);
        range("admission.side_max", self.admission.side_max as u64, 1, 32_768);
        range("admission.frames_max", self.admission.frames_max as u64, 1, 100_000);
        range("admission.inflated_bytes_max", self.admission.inflated_bytes_max, 1, 1 << 40);
        range("admission.expansion_max", self.admission.expansion_max, 1, 1 << 20);
        range("batch.slices_max", self.batch.slices_max as u64, 1, 1024);
        range("batch.wait_ms_max", self.batch.wait_ms_max, 0, 60_000);
        range("decode.threads", self.decode.threads as u64, 0, 1024);
        range("metrics.every_secs", self.metrics.every_secs, 0, DAY_SECS);
        range("limits.step_secs_max", self.limits.step_secs_max, 1, DAY_SECS);
        range("limits.stop_secs_max", self.limits.stop_secs_max, 1, DAY_SECS);
        let smoothing = self.results.smoothing;
        let sum: f64 = smoothing.iter().sum();
        if smoothing.iter().any(|weight| !(0.0..=1.0).contains(weight))
            || smoothing[1] <= 0.0
            || (sum - 1.0).abs() > 1e-6
        {
            report(
                "results.smoothing",
                "must be three weights from 0 to 1 that add up to 1, the middle one above 0".into(),
            );
        }
    }

    fn check_disk(&self, report: &mut dyn FnMut(&str, String)) {
        const MIB: u64 = 1 << 20;
        let mut zero_or = |key: &str, value: u64, least: u64, most: u64| {
            if value != 0 && !(least..=most).contains(&value) {
                report(key, format!("{value} is not possible; 0 or {least} to {most} would be right"));
            }
        };
        let (disk, kept) = (&self.disk, &self.retention);
        zero_or("disk.free_bytes_min", disk.free_bytes_min, MIB, 1 << 50);
        for (key, days) in [
            ("retention.done_days", kept.done_days),
            ("retention.rejected_days", kept.rejected_days),
            ("retention.log_days", kept.log_days),
        ] {
            zero_or(key, days.into(), 1, 36_500);
        }
        for (key, bytes) in [
            ("retention.done_bytes_max", kept.done_bytes_max),
            ("retention.rejected_bytes_max", kept.rejected_bytes_max),
            ("retention.log_bytes_max", kept.log_bytes_max),
        ] {
            zero_or(key, bytes, MIB, 1 << 50);
        }
        if disk.free_bytes_resume < disk.free_bytes_min {
            let least = disk.free_bytes_min;
            let sentence =
                format!("{} is less than disk.free_bytes_min; {least} or more would be right", disk.free_bytes_resume);
            report("disk.free_bytes_resume", sentence);
        }
    }

    fn check_windows(&self, report: &mut dyn FnMut(&str, String)) {
        if self.windows.is_empty() || self.windows.len() > WINDOWS_MAX {
            report(
                "windows",
                format!("{} windows are not possible; 1 to {WINDOWS_MAX} would be right", self.windows.len()),
            );
        }
        // DICOM's older ramp divides by width - 1 (PS3.3 C.11.2.1.2).
        let least = if self.ramp == RampSetting::Linear { 1.0 } else { 0.0 };
        for (item, window) in self.windows.iter().enumerate() {
            if !(window.width.is_finite() && window.width > least) {
                report(
                    &format!("windows[{item}].width"),
                    format!("{} is not possible; more than {least} would be right", window.width),
                );
            }
            if !window.level.is_finite() {
                report(&format!("windows[{item}].level"), "must be a number of HU".into());
            }
        }
    }

    fn check_folders(&self, report: &mut dyn FnMut(&str, String)) {
        let inbox = &self.inbox.path;
        let others = [
            ("inbox.done_path", &self.inbox.done_path),
            ("inbox.rejected_path", &self.inbox.rejected_path),
            ("results.path", &self.results.path),
            ("ledger.path", &self.ledger.path),
            ("model.path", &self.model.path),
            ("cache.path", &self.cache.path),
            ("metrics.path", &self.metrics.path),
            ("train.runs_path", &self.train.runs_path),
            ("train.cache_path", &self.train.cache_path),
        ];
        for (key, path) in others {
            if path.as_os_str().is_empty() {
                report(key, "must not be empty".into());
            } else if plain(path).starts_with(plain(inbox)) {
                let sentence = format!(
                    "{} lies in the inbox {}, so the daemon would read what it wrote; a folder beside the inbox would be right",
                    path.display(),
                    inbox.display()
                );
                report(key, sentence);
            }
        }
        if inbox.as_os_str().is_empty() {
            report("inbox.path", "must not be empty".into());
        }
        for (idx, (key, path)) in others.iter().enumerate() {
            let twin = others[..idx].iter().find(|(_, other)| plain(other) == plain(path));
            if let Some((other, _)) = twin {
                report(key, format!("is the same as {other}; each needs a place of its own"));
            }
        }
    }

    /// SHA-256 over all settings as they are in effect, so that two runs can be told to have had the same.
    pub fn digest(&self) -> String {
        // Settings are numbers, words and lists, which JSON can hold.
        sha256(serde_json::json!(self).to_string().as_bytes())
    }

    /// The windows as the kernels take them.
    pub fn kernel_windows(&self) -> Vec<Window> {
        self.windows.iter().map(|window| Window { level: window.level, width: window.width }).collect()
    }
}

impl From<Ramp> for RampSetting {
    fn from(ramp: Ramp) -> Self {
        match ramp {
            Ramp::LinearExact => RampSetting::LinearExact,
            Ramp::Linear => RampSetting::Linear,
        }
    }
}

impl From<RampSetting> for Ramp {
    fn from(ramp: RampSetting) -> Self {
        match ramp {
            RampSetting::LinearExact => Ramp::LinearExact,
            RampSetting::Linear => Ramp::Linear,
        }
    }
}

/// The line, from 1, of a key such as `routes[0].models[1].name` in the text of a configuration.
pub fn line_of_key(text: &str, key: &str) -> usize {
    yaml::line_of(text, &steps(key))
}

/// All keys with values of the right kind: the defaults, and one item of the lists that are empty by default.
fn known_keys() -> Result<Value, String> {
    let mut known = yaml::to_value(&Config::default())?;
    if let Some(routes) = known.get_mut("routes") {
        *routes = Value::Sequence(vec![yaml::parse(routes::KNOWN_ITEM)?]);
    }
    Ok(known)
}

/// A path without `.` and with `..` taken back, as far as the text tells.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

fn syntax_problem(sentence: String) -> Problem {
    // The library writes "... at line 3 column 5".
    let line = sentence.rsplit_once("at line ").and_then(|(_, tail)| tail.split_whitespace().next()?.parse().ok());
    Problem { line, key: String::new(), sentence }
}

/// `windows[1].width` as steps.
fn steps(key: &str) -> Vec<Step> {
    let mut path = Vec::new();
    for part in key.split('.') {
        let (name, item) = part.split_once('[').unwrap_or((part, ""));
        path.push(Step::Key(name.to_owned()));
        if let Ok(item) = item.trim_end_matches(']').parse() {
            path.push(Step::Item(item));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = Config::from_text(text).expect_err("must be refused");
        problems.iter().map(|p| format!("{}|{}|{}", p.line.unwrap_or(0), p.key, p.sentence)).collect()
    }

    #[test]
    fn the_shipped_file_is_the_default() {
        let text = include_str!("../daemon.yaml");
        assert_eq!(Config::from_text(text), Ok(Config::default()));
        assert_eq!(Config::from_text(""), Ok(Config::default()));
    }

    #[test]
    fn every_key_of_the_shipped_file_has_a_comment() {
        let text = include_str!("../daemon.yaml");
        let known = yaml::to_value(&Config::default()).unwrap();
        let written = yaml::parse(text).unwrap();
        let mut keys = Vec::new();
        leaves(&known, &mut Vec::new(), &mut keys);
        for key in keys {
            let mut value = &written;
            for step in &key {
                let Step::Key(name) = step else { break };
                value = value.get(name.as_str()).unwrap_or_else(|| panic!("{} is missing", yaml::path_text(&key)));
            }
            let line = yaml::line_of(text, &key);
            let lines: Vec<&str> = text.lines().collect();
            let above = lines[..line - 1].iter().rev().take(3).any(|line| line.trim_start().starts_with('#'));
            assert!(above || lines[line - 1].contains('#'), "{} has no comment", yaml::path_text(&key));
        }
    }

    fn leaves(value: &Value, path: &mut Vec<Step>, keys: &mut Vec<Vec<Step>>) {
        let Value::Mapping(map) = value else {
            keys.push(path.clone());
            return;
        };
        for (key, value) in map {
            path.push(Step::Key(key.as_str().unwrap().to_owned()));
            leaves(value, path, keys);
            path.pop();
        }
    }

    #[test]
    fn all_problems_are_named_at_once_with_their_lines() {
        let text = "inbox:\n  setle_ms: 5\n  scan_secs: fast\nbatch: 7\nturbo: true\n";
        assert_eq!(
            problems(text),
            [
                "2|inbox.setle_ms|is unknown; did you mean `settle_ms`?",
                "3|inbox.scan_secs|is text; a number such as `10` would be right",
                "4|batch|is a number; a mapping such as `slices_max: 16, wait_ms_max: 20` would be right",
                "5|turbo|is unknown; here stand inbox, results, ledger, disk, retention, admission, model, windows, ramp, routes, batch, decode, limits, device, precision, cache, train, metrics, log",
            ]
        );
    }

    #[test]
    fn impossible_values_are_refused() {
        let text = "windows:\n  - { level: 40, width: 80 }\n  - level: 80\n    width: 0\nbatch:\n  slices_max: 0\n  wait_ms_max: 5\ndevice: gpu\nresults:\n  path: site/inbox/out\n";
        let found = problems(text);
        assert_eq!(found[0], "6|batch.slices_max|0 is not possible; 1 to 1024 would be right");
        assert_eq!(found[1], "4|windows[1].width|0 is not possible; more than 0 would be right");
        assert!(found[2].starts_with("10|results.path|site/inbox/out lies in the inbox"), "{found:?}");
        assert!(found[3].starts_with("8|device|"), "{found:?}");
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn room_and_retention_have_least_values() {
        let text =
            "disk:\n  free_bytes_min: 7\n  free_bytes_resume: 6\nretention:\n  done_days: 40000\n  log_bytes_max: 5\n";
        let keys: Vec<String> = problems(text).iter().map(|line| line.rsplit_once('|').unwrap().0.to_owned()).collect();
        let expected =
            ["2|disk.free_bytes_min", "5|retention.done_days", "6|retention.log_bytes_max", "3|disk.free_bytes_resume"];
        assert_eq!(keys, expected);
        let off = "disk: { free_bytes_min: 0, free_bytes_resume: 0 }\n";
        assert!(Config::from_text(off).is_ok());
    }

    #[test]
    fn syntax_enum_and_integer_errors_name_the_line() {
        assert!(problems("inbox:\n  after: burn\n")[0].starts_with("2||inbox.after: unknown variant `burn`"));
        assert!(problems("inbox:\n  settle_ms: -5\n")[0].starts_with("2||"));
        assert!(problems("inbox: [\n")[0].contains("line"));
        assert!(problems("batch: {slices_max: 1}\nbatch: {slices_max: 2}\n")[0].contains("duplicate"));
    }

    #[test]
    fn one_folder_cannot_serve_twice() {
        let text = "inbox:\n  done_path: here\n  rejected_path: ./here\n";
        assert_eq!(
            problems(text),
            ["3|inbox.rejected_path|is the same as inbox.done_path; each needs a place of its own"]
        );
    }

    #[test]
    fn the_digest_tells_settings_apart() {
        let (plain, mut other) = (Config::default(), Config::default());
        assert_eq!(plain.digest(), Config::from_text("# a comment\n").unwrap().digest());
        other.inbox.settle_ms += 1;
        assert_ne!(plain.digest(), other.digest());
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let config = Config::default().resolved(Path::new("/etc/ichd"));
        assert_eq!(config.inbox.path, Path::new("/etc/ichd/site/inbox"));
    }
}
