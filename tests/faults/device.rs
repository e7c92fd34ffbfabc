//! A device, a decoder, a clock or a thread that fails. The faults sit behind the traits `Scorer`, `Files` and `Clock`; this
//! test program starts itself again as a daemon that has them, so that what ends the process can be seen from outside.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use burn::tensor::{Device, Tensor};
use ichd::clock::{Clock, SystemClock, Tick};
use ichd::config::Config;
use ichd::device::{self, Want};
use ichd::disk::{Files, Handle, Open, RealDisk, Room, Stat};
use ichd::infer::{EngineError, EngineOutput, Images, Scorer, Uploader};
use ichd::ledger::Ledger;
use ichd::pipeline::{Pipeline, Site as World, Source};
use ichd::roster::Roster;
use ichd::slice::{Pixels, Slice};
use ichd::supervisor::Supervisor;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::tools::{Program, Stamp, assert_all_done_once, instance_uid, put, put_slices, results, site};
use crate::support::{Site, files};

/// The slice that the faults are about.
const GUILTY: u64 = 13;

/// Answers at once, and has the fault that its word names.
struct Faulty(String);

impl Scorer for Faulty {
    fn score(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let is_guilty = |slice: &&Slice| slice.ids.instance == instance_uid(GUILTY);
        let is_there = slices.iter().any(is_guilty);
        let mut logits: Vec<[f32; 6]> = slices.iter().map(|slice| [slice.rows as f32 / 1000.0; 6]).collect();
        match self.0.as_str() {
            "stall" if is_there => std::thread::sleep(Duration::from_secs(3600)),
            "slow" if is_there => std::thread::sleep(Duration::from_millis(1500)),
            "lost" if is_there => return Err(EngineError::of_device("The device was poisoned\nan illegal address")),
            "panic" if is_there => panic!("CUDA error: an illegal memory access was encountered"),
            "memory-alone" if is_there => {
                return Err(EngineError::of_device("out of device memory allocating 1 bytes"));
            }
            "memory" if slices.len() > 3 => panic!("out of device memory allocating {} bytes", slices.len()),
            "always-lost" if !slices[0].ids.instance.is_empty() => {
                return Err(EngineError::Device("gone".into()));
            }
            "nan" => {
                for (row, _) in logits.iter_mut().zip(slices).filter(|(_, slice)| is_guilty(slice)) {
                    row[3] = f32::NAN;
                }
            }
            "infinite" => {
                for (row, _) in logits.iter_mut().zip(slices).filter(|(_, slice)| is_guilty(slice)) {
                    row[0] = f32::INFINITY;
                }
            }
            _ => {}
        }
        Ok(EngineOutput { logits, window_time: Tick::ZERO, infer_time: Tick::ZERO })
    }

    fn uploader(&self) -> Option<Box<dyn Uploader>> {
        self.0.starts_with("upload").then(|| Box::new(Faulty(self.0.clone())) as Box<dyn Uploader>)
    }

    /// Says what the images say, which stand for its slices.
    fn score_images(&mut self, slices: &[&Slice], images: Images, _: &dyn Clock) -> Result<EngineOutput, EngineError> {
        let values: Vec<f32> = images.tensor.into_data().try_to_vec().unwrap();
        assert_eq!(values, brightness(slices), "images of other slices");
        let logits = values.into_iter().map(|value| [value; 6]).collect();
        Ok(EngineOutput { logits, window_time: images.window_time, infer_time: Tick::ZERO })
    }
}

impl Uploader for Faulty {
    fn upload(&mut self, slices: &[&Slice], _: &dyn Clock) -> Result<Images, EngineError> {
        let is_there = slices.iter().any(|slice| slice.ids.instance == instance_uid(GUILTY));
        match self.0.as_str() {
            "upload-stall" if is_there => std::thread::sleep(Duration::from_secs(3600)),
            "upload-panic" if is_there => panic!("out of device memory allocating 1 bytes"),
            _ => {}
        }
        let values = Tensor::<1>::from_floats(brightness(slices).as_slice(), &Device::flex());
        let tensor = values.reshape([slices.len(), 1, 1, 1]);
        Ok(Images { tensor, n_slices: slices.len(), window_time: Tick::from_millis(7) })
    }
}

