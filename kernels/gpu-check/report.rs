//! What was found, printed line by line and kept in a file of JSON. Measures nothing.

use std::path::{Path, PathBuf};

use ichd_kernels::parity::Finding;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Stop;
use crate::machine::Machine;
use crate::measure::Times;

/// Names the shape of the file.
pub const SCHEMA: &str = "ichd.gpu_check.v1";

/// A kernel's time.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTime {
    /// What was launched.
    pub name: String,
    /// Median of the runs, in milliseconds.
    pub milliseconds: f64,
    /// Every input and output byte counted once, in GB/s.
    pub gigabytes_per_second: f64,
    /// The same as a share of the copy bandwidth of this run.
    pub share_of_copy: f64,
    /// Time over that of copying as many bytes.
    pub of_floor: f64,
    /// The most that `of_floor` may be, where the case is held to a bar.
    pub bar: Option<f64>,
    /// Whether it is.
    pub is_met: Option<bool>,
}

/// A network's time.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkTime {
    /// Which.
    pub backbone: &'static str,
    /// From where to where: `pixels` (stored values in memory to logits in memory), `pixels ahead` (the same, with the next
    /// batch brought to the device meanwhile, as the daemon does on a GPU), `pixels filled up` (with empty images up to the
    /// next power of two, as it does as well), `images` (windowed images on the device to logits
    /// in memory), `images graph` (the same as one captured graph), `train_pixels` and `train_images` (a step from either).
    pub from: &'static str,
    /// Type of number.
    pub precision: &'static str,
    /// Images of a batch.
    pub batch: usize,
    /// Images that were asked for, where the memory was short.
    pub wanted_batch: usize,
    /// Side of the input.
    pub side: usize,
    /// Devices that share the batch.
    pub devices: usize,
    /// Images a second, from the median.
    pub images_per_second: f64,
    /// Of one batch or step.
    #[serde(flatten)]
    pub times: Times,
    /// Memory that the tensor library had taken from the device afterwards, in MiB: the most that was in use, and more.
    pub reserved_mib: Option<u64>,
}

#[derive(Debug, Serialize)]
struct NotDone {
    what: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Run {
    schema: &'static str,
    program: &'static str,
    commit: String,
    date: String,
    arguments: Vec<String>,
    device: Option<String>,
    machine: Machine,
    copy_gigabytes_per_second: Option<f64>,
    /// Time of a launch that moves nothing, in milliseconds.
    launch_milliseconds: Option<f64>,
    findings: Vec<Finding>,
    kernels: Vec<KernelTime>,
    networks: Vec<NetworkTime>,
    training: Vec<NetworkTime>,
    not_done: Vec<NotDone>,
}

/// The run so far.
#[derive(Debug)]
pub struct Journal {
    path: Option<PathBuf>,
    /// Runs that the file held already.
    before: Vec<Value>,
    run: Run,
}

impl Journal {
    /// A new run, in a file that may hold others.
    ///
    /// # Errors
    /// The file is there and is something else.
    pub fn open(path: Option<&Path>, commit: &str) -> Result<Journal, Stop> {
        let before = path.map_or(Ok(Vec::new()), read)?;
        let run = Run {
            schema: SCHEMA,
            program: env!("CARGO_PKG_VERSION"),
            commit: commit.to_owned(),
            date: jiff::Timestamp::now().to_string(),
            arguments: std::env::args().skip(1).collect(),
            device: None,
            machine: Machine::default(),
            copy_gigabytes_per_second: None,
            launch_milliseconds: None,
            findings: Vec::new(),
            kernels: Vec::new(),
            networks: Vec::new(),
            training: Vec::new(),
            not_done: Vec::new(),
        };
        Ok(Journal { path: path.map(Path::to_owned), before, run })
    }

    /// Says on what.
    pub fn begin(&mut self, device: &str, machine: Machine) -> Result<(), Stop> {
        let Machine { threads, gpus, gpu, capability, driver, nvrtc, .. } = &machine;
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        println!("ichd {}, commit {}, {}", self.run.program, self.run.commit, self.run.date);
        match gpu {
            Some(gpu) => println!(
                "device {device}: {gpu}, capability {}, one of {gpus}; driver {}; {}; {threads} threads",
                or_unknown(capability),
                or_unknown(driver),
                or_unknown(nvrtc)
            ),
            None => println!("device {device}; {threads} threads"),
        }
        (self.run.device, self.run.machine) = (Some(device.to_owned()), machine);
        self.save()
    }

