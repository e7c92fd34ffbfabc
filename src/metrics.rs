//! The daemon's figures as a file in Prometheus' text format, for the textfile collector of its node exporter or for a
//! person: no port is opened for it. Counts stages, files and slices; nothing in it is about a patient.

use std::fmt::Write;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::disk::{Files, Open, RealDisk};
use crate::profile::{CrewReport, ProfileReport};
use crate::tally::Count;

/// Writes the file now and then, and once more at the end.
pub struct MetricsFile {
    /// Where.
    pub path: PathBuf,
    /// How often.
    pub every: Duration,
}

impl MetricsFile {
    /// The thread; it ends when the sender of `ended` is gone. Trouble with the file is told once, and its end.
    pub fn run(self, read: impl Fn() -> String, ended: &Receiver<()>) {
        let mut is_trouble = false;
        loop {
            let written = write(&self.path, &read());
            match &written {
                Err(error) if !is_trouble => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "The metrics cannot be written; the work goes on.");
                }
                Ok(()) if is_trouble => tracing::info!("The metrics are written again."),
                _ => {}
            }
            is_trouble = written.is_err();
            if ended.recv_timeout(self.every) != Err(RecvTimeoutError::Timeout) {
                // The last state is told, whoever looks.
                drop(write(&self.path, &read()));
                return;
            }
        }
    }
}

/// Readers see a whole file, the old or the new one. It is not synced: after a power cut nobody misses it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".ichd-{}-metrics.tmp", RealDisk.process()));
    let write = || RealDisk.open(&temporary, Open::New)?.write_all(text.as_bytes());
    let moved = write().and_then(|()| RealDisk.rename(&temporary, path));
    if moved.is_err() {
        // It may not even be there.
        drop(RealDisk.unlink(&temporary));
    }
    moved
}

/// All figures; those of the stages only once there was something to do.
pub fn text(device: &str, count: &Count, profile: Option<&ProfileReport>) -> String {
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let info = format!("{{version=\"{version}\",device=\"{}\"}}", escaped(device));
    family(&mut text, "ichd_info", "gauge", "The program and the device that it computes on.", [(info, 1.0)]);
    let outcomes = [
        ("done", count.done),
        ("duplicate", count.duplicates),
        ("rejected", count.rejected),
        ("returned", count.returned),
    ];
    let outcomes = outcomes.map(|(outcome, files)| (format!("{{outcome=\"{outcome}\"}}"), files as f64));
    family(&mut text, "ichd_files_total", "counter", "Files that left the pipeline, by outcome.", outcomes);
    let plain = |value: u64| [(String::new(), value as f64)];
    let in_flight = plain(count.in_flight().unwrap_or(0));
    family(&mut text, "ichd_files_in_flight", "gauge", "Files between admission and outcome.", in_flight);
    family(&mut text, "ichd_slices_total", "counter", "Slices scored by a network.", plain(count.slices));
    let paused = plain(count.is_paused.into());
    family(&mut text, "ichd_admission_paused", "gauge", "1 while no files are let in for lack of room.", paused);
    if let Some(profile) = profile {
        stages(&mut text, &profile.crews);
    }
    text
}

