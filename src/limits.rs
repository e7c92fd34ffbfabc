//! Every bound that is no setting, with the reason for its size.

/// Sightings that may wait to be noted: as many events as Linux keeps by itself. Those of a burst that are lost cost its files
/// a scan or two. A path is small.
pub const SIGHTINGS_QUEUE: usize = 16_384;

/// Sightings that are noted before files are let in again and verdicts are told: results wait for verdicts, and a scan may
/// bring very many sightings.
pub const SIGHTINGS_A_TURN: usize = 64;

/// Admissions that may wait for the decoders. More would only hide back-pressure.
pub const ADMITTED_QUEUE: usize = 64;

/// Files that are worked on before they have settled. What comes of them, without pixels, is held in memory until they have.
pub const AHEAD_MAX: usize = 1024;

/// Results of such files that lie ready on the disk under temporary names. A file of many frames has many.
pub const READY_MAX: usize = AHEAD_MAX;

/// Verdicts on such files that may wait for the recorder.
pub const VERDICTS_QUEUE: usize = AHEAD_MAX;

/// Decoded slices on their way to the queues of the routes. More would wait where nobody can tell urgent ones.
pub const BATCH_QUEUE: usize = 1;

/// Batches that may wait for the device: one is prefetched while another computes. An urgent slice cannot overtake it.
pub const DEVICE_QUEUE: usize = 1;

/// Messages that may wait to be recorded. A scored batch is one message, a rejection too.
pub const RECORD_QUEUE: usize = 64;

/// Longest identifier that is used as a file name as it stands.
pub const NAME_LEN_MAX: usize = 64;

/// Deepest folder below the inbox that is scanned.
pub const INBOX_DEPTH_MAX: usize = 32;

/// Times that a file which cannot be read goes back to the watcher before it is refused: each takes a scan or two, so that
/// a share may be away for a minute.
pub const READ_ROUNDS: u32 = 6;

/// Times that a failed write is tried before the daemon gives up with exit code 74. For room it waits without end.
pub const WRITE_ATTEMPTS: u32 = 5;

/// First pause between two such tries; it doubles each time.
pub const WRITE_PAUSE_MS: u64 = 100;

/// Longest such pause.
pub const WRITE_PAUSE_MS_MAX: u64 = 10_000;

/// Fewest files that a file system must still be able to take: what is in flight makes that many at most, many times over.
pub const FREE_FILES_MIN: u64 = 10_000;

/// How often room is looked at.
pub const ROOM_LOOK_MS: u64 = 500;

/// How often old files are looked for. A clock that is set within this time deletes nothing (see `retention`).
pub const RETENTION_SECS: u64 = 3600;

/// Most files that are deleted before the wish to stop is looked at again.
pub const RETENTION_FILES: usize = 1000;

/// Most windows, and so input channels.
pub const WINDOWS_MAX: usize = 16;

/// Most routes. Each slice is held against all of them.
pub const ROUTES_MAX: usize = 64;

/// Most models of one route.
pub const ROUTE_MODELS_MAX: usize = 16;

/// Full batches' worth of slices that may wait for the device, all routes together. Slices are half a megabyte each;
/// fewer would keep an urgent slice outside while others wait inside.
pub const HELD_BATCHES: usize = 4;

/// Batches of urgent routes that may go one after the other while another route waits.
pub const URGENT_IN_A_ROW: usize = 3;

const _: () = assert!(DEVICE_QUEUE >= 1 && RECORD_QUEUE >= 1 && ADMITTED_QUEUE >= 1);