    /// The measures that kernels are held against.
    pub fn floors(&mut self, copy: f64, launch: f64) -> Result<(), Stop> {
        println!("copying {:.0} GB/s, a launch that moves nothing {launch:.4} ms\n", copy / 1e9);
        (self.run.copy_gigabytes_per_second, self.run.launch_milliseconds) = (Some(copy / 1e9), Some(launch));
        self.save()
    }

    /// A comparison.
    pub fn finding(&mut self, finding: Finding) -> Result<(), Stop> {
        let word = if finding.passed() { "ok   " } else { "WRONG" };
        println!("{word} {}: off by {:.1e}, allowed {:.1e}", finding.name, finding.error, finding.allowed);
        self.run.findings.push(finding);
        self.save()
    }

    /// A kernel's time.
    pub fn kernel(&mut self, time: KernelTime) -> Result<(), Stop> {
        let KernelTime { name, milliseconds, gigabytes_per_second, share_of_copy, of_floor, bar, .. } = &time;
        let verdict = match (bar, time.is_met) {
            (Some(bar), Some(true)) => format!(", bar {bar:.2}: met"),
            (Some(bar), _) => format!(", bar {bar:.2}: NOT MET"),
            (None, _) => String::new(),
        };
        let share = share_of_copy * 100.0;
        println!(
            "{milliseconds:>10.4} ms {gigabytes_per_second:>7.0} GB/s {share:>5.0}% of copy {of_floor:>7.2} of floor  {name}{verdict}"
        );
        self.run.kernels.push(time);
        self.save()
    }

    /// A network's time.
    pub fn network(&mut self, time: NetworkTime) -> Result<(), Stop> {
        let NetworkTime {
            backbone, from, precision, batch, wanted_batch, side, devices, images_per_second, times, ..
        } = &time;
        let short = if batch < wanted_batch { format!(" (of {wanted_batch}: memory)") } else { String::new() };
        let shared = if *devices > 1 { format!(", {devices} devices") } else { String::new() };
        let memory = time.reserved_mib.map_or(String::new(), |mib| format!(", {mib} MiB"));
        println!(
            "{backbone:<16} {from:<12} {precision:<4} batch {batch:>3}{short} side {side}{shared}: {images_per_second:>9.1} images/s, {:.3} ms, best {:.3}{memory}, warm-up {:.1} s",
            times.milliseconds, times.best_milliseconds, times.warm_up_seconds
        );
        if from.starts_with("train") {
            self.run.training.push(time)
        } else {
            self.run.networks.push(time)
        }
        self.save()
    }

    /// Something that was left out or failed.
    pub fn not_done(&mut self, what: impl Into<String>, why: impl Into<String>) -> Result<(), Stop> {
        let (what, why) = (what.into(), why.into());
        println!("not done: {what}: {why}");
        self.run.not_done.push(NotDone { what, why });
        self.save()
    }

    /// Whether everything was done and right. A bar that is not met is a result, not a mistake.
    pub fn is_right(&self) -> bool {
        self.run.not_done.is_empty() && self.run.findings.iter().all(Finding::passed)
    }

    /// A last line.
    pub fn end(&self) {
        let wrong = self.run.findings.iter().filter(|finding| !finding.passed()).count();
        let bars = self.run.kernels.iter().filter_map(|time| time.is_met);
        let (all, met) = bars.fold((0, 0), |(all, met), is_met| (all + 1, met + u32::from(is_met)));
        println!(
            "\n{} comparisons, {wrong} wrong; {met} of {all} bars met; {} times of networks, {} of training; {} not done",
            self.run.findings.len(),
            self.run.networks.len(),
            self.run.training.len(),
            self.run.not_done.len()
        );
    }

    /// The whole file, by a rename: one that is cut off must not damage what was there.
    fn save(&self) -> Result<(), Stop> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut runs = self.before.clone();
        runs.push(json!(self.run));
        let fail = |source| Stop::Disk { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(&json!({ "runs": runs })).map_err(|error| fail(error.into()))?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).map_err(fail)
    }
}

/// Runs of a file that may not be there.
fn read(path: &Path) -> Result<Vec<Value>, Stop> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Stop::Disk { path: path.to_owned(), source }),
    };
    let other = |reason: String| Stop::File { path: path.to_owned(), reason };
    let mut value: Value = serde_json::from_slice(&text).map_err(|error| other(error.to_string()))?;
    let runs = value.get_mut("runs").and_then(Value::as_array_mut).map(std::mem::take);
    let runs = runs.ok_or_else(|| other("it lists no runs".to_owned()))?;
    match runs.iter().find(|run| run["schema"] != SCHEMA) {
        Some(run) => Err(other(format!("a run of it has the schema {}", run["schema"]))),
        None => Ok(runs),
    }
}
