//! How long the daemon keeps what it put away: processed inputs, refused ones with their reasons, and daily logs. Off
//! by default. Results are never deleted.
//!
//! Only what the daemon itself put somewhere goes: the ledger tells which files that are and in which state; one that
//! changed since is somebody else's. Daily logs are told by their names. A clock that was set must not cost data, so
//! nothing is deleted before calendar time has kept pace with the monotonic clock for a whole round.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admit::key_path;
use crate::clock::{Clock, Tick, day, secs};
use crate::config::{Config, Inbox, RetentionSetting};
use crate::disk::{Disk, Fingerprint, Leftover};
use crate::error::Fatal;
use crate::ledger::{Ledger, LedgerError, Place};
use crate::limits::{RETENTION_FILES, RETENTION_SECS};
use crate::results::is_log_name;
use crate::stage::Stop;

const DAY_SECS: i64 = 86_400;

/// 2026-01-01: a clock before it was never set, as of machines that keep no time while they are off.
const CLOCK_FLOOR: i64 = 1_767_225_600;

/// Seconds by which calendar time may stray from the monotonic clock within a round: NTP corrects less.
const STRAY_SECS: u64 = 60;

/// How often the clocks are compared.
const STEP: Duration = Duration::from_secs(10);

/// What a round deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that changed since they were put there, and stay.
    pub left: u64,
    /// Files that could not be deleted; they are tried again in the next round.
    pub failed: u64,
}

/// Deletes what is old.
pub struct Retention {
    disk: Arc<dyn Disk>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    setting: RetentionSetting,
    logs: PathBuf,
    begun: Option<(Tick, i64)>,
}

impl Retention {
    /// By the settings.
    pub fn new(disk: Arc<dyn Disk>, ledger: Arc<Ledger>, clock: Arc<dyn Clock>, config: &Config) -> Self {
        let logs = config.results.path.join("log");
        Retention { disk, ledger, clock, setting: config.retention.clone(), logs, begun: None }
    }

    /// The thread: deals with leftovers once, then sweeps every [`RETENTION_SECS`]. A failure costs a round, no more.
    ///
    /// # Errors
    /// None.
    pub fn run(mut self, leftovers: &[PathBuf], stop: &Stop) -> Result<(), Fatal> {
        let n_cleared: u64 = leftovers.iter().map(|folder| self.disk.clear_leftovers(folder, Leftover::Delete)).sum();
        if n_cleared > 0 {
            tracing::info!(files = n_cleared, "Temporary files of an earlier run are cleared away.");
        }
        while !stop.is_wished() {
            if let Err(error) = self.step(stop) {
                tracing::warn!(%error, "Retention failed; it is tried again in an hour.");
            }
            // Nothing is ever sent: this is a sleep that the wish to stop ends.
            let _ = stop.waker().recv_timeout(STEP);
        }
        Ok(())
    }