fn stages(text: &mut String, crews: &[CrewReport]) {
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&CrewReport) -> f64| {
        let rows = crews.iter().map(|crew| (format!("{{stage=\"{}\"}}", crew.crew.name()), value(crew)));
        family(text, name, kind, help, rows);
    };
    let busy = |crew: &CrewReport| crew.steps.iter().map(|step| step.busy_s).sum();
    each("ichd_stage_threads", "gauge", "Threads of a stage.", &|crew| crew.threads as f64);
    each("ichd_stage_busy_seconds_total", "counter", "Time that a stage's threads worked.", &busy);
    let help = "Time that a stage's threads waited for room in the next stage's queue.";
    each("ichd_stage_held_up_seconds_total", "counter", help, &|crew| crew.held_up_s);
    let help = "What waits for a stage: files for admit and decode, slices for batch, batches for device, messages for record.";
    each("ichd_stage_queue_length", "gauge", help, &|crew| crew.queue_now as f64);
    each("ichd_stage_queue_peak", "gauge", "The most that ever waited for a stage.", &|crew| crew.queue_most as f64);
    let done = crews
        .iter()
        .map(|crew| (format!("{{stage=\"{}\",unit=\"{}\"}}", crew.crew.name(), crew.unit), crew.done as f64));
    family(text, "ichd_stage_done_total", "counter", "What a stage handed on.", done);
    let steps = || crews.iter().flat_map(|crew| crew.steps.iter().map(move |step| (crew.crew.name(), step)));
    let label = |stage: &str, step: &str| format!("{{stage=\"{stage}\",step=\"{step}\"}}");
    let busy = steps().map(|(stage, step)| (label(stage, step.step), step.busy_s));
    family(text, "ichd_step_busy_seconds_total", "counter", "Time of a step of a stage's work.", busy);
    let done = steps().map(|(stage, step)| (label(stage, step.step), step.count as f64));
    family(text, "ichd_step_done_total", "counter", "Times that a step was done.", done);
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, rows: impl IntoIterator<Item = (String, f64)>) {
    // Writing to a text cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::clock::Tick;
    use crate::profile::{Crew, Profile, Step};

    #[test]
    fn every_stage_tells_how_busy_it_was_and_what_waits_for_it() {
        let count = Count { admitted: 9, done: 5, duplicates: 1, rejected: 2, slices: 6, ..Count::default() };
        let profile = Profile::default();
        let before = text("cpu", &count, None);
        assert!(before.contains("\nichd_files_total{outcome=\"done\"} 5\n") && !before.contains("stage"), "{before}");
        profile.add(Step::Window, Tick::ZERO, Tick::from_millis(250), 6);
        profile.add(Step::Network, Tick::from_millis(250), Tick::from_millis(1000), 6);
        profile.held_up(Crew::Decode, Tick::ZERO, Tick::from_millis(125));
        profile.queue(Crew::Device, 1);
        profile.queue(Crew::Batch, 40);
        profile.queue(Crew::Batch, 3);
        let found = text("cuda:0 \"x\"", &count, profile.report(2).as_ref());
        for line in [
            concat!("ichd_info{version=\"", env!("CARGO_PKG_VERSION"), "\",device=\"cuda:0 \\\"x\\\"\"} 1"),
            "ichd_files_in_flight 1",
            "ichd_slices_total 6",
            "ichd_admission_paused 0",
            "ichd_stage_threads{stage=\"decode\"} 2",
            "ichd_stage_busy_seconds_total{stage=\"device\"} 1",
            "ichd_stage_held_up_seconds_total{stage=\"decode\"} 0.125",
            "ichd_stage_done_total{stage=\"device\",unit=\"slices\"} 6",
            "ichd_stage_done_total{stage=\"admit\",unit=\"files\"} 0",
            "ichd_stage_queue_length{stage=\"batch\"} 3",
            "ichd_stage_queue_peak{stage=\"batch\"} 40",
            "ichd_step_busy_seconds_total{stage=\"device\",step=\"network\"} 0.75",
            "ichd_step_done_total{stage=\"device\",step=\"window\"} 6",
        ] {
            assert!(found.lines().any(|found| found == line), "{line} is missing in\n{found}");
        }
        check_format(&found);
    }

    /// Every sample belongs to the family announced above it, and every family has a type and a help.
    fn check_format(text: &str) {
        let (mut name, mut samples) = ("", 0);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                name = rest.split(' ').next().unwrap();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(rest == format!("{name} counter") || rest == format!("{name} gauge"), "{line}");
                assert_eq!(rest.ends_with("counter"), name.ends_with("_total"), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(sample.split('{').next(), Some(name));
                value.parse::<f64>().unwrap();
                samples += 1;
            }
        }
        assert!(samples > 40);
    }

    #[test]
    fn the_file_is_written_at_the_end_and_trouble_with_it_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (name, is_written) in [("new/metrics.prom", true), ("blocked/metrics.prom", false)] {
            std::fs::write(folder.path().join("blocked"), "a file, no folder").unwrap();
            let path = folder.path().join(name);
            let (sender, ended) = bounded::<()>(0);
            drop(sender);
            let file = MetricsFile { path: path.clone(), every: Duration::from_secs(3600) };
            file.run(|| "ichd_slices_total 7\n".into(), &ended);
            assert_eq!(std::fs::read_to_string(&path).ok(), is_written.then(|| "ichd_slices_total 7\n".into()));
        }
        let left = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(left, 1, "no temporary file stays");
    }
}