/// A number for each slice that no other has, and that no other way of scoring gives.
fn brightness(slices: &[&Slice]) -> Vec<f32> {
    let of = |slice: &&Slice| match &slice.pixels {
        Pixels::I16(values) => 2.0 + values.iter().map(|value| f32::from(*value)).sum::<f32>() / 1e6,
        Pixels::U16(values) => 2.0 + values.iter().map(|value| f32::from(*value)).sum::<f32>() / 1e6,
    };
    slices.iter().map(of).collect()
}

/// The machine's disk, except when it is told otherwise.
struct FaultyDisk(String, AtomicU64);

impl Files for FaultyDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn Handle>> {
        let is_guilty = path.ends_with(format!("inbox/{GUILTY}.dcm"));
        match self.0.as_str() {
            // As a stack that overflows in a decoder.
            "abort-reading" if is_guilty => std::process::abort(),
            "panic-writing" if how == Open::New && path.to_string_lossy().contains("results") => {
                assert!(self.1.fetch_add(1, Ordering::SeqCst) < 5, "on purpose");
            }
            // A share that is away for a while.
            "stale" if is_guilty && self.1.fetch_add(1, Ordering::SeqCst) < 7 => {
                return Err(rustix::io::Errno::STALE.into());
            }
            _ => {}
        }
        RealDisk.open(path, how)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        RealDisk.stat(path)
    }
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_folder(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_folder(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename_new(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<(OsString, bool)>> {
        RealDisk.list(folder)
    }
    fn space(&self, path: &Path) -> io::Result<Room> {
        RealDisk.space(path)
    }
    fn process(&self) -> String {
        RealDisk.process()
    }
    fn number(&self) -> u64 {
        RealDisk.number()
    }
}

/// What becomes of a decoder when the DICOM library speaks in the middle of its work: a seam that every program has that
/// listens to its own log, so the daemon needs none for it.
struct Saboteur(String);

impl<S: tracing::Subscriber> Layer<S> for Saboteur {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("dicom") {
            assert_ne!(self.0, "panic-decoding", "on purpose");
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// The slice with something in it that makes the DICOM library speak: a character set that it does not know, in the
/// functional groups.
fn talkative(slice: &[u8]) -> Vec<u8> {
    let element = |tag: [u8; 4], vr: &[u8; 2], value: &[u8]| {
        let long = matches!(vr, b"SQ" | b"OW");
        let length = (value.len() as u32).to_le_bytes();
        let head = if long { [&tag[..], vr, &[0, 0], &length].concat() } else { [&tag[..], vr, &length[..2]].concat() };
        [head, value.to_vec()].concat()
    };
    let charset = element([8, 0, 5, 0], b"CS", b"ICHD_BAD");
    let item = [&[0xFE, 0xFF, 0x00, 0xE0][..], &(charset.len() as u32).to_le_bytes(), &charset].concat();
    let groups = element([0x00, 0x52, 0x29, 0x92], b"SQ", &item);
    let pixels = slice.windows(6).position(|window| window == b"\xE0\x7F\x10\x00OW").unwrap();
    [&slice[..pixels], &groups, &slice[pixels..]].concat()
}

/// Calendar time jumps by decades at every look; the other kind runs on.
struct Jumping(SystemClock, AtomicU64);

impl Clock for Jumping {
    fn now(&self) -> Tick {
        self.0.now()
    }
    fn wall(&self) -> SystemTime {
        let year = Duration::from_secs(365 * 86_400);
        SystemTime::UNIX_EPOCH + year * [50, 10, 79, 30][self.1.fetch_add(1, Ordering::SeqCst) as usize % 4]
    }
    fn sleep(&self, how_long: Duration) {
        self.0.sleep(how_long);
    }
}

/// The daemon with a fault, if this process was started to be one; else nothing.
#[test]
fn child() {
    let (Some(fault), Some(file)) = (std::env::var_os("ICHD_FAULT"), std::env::var_os("ICHD_FAULT_CONFIG")) else {
        return;
    };
    let fault = fault.to_string_lossy().into_owned();
    let config = Config::load(Path::new(&file)).unwrap();
    if fault.ends_with("-decoding") {
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(LevelFilter::INFO);
        tracing_subscriber::registry().with(log).with(Saboteur(fault.clone())).init();
    }
    ichd::telemetry::start(&config.log, 0);
    let clock: Arc<dyn Clock> = match fault.as_str() {
        "clock" => Arc::new(Jumping(SystemClock::new(), AtomicU64::new(0))),
        _ => Arc::new(SystemClock::new()),
    };
    let supervisor = Arc::new(Supervisor::of_environment());
    let world = World {
        clock,
        disk: Arc::new(FaultyDisk(fault.clone(), AtomicU64::new(0))),
        ledger: Arc::new(Ledger::open(&config.ledger.path).unwrap()),
        roster: Roster::load(&config).map_err(|problems| problems[0].to_string()).unwrap(),
        device: device::choose(Want::Cpu).unwrap(),
        supervisor: Arc::clone(&supervisor),
        config,
    };
    let pipeline = Pipeline::start_with(world, vec![Box::new(Faulty(fault))], Source::Inbox, None).unwrap();
    supervisor.ready();
    let stop = pipeline.stop();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).unwrap();
    std::thread::spawn(move || signals.forever().for_each(|_| stop.wish()));
    let code = match pipeline.join() {
        Ok(count) => {
            eprintln!("Stopped: {count}");
            0
        }
        Err(fatal) => {
            eprintln!("ichd: {fatal}");
            fatal.exit as i32
        }
    };
    std::process::exit(code);
}

fn start(site: &Site, fault: &str) -> Program {
    start_heard(site, fault, None)
}

fn start_heard(site: &Site, fault: &str, notify: Option<&Path>) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["faults::device::child", "--exact", "--nocapture"]);
    command.env("ICHD_FAULT", fault).env("ICHD_FAULT_CONFIG", site.path("daemon.yaml")).env_remove("RUST_LOG");
    if let Some(path) = notify {
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "400000");
    }
    Program::spawn(site, command)
}