    /// Sweeps if a round is over and the clocks agree.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub fn step(&mut self, stop: &Stop) -> Result<Option<Swept>, LedgerError> {
        if self.setting == RetentionSetting::default() {
            return Ok(None);
        }
        let (now, wall) = (self.clock.now(), secs(self.clock.wall()));
        let Some((begun, wall_begun)) = self.begun else {
            self.begun = Some((now, wall));
            return Ok(None);
        };
        let passed = now.saturating_sub(begun).as_secs();
        if wall.abs_diff(wall_begun.saturating_add_unsigned(passed)) > STRAY_SECS {
            tracing::warn!("The clock was set: nothing is deleted until it has kept pace for an hour.");
            self.begun = Some((now, wall));
            return Ok(None);
        }
        if passed < RETENTION_SECS {
            return Ok(None);
        }
        self.begun = Some((now, wall));
        let setting = &self.setting;
        let swept = [
            ("done", self.place(Place::Done, setting.done_days, setting.done_bytes_max, wall, stop)?),
            ("rejected", self.place(Place::Rejected, setting.rejected_days, setting.rejected_bytes_max, wall, stop)?),
            ("log", self.logs(setting.log_days, setting.log_bytes_max, wall)),
        ];
        let mut total = Swept::default();
        for (what, Swept { files, bytes, left, failed }) in swept {
            if files + left + failed > 0 {
                tracing::info!(what, files, bytes, left, failed, "Old files are deleted.");
            }
            total.add(Swept { files, bytes, left, failed });
        }
        Ok(Some(total))
    }

    /// The files of one place, those that were put there first going first.
    fn place(&self, place: Place, days: u32, bytes_max: u64, wall: i64, stop: &Stop) -> Result<Swept, LedgerError> {
        let mut swept = Swept::default();
        if days == 0 && bytes_max == 0 {
            return Ok(swept);
        }
        let mut held = self.ledger.disposed_bytes(place)?;
        loop {
            let oldest = self.ledger.oldest_disposed(place, RETENTION_FILES)?;
            let (n_oldest, before) = (oldest.len(), swept);
            for file in oldest {
                if file.since < CLOCK_FLOOR && wall >= CLOCK_FLOOR {
                    // Its age counts from now on.
                    self.ledger.put_away(place, &file.path, file.fingerprint, wall)?;
                    swept.left += 1;
                    continue;
                }
                let is_old = days > 0 && file.since <= wall - i64::from(days) * DAY_SECS;
                let is_much = bytes_max > 0 && held > bytes_max;
                if !is_old && !is_much {
                    return Ok(swept);
                }
                match self.delete(&key_path(&file.path), file.fingerprint) {
                    Ok(true) => swept.count(file.fingerprint.bytes),
                    Ok(false) => swept.left += 1,
                    Err(_) => {
                        swept.failed += 1;
                        continue;
                    }
                }
                held = held.saturating_sub(file.fingerprint.bytes);
                self.ledger.forget_disposed(&file.path)?;
            }
            // Files that cannot be deleted stay the oldest: without progress there is none to be had.
            let is_stuck = (before.files, before.left) == (swept.files, swept.left);
            if n_oldest < RETENTION_FILES || is_stuck || stop.is_wished() {
                return Ok(swept);
            }
        }
    }

    /// For good: what is forgotten next would never be deleted if a power cut brought it back.
    fn delete(&self, path: &Path, print: Fingerprint) -> std::io::Result<bool> {
        let is_deleted = self.disk.remove_unchanged(path, print)?;
        if let (true, Some(folder)) = (is_deleted, path.parent()) {
            self.disk.sync_names(folder)?;
        }
        Ok(is_deleted)
    }

    /// Daily logs, but never today's and never the newest.
    fn logs(&self, days: u32, bytes_max: u64, wall: i64) -> Swept {
        let mut swept = Swept::default();
        if days == 0 && bytes_max == 0 {
            return swept;
        }
        let day_of = |secs: i64| {
            let since = Duration::from_secs(u64::try_from(secs).unwrap_or(0));
            format!("{}.jsonl", day(std::time::SystemTime::UNIX_EPOCH + since))
        };
        let names = self.disk.names(&self.logs).unwrap_or_default().into_iter().filter(|name| is_log_name(name));
        let found = names.filter_map(|name| Some((self.disk.fingerprint(&self.logs.join(&name)).ok()??, name)));
        let mut logs: Vec<_> = found.collect();
        let mut held: u64 = logs.iter().map(|(print, _)| print.bytes).sum();
        logs.pop();
        let (today, limit) = (day_of(wall), day_of(wall - i64::from(days) * DAY_SECS));
        for (print, name) in logs.into_iter().filter(|(_, name)| name.as_os_str() != today.as_str()) {
            let is_old = days > 0 && name.as_os_str() < limit.as_str();
            if !is_old && (bytes_max == 0 || held <= bytes_max) {
                continue;
            }
            match self.delete(&self.logs.join(&name), print) {
                Ok(true) => {
                    held -= print.bytes;
                    swept.count(print.bytes);
                }
                Ok(false) => swept.left += 1,
                Err(_) => swept.failed += 1,
            }
        }
        swept
    }
}

impl Swept {
    fn count(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    fn add(&mut self, other: Swept) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.left += other.left;
        self.failed += other.failed;
    }
}

