//! Whether there is room for more results: admission stops before a disk is full and goes on by itself. Knows no file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Tick;
use crate::config::{After, Config};
use crate::disk::{Disk, Room};
use crate::limits::{FREE_FILES_MIN, ROOM_LOOK_MS};
use crate::tally::Tally;

/// Looks at the file systems that the daemon writes to.
pub struct RoomWatch {
    disk: Arc<dyn Disk>,
    tally: Arc<Tally>,
    folders: Vec<PathBuf>,
    least: u64,
    resume: u64,
    looked: Option<Tick>,
    is_short: bool,
}

impl RoomWatch {
    /// By the settings.
    pub fn new(disk: Arc<dyn Disk>, tally: Arc<Tally>, config: &Config) -> Self {
        let ledger = config.ledger.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut folders = vec![config.results.path.clone(), ledger.map_or_else(|| ".".into(), PathBuf::from)];
        folders.push(config.inbox.rejected_path.clone());
        if config.inbox.after == After::Move {
            folders.push(config.inbox.done_path.clone());
        }
        let (least, resume) = (config.disk.free_bytes_min, config.disk.free_bytes_resume);
        RoomWatch { disk, tally, folders, least, resume, looked: None, is_short: false }
    }

    /// Whether more files may be taken. Between two looks, [`ROOM_LOOK_MS`] apart, the answer stays.
    pub fn has_room(&mut self, now: Tick) -> bool {
        let is_due = self.looked.is_none_or(|looked| now >= looked + Duration::from_millis(ROOM_LOOK_MS));
        if self.least > 0 && is_due {
            self.looked = Some(now);
            self.look();
        }
        !self.is_short
    }

    /// What is short stays short until there is clearly more, so that admission does not flutter.
    fn look(&mut self) {
        let (bytes, files) =
            if self.is_short { (self.resume, FREE_FILES_MIN * 2) } else { (self.least, FREE_FILES_MIN) };
        let is_tight = |room: &Room| room.bytes < bytes || room.files < files;
        // A folder that does not answer says nothing about its room; writing to it will tell.
        let rooms = self.folders.iter().filter_map(|folder| Some((folder, self.disk.room(folder).ok()?)));
        let tight = rooms.filter(|(_, room)| is_tight(room)).min_by_key(|(_, room)| room.bytes);
        match tight {
            Some((folder, room)) if !self.is_short => {
                let (folder, free_bytes, free_files) = (folder.display(), room.bytes, room.files);
                tracing::warn!(%folder, free_bytes, free_files, "Little room is left: no more files are taken until there is more.");
                self.set_short(true);
            }
            None if self.is_short => {
                tracing::info!("There is room again: files are taken.");
                self.set_short(false);
            }
            _ => {}
        }
    }

    fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
        self.tally.set_paused(is_short);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiskSetting;
    use crate::disk::{Fingerprint, Leftover, Tail, Whole};
    use std::ffi::OsString;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// Only tells what room there is: results and everything else.
    struct RoomOnly(Mutex<(Room, Room)>);

    impl Disk for RoomOnly {
        fn room(&self, path: &Path) -> io::Result<Room> {
            let rooms = self.0.lock().unwrap();
            Ok(if path.ends_with("results") { rooms.0 } else { rooms.1 })
        }
        fn fingerprint(&self, _: &Path) -> io::Result<Option<Fingerprint>> {
            unreachable!()
        }
        fn exists(&self, _: &Path) -> io::Result<bool> {
            unreachable!()
        }
        fn read(&self, _: &Path, _: u64) -> io::Result<(Fingerprint, Vec<u8>)> {
            unreachable!()
        }
        fn write_all_whole(&self, _: &[Whole<'_>]) -> io::Result<()> {
            unreachable!()
        }
        fn prepare(&self, _: &Path, _: &[&[u8]]) -> io::Result<Vec<PathBuf>> {
            unreachable!()
        }
        fn discard(&self, _: &Path) {
            unreachable!()
        }
        fn secure(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn append(&self, _: &Path, _: u64, _: &[u8]) -> io::Result<u64> {
            unreachable!()
        }
        fn tail(&self, _: &Path) -> io::Result<Tail> {
            unreachable!()
        }
        fn move_into(&self, _: &Path, _: Fingerprint, _: &Path, _: &str) -> io::Result<Option<PathBuf>> {
            unreachable!()
        }
        fn remove_unchanged(&self, _: &Path, _: Fingerprint) -> io::Result<bool> {
            unreachable!()
        }
        fn sync_names(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn remove(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn names(&self, _: &Path) -> io::Result<Vec<OsString>> {
            unreachable!()
        }
        fn clear_leftovers(&self, _: &Path, _: Leftover) -> u64 {
            unreachable!()
        }
    }

    #[test]
    fn admission_pauses_before_a_disk_is_full_and_resumes_with_a_margin() {
        let ample = Room { bytes: 1 << 40, files: u64::MAX };
        let disk = Arc::new(RoomOnly(Mutex::new((ample, ample))));
        let setting = DiskSetting { free_bytes_min: 100, free_bytes_resume: 200 };
        let config = Config { disk: setting, ..Config::default() };
        let tally = Arc::new(Tally::default());
        let mut watch = RoomWatch::new(Arc::clone(&disk) as Arc<dyn Disk>, Arc::clone(&tally), &config);
        let mut second = 0;
        let mut at = |results: Room, rest: Room| {
            *disk.0.lock().unwrap() = (results, rest);
            second += 1;
            watch.has_room(Duration::from_secs(second))
        };
        let bytes = |bytes: u64| Room { bytes, ..ample };
        assert!(at(bytes(100), ample));
        assert!(!at(bytes(99), ample), "results");
        assert!(!at(bytes(150), ample), "not at the first byte more");
        assert_eq!((tally.count().is_paused, tally.count().pauses), (true, 1));
        assert!(at(bytes(200), ample));
        assert!(!tally.count().is_paused);
        assert!(!at(ample, bytes(7)), "the ledger");
        assert!(at(ample, ample));
        assert!(!at(Room { bytes: 1 << 40, files: FREE_FILES_MIN - 1 }, ample), "no inodes");
        assert_eq!(tally.count().pauses, 3);
    }
}