fn n_done(site: &Site) -> usize {
    files(&site.path("done")).len()
}

fn reason(site: &Site) -> String {
    fs::read_to_string(site.path(&format!("rejected/{GUILTY}.dcm.reason.json"))).unwrap()
}

/// All slices but the guilty one are done, once, and the guilty one is refused with the code.
fn assert_only_the_guilty_is_refused(site: &Site, n: u64, code: &str) {
    assert!(reason(site).contains(code), "{}", reason(site));
    assert_eq!(files(&site.path("rejected")).len(), 2, "the file and its reason");
    let found = results(&site.path("results"));
    assert_eq!(found.len() as u64, n - 1);
    assert!(!found.keys().any(|file| file.ends_with(format!("{}.json", instance_uid(GUILTY)))));
    assert_eq!(n_done(site) as u64, n - 1);
    assert_eq!(site.log_lines().len() as u64, n - 1);
}

/// Thirty slices, of which the guilty one makes the DICOM library speak.
fn put_all(site: &Site) {
    let stamp = Stamp::new();
    put_slices(site, &stamp, 0..GUILTY);
    put(&site.path("inbox"), &format!("{GUILTY}.dcm"), &talkative(&stamp.slice(GUILTY)));
    put_slices(site, &stamp, GUILTY + 1..30);
}