/// Shows inputs again that an earlier process had taken aside when it was cut off. Before the first scan.
pub fn show_leftovers(disk: &dyn Disk, inbox: &Inbox) {
    let n_shown = disk.clear_leftovers(&inbox.path, Leftover::Show);
    if n_shown > 0 {
        tracing::info!(
            files = n_shown,
            "Inputs that were on their way out when an earlier run ended are looked at again."
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::admit::path_key;
    use crate::clock::ManualClock;
    use crate::disk::RealDisk;

    struct Bench {
        folder: tempfile::TempDir,
        clock: Arc<ManualClock>,
        ledger: Arc<Ledger>,
        retention: Retention,
        stop: Stop,
    }

    const HOUR: Duration = Duration::from_secs(RETENTION_SECS);

    impl Bench {
        fn new(setting: RetentionSetting) -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::default());
            clock.jump(1_800_000_000_000);
            let ledger = Arc::new(Ledger::open(&folder.path().join("ledger.sqlite")).unwrap());
            let mut config = Config { retention: setting, ..Config::default() };
            config.results.path = folder.path().join("results");
            let retention =
                Retention::new(Arc::new(RealDisk), Arc::clone(&ledger), Arc::clone(&clock) as Arc<dyn Clock>, &config);
            let bench = Bench { folder, clock, ledger, retention, stop: Stop::new() };
            for name in ["done", "rejected", "results/log"] {
                fs::create_dir_all(bench.path(name)).unwrap();
            }
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn file(&self, place: Place, name: &str, bytes: usize) {
            let path = self.path(name);
            fs::write(&path, vec![7; bytes]).unwrap();
            let print = RealDisk.fingerprint(&path).unwrap().unwrap();
            self.ledger.put_away(place, &path_key(&path), print, secs(self.clock.wall())).unwrap();
        }

        fn names(&self, folder: &str) -> Vec<String> {
            let names = RealDisk.names(&self.path(folder)).unwrap();
            names.into_iter().map(|name| name.into_string().unwrap()).collect()
        }

        fn after(&mut self, time: Duration) -> Option<Swept> {
            self.clock.advance(time);
            self.retention.step(&self.stop).unwrap()
        }

        fn day(&self, ago: u64) -> String {
            day(self.clock.wall() - Duration::from_secs(ago * 86_400))
        }
    }

    #[test]
    fn nothing_is_deleted_by_default() {
        let mut bench = Bench::new(RetentionSetting::default());
        bench.file(Place::Done, "done/a", 5);
        assert_eq!((bench.after(HOUR), bench.after(HOUR * 100_000)), (None, None));
        assert_eq!(bench.names("done"), ["a"]);
    }

    #[test]
    fn files_go_by_age_and_only_the_daemons_own_ones() {
        let mut bench = Bench::new(RetentionSetting { done_days: 2, ..RetentionSetting::default() });
        bench.file(Place::Done, "done/a", 5);
        bench.file(Place::Done, "done/changed", 5);
        bench.file(Place::Done, "done/link", 5);
        bench.file(Place::Rejected, "rejected/r", 5);
        fs::write(bench.path("done/foreign"), "x").unwrap();
        fs::write(bench.path("done/changed"), "somebody else's").unwrap();
        fs::write(bench.path("precious"), "x").unwrap();
        fs::remove_file(bench.path("done/link")).unwrap();
        std::os::unix::fs::symlink(bench.path("precious"), bench.path("done/link")).unwrap();
        assert_eq!(bench.after(Duration::ZERO), None, "the first look only begins a round");
        assert_eq!(bench.after(HOUR), Some(Swept::default()));
        bench.clock.advance(HOUR * 46);
        bench.file(Place::Done, "done/young", 5);
        assert_eq!(bench.after(HOUR), Some(Swept { files: 1, bytes: 5, left: 2, failed: 0 }));
        assert_eq!(bench.names("done"), ["changed", "foreign", "link", "young"]);
        assert_eq!((bench.names("rejected"), bench.path("precious").exists()), (vec!["r".to_owned()], true));
        assert_eq!(bench.after(HOUR), Some(Swept::default()), "what is somebody else's is forgotten");
    }

    #[test]
    fn the_oldest_go_first_until_the_size_fits() {
        let mut bench = Bench::new(RetentionSetting { rejected_bytes_max: 25, ..RetentionSetting::default() });
        bench.after(Duration::ZERO);
        for name in ["c", "a", "b"] {
            bench.file(Place::Rejected, &format!("rejected/{name}"), 10);
            bench.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(bench.after(HOUR), Some(Swept { files: 1, bytes: 10, left: 0, failed: 0 }));
        assert_eq!(bench.names("rejected"), ["a", "b"]);
    }

    #[test]
    fn many_files_go_in_one_round() {
        let mut bench = Bench::new(RetentionSetting { done_bytes_max: 1, ..RetentionSetting::default() });
        bench.after(Duration::ZERO);
        for number in 0..RETENTION_FILES + 5 {
            bench.file(Place::Done, &format!("done/{number}"), 1);
        }
        assert_eq!(bench.after(HOUR).unwrap().files, RETENTION_FILES as u64 + 4);
        assert_eq!(bench.names("done").len(), 1);
    }

    #[test]
    fn logs_go_but_never_the_newest_nor_other_files() {
        let mut bench = Bench::new(RetentionSetting { log_days: 3, ..RetentionSetting::default() });
        bench.after(Duration::ZERO);
        bench.clock.advance(HOUR);
        for name in [bench.day(9), bench.day(4), bench.day(3), bench.day(1)] {
            fs::write(bench.path(&format!("results/log/{name}.jsonl")), "line\n").unwrap();
        }
        fs::write(bench.path("results/log/1999-notes.jsonl"), "mine").unwrap();
        let kept = [bench.day(3), bench.day(1)].map(|day| format!("{day}.jsonl"));
        assert_eq!(bench.after(Duration::ZERO), Some(Swept { files: 2, bytes: 10, left: 0, failed: 0 }));
        assert_eq!(bench.names("results/log"), ["1999-notes.jsonl".to_owned(), kept[0].clone(), kept[1].clone()]);
        bench.retention.setting = RetentionSetting { log_bytes_max: 1, ..RetentionSetting::default() };
        assert_eq!(bench.after(HOUR).unwrap().files, 1);
        assert_eq!(bench.names("results/log"), ["1999-notes.jsonl".to_owned(), kept[1].clone()], "the newest stays");
    }

    #[test]
    fn a_clock_that_jumps_deletes_nothing() {
        let mut bench = Bench::new(RetentionSetting { done_days: 1, ..RetentionSetting::default() });
        bench.file(Place::Done, "done/a", 5);
        bench.after(Duration::ZERO);
        bench.clock.advance(HOUR);
        bench.clock.jump(30 * 365 * DAY_SECS * 1000);
        assert_eq!(bench.after(Duration::ZERO), None, "years ahead");
        bench.clock.jump(-30 * 365 * DAY_SECS * 1000);
        assert_eq!(bench.after(HOUR), None, "and back");
        assert_eq!(bench.after(HOUR), Some(Swept::default()));
        assert!(Path::new(&bench.path("done/a")).exists());
        assert_eq!(bench.after(HOUR * 24).unwrap().files, 1, "a day later it is old");
    }

    #[test]
    fn what_was_stamped_by_a_clock_that_was_never_set_is_aged_from_when_it_is_set() {
        let mut bench = Bench::new(RetentionSetting { done_days: 365, ..RetentionSetting::default() });
        let set_ms = 1_800_000_000_000;
        bench.clock.jump(-set_ms);
        bench.file(Place::Done, "done/a", 5);
        bench.clock.jump(set_ms);
        bench.after(Duration::ZERO);
        assert_eq!(bench.after(HOUR), Some(Swept { left: 1, ..Swept::default() }));
        assert_eq!(bench.after(HOUR * 24 * 364), Some(Swept::default()));
        assert_eq!(bench.after(HOUR * 48).unwrap().files, 1);
    }

    #[test]
    fn what_cannot_be_deleted_is_counted_and_tried_again() {
        let mut bench = Bench::new(RetentionSetting { done_days: 1, ..RetentionSetting::default() });
        bench.after(Duration::ZERO);
        let nowhere = bench.path("done/a/b");
        bench.ledger.put_away(Place::Done, &path_key(&nowhere), Default::default(), CLOCK_FLOOR).unwrap();
        fs::write(bench.path("done/a"), "a file where a folder was").unwrap();
        assert_eq!(bench.after(HOUR), Some(Swept { failed: 1, ..Swept::default() }));
        assert_eq!(bench.after(HOUR), Some(Swept { failed: 1, ..Swept::default() }));
    }
}