/// The process ends with `code` as often as a file may end it; then that file is refused and all others are done.
fn ends_three_times_and_refuses_the_guilty(fault: &str, code: Option<i32>, signal: Option<i32>) {
    let site = site("move", "limits: { step_secs_max: 1, stop_secs_max: 20 }\nbatch: { slices_max: 8 }\n");
    put_all(&site);
    for round in 1..=3 {
        let mut program = start(&site, fault);
        assert_eq!(program.ended(), (code, signal), "round {round}: {}", program.log());
        // Nothing is refused yet, and nothing is lost.
        assert_eq!(files(&site.path("rejected")), Vec::<PathBuf>::new(), "round {round}");
        assert_eq!(n_done(&site) + files(&site.path("inbox")).len(), 30);
    }
    let mut program = start(&site, fault);
    program.wait_until("the rest", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_only_the_guilty_is_refused(&site, 30, "poison");
}

#[test]
fn a_batch_that_stalls_the_device_ends_it_with_75_and_only_the_guilty_file_is_refused() {
    ends_three_times_and_refuses_the_guilty("stall", Some(75), None);
}

#[test]
fn a_lost_device_ends_it_with_69_and_only_the_guilty_file_is_refused() {
    ends_three_times_and_refuses_the_guilty("lost", Some(69), None);
}

#[test]
fn a_panic_of_the_device_library_ends_it_with_69() {
    ends_three_times_and_refuses_the_guilty("panic", Some(69), None);
}

#[test]
fn a_file_that_brings_the_process_down_is_refused_as_poison_after_three_times() {
    ends_three_times_and_refuses_the_guilty("abort-reading", None, Some(6));
}

/// A slice for which the device has no memory even when it comes alone: a restart does not change that.
#[test]
fn a_slice_that_fits_no_device_memory_is_refused_and_its_neighbors_are_not() {
    ends_three_times_and_refuses_the_guilty("memory-alone", Some(69), None);
}

#[test]
fn a_file_that_is_decoded_without_end_ends_it_with_75_and_is_refused_as_poison() {
    ends_three_times_and_refuses_the_guilty("hang-decoding", Some(75), None);
}

/// A panic in the middle of decoding costs the file and nothing else: the same process goes on with the others.
#[test]
fn a_decoder_that_panics_costs_its_file_only() {
    let site = site("move", "");
    put_all(&site);
    let mut program = start(&site, "panic-decoding");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    let log = program.stop();
    assert!(log.contains("The decoder panicked; this is a bug. The file is refused."), "{log}");
    assert!(log.contains("30 files: 29 done, 0 duplicates, 1 rejected"), "{log}");
    assert_only_the_guilty_is_refused(&site, 30, "corrupt-dicom");
    assert!(reason(&site).contains("the decoder failed on it"), "{}", reason(&site));
}

/// What was taken cannot be finished: SIGTERM is obeyed all the same, in the time that stopping may take.
#[test]
fn a_stop_that_takes_too_long_ends_it_with_75_and_loses_nothing() {
    let site = site("move", "limits: { step_secs_max: 600, stop_secs_max: 1 }\n");
    put_slices(&site, &Stamp::new(), 0..20);
    let mut program = start(&site, "stall");
    let is_taken = || -> rusqlite::Result<bool> {
        let ledger = rusqlite::Connection::open(site.path("ledger.sqlite"))?;
        let sql = "SELECT EXISTS (SELECT 1 FROM files WHERE path LIKE ? AND state = 'started' AND attempts = 0)";
        ledger.query_row(sql, [format!("%/{GUILTY}.dcm")], |row| row.get(0))
    };
    program.wait_until("the guilty one is decoded", || is_taken().unwrap_or(false));
    std::thread::sleep(Duration::from_millis(500));
    program.signal("TERM");
    let begun = Instant::now();
    assert_eq!(program.ended(), (Some(75), None), "{}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(program.log().contains("What was taken is not finished in limits.stop_secs_max"), "{}", program.log());
    let mut program = start(&site, "none");
    program.wait_until("the rest", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 20);
}

/// A device that loses every batch is not the files' fault: whoever went alone and well is never blamed again, and the
/// first try at the start is nobody's. Here the device fails for everybody, one restart; then it is well.
#[test]
fn a_device_that_comes_back_refuses_nobody() {
    let site = site("move", "");
    put_slices(&site, &Stamp::new(), 0..30);
    for _ in 0..2 {
        assert_eq!(start(&site, "always-lost").ended(), (Some(69), None));
    }
    let mut program = start(&site, "none");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 30);
    assert_eq!(n_done(&site), 30);
}

#[test]
fn a_slow_batch_within_the_limit_is_no_stall() {
    let site = site("move", "limits: { step_secs_max: 10, stop_secs_max: 20 }\n");
    put_slices(&site, &Stamp::new(), 0..20);
    let mut program = start(&site, "slow");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 20);
}

/// Stopped as a whole for longer than the limit, in the middle of a batch: that is no stall either.
#[test]
fn a_process_that_was_frozen_is_not_taken_for_one_that_stalls() {
    let site = site("move", "limits: { step_secs_max: 3, stop_secs_max: 20 }\n");
    put_slices(&site, &Stamp::new(), GUILTY..GUILTY + 1);
    let mut program = start(&site, "slow");
    // The batch takes a second and a half; it is frozen for five in the middle of it.
    program.wait_for_log("A route is open.");
    std::thread::sleep(Duration::from_millis(800));
    program.signal("STOP");
    std::thread::sleep(Duration::from_secs(5));
    program.signal("CONT");
    program.wait_until("the result", || n_done(&site) == 1);
    program.stop();
}

#[test]
fn out_of_memory_halves_batches_and_refuses_nobody() {
    let site = site("move", "batch: { slices_max: 16 }\n");
    put_slices(&site, &Stamp::new(), 0..60);
    let mut program = start(&site, "memory");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    let log = program.stop();
    assert!(log.contains("The device has no memory for so many slices at once"), "{log}");
    assert_all_done_once(site.folder.path(), 60);
}

#[test]
fn numbers_that_are_not_finite_become_a_reason_and_never_a_result() {
    for fault in ["nan", "infinite"] {
        let site = site("move", "");
        put_slices(&site, &Stamp::new(), 0..20);
        let mut program = start(&site, fault);
        program.wait_until("all", || files(&site.path("inbox")).is_empty());
        program.stop();
        assert_only_the_guilty_is_refused(&site, 20, "non-finite-output");
    }
}

/// Logits of all results that a site has.
fn logits(site: &Site) -> Vec<f64> {
    let logit = |bytes: &Vec<u8>| {
        let result: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        result["logits"]["any"].as_f64().unwrap()
    };
    results(&site.path("results")).values().map(logit).collect()
}

#[test]
fn batches_that_are_brought_ahead_of_their_turn_are_scored_once() {
    let site = site(
        "move",
        "batch: { slices_max: 4 }
",
    );
    put_slices(&site, &Stamp::new(), 0..60);
    let mut program = start(&site, "upload");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 60);
    assert!(logits(&site).iter().all(|logit| *logit >= 1.5), "all of them by their images: {:?}", logits(&site));
}

/// What cannot be brought ahead is left to the device's thread.
#[test]
fn an_upload_that_fails_costs_nothing_but_its_time() {
    let site = site(
        "move",
        "batch: { slices_max: 4 }
",
    );
    put_slices(&site, &Stamp::new(), 0..40);
    let mut program = start(&site, "upload-panic");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 40);
    let n_later = logits(&site).iter().filter(|logit| **logit < 1.5).count();
    assert!((1..=4).contains(&n_later), "the guilty one's batch alone: {n_later}");
}

#[test]
fn an_upload_that_stalls_ends_it_with_75_and_its_files_go_alone_then() {
    let site = site("move", "limits: { step_secs_max: 1, stop_secs_max: 20 }\nbatch: { slices_max: 4 }\n");
    put_slices(&site, &Stamp::new(), 0..30);
    let mut program = start(&site, "upload-stall");
    assert_eq!(program.ended(), (Some(75), None), "{}", program.log());
    let mut program = start(&site, "upload-stall");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 30);
}

/// Signs of life come from the work loop: they cease when the device hangs.
#[test]
fn signs_of_life_cease_when_the_device_hangs() {
    let site = site("move", "limits: { step_secs_max: 6, stop_secs_max: 20 }\n");
    let path = site.path("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut program = start_heard(&site, "stall", Some(&path));
    program.wait_until("it starts", || site.path("ledger.sqlite").exists());
    let mut buffer = [0; 64];
    let mut hear = || listener.recv(&mut buffer).is_ok();
    while !hear() {}
    for _ in 0..5 {
        assert!(hear(), "no sign while it idled");
    }
    put_slices(&site, &Stamp::new(), GUILTY..GUILTY + 1);
    // Signs come until the slice is on the device; then none does, for longer than the period of the supervisor.
    while hear() {}
    assert!(program.is_running(), "it was still alive when the signs had ceased");
    assert_eq!(program.ended(), (Some(75), None), "{}", program.log());
}

/// A panic in a thread ends the process, and says whose it was; the next start goes on.
#[test]
fn a_panic_in_a_thread_ends_it_with_70_and_the_next_start_goes_on() {
    let site = site("move", "");
    put_slices(&site, &Stamp::new(), 0..30);
    let mut program = start(&site, "panic-writing");
    assert_eq!(program.ended(), (Some(70), None), "{}", program.log());
    assert!(program.log().contains("the stage record panicked; this is a bug"), "{}", program.log());
    let mut program = start(&site, "none");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 30);
}

/// A handle that went stale, as on a share whose server was started again: the file waits and is done.
#[test]
fn a_stale_share_costs_no_file() {
    let site = site("move", "");
    put_slices(&site, &Stamp::new(), 0..20);
    let mut program = start(&site, "stale");
    program.wait_until("all", || files(&site.path("inbox")).is_empty());
    program.stop();
    assert_all_done_once(site.folder.path(), 20);
    assert_eq!(n_done(&site), 20);
}

/// The calendar jumps by decades all the time: nothing is decided by it.
#[test]
fn a_clock_that_jumps_decides_nothing() {
    let site = site("move", "");
    put_slices(&site, &Stamp::new(), 0..40);
    for first in [0, 40] {
        put_slices(&site, &Stamp::new(), first..first + 40);
        let mut program = start(&site, "clock");
        program.wait_until("all", || n_done(&site) as u64 == first + 40);
        program.stop();
    }
    assert_all_done_once(site.folder.path(), 80);
    assert!(files(&site.path("results/log")).len() > 1, "lines of several days");
}
