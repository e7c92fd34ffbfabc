//! What must hold: after each step, after each start, and at rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ichd::admit::path_key;
use ichd::config::After;
use ichd::identity::sha256;
use ichd::ledger::{FileState, SliceRecord};
use serde_json::Value;

use super::sender::{self, Content, Kind, NAN_PIXEL};
use super::world::{Violation, World};

const RESULTS: &str = "/site/results";
const LOGS: &str = "/site/results/log";

fn must(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(sentence())) }
}

/// After each step: admitted = done + duplicates + rejected + returned + in flight, and no result changed.
pub fn always(world: &mut World) -> Result<(), Violation> {
    if let Some(daemon) = &world.daemon {
        let (count, tickets) = (daemon.tally.count(), daemon.tickets());
        must(count.in_flight() == Some(tickets.len() as u64), || {
            format!("{count}, {} returned, but {} in flight", count.returned, tickets.len())
        })?;
    }
    let (replaced, torn_away) = {
        let mut platters = world.parts.files.platters();
        (std::mem::take(&mut platters.replaced), std::mem::take(&mut platters.sent.torn_away))
    };
    for change in replaced {
        let after = change.after.as_deref();
        must(after == Some(change.before.as_slice()), || {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!(
                "the result {} changed from\n{}\nto\n{}",
                change.path.display(),
                text(&change.before),
                after.map_or("nothing".into(), text)
            )
        })?;
    }
    must(torn_away.is_empty(), || format!("taken while it grew: {torn_away:?}"))
}

/// A slice result that is whole.
fn result(world: &World, path: &Path) -> Result<Value, Violation> {
    let bytes = world.parts.files.bytes(path);
    let bytes = bytes.ok_or_else(|| Violation(format!("{} is missing", path.display())))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Violation(format!("{} is torn ({} bytes): {error}", path.display(), bytes.len())))?;
    must(value["created"].is_string() && bytes.ends_with(b"}\n"), || format!("{} is not whole", path.display()))?;
    Ok(value)
}

fn rows(world: &World) -> Vec<(i64, SliceRecord)> {
    let weather = world.parts.chaos.weather();
    world.parts.chaos.set_weather(|weather| *weather = Default::default());
    let rows = world.daemon.as_ref().unwrap().ledger.slices_after(0).unwrap();
    world.parts.chaos.set_weather(|now| *now = weather);
    rows
}

/// What is on record has its result and its line in the log.
pub fn after_start(world: &mut World) -> Result<(), Violation> {
    let armed = world.parts.chaos.disarm();
    let checked = of_record(world);
    world.parts.chaos.arm(armed);
    checked
}

fn of_record(world: &World) -> Result<(), Violation> {
    let rows = rows(world);
    for (_, row) in &rows {
        let result = result(world, &Path::new(RESULTS).join(&row.result))?;
        let is_same = result["study_uid"] == row.study.as_str()
            && result["instance_uid"] == row.instance.as_str()
            && result["source"]["picture_sha256"] == row.key.picture.as_str();
        must(is_same, || format!("{} is not the result of its row", row.result))?;
    }
    let lines = log_lines(world)?;
    for (seq, row) in &rows {
        must(lines.get(seq).map(String::as_str) == Some(&row.instance), || {
            format!("row {seq} has no line in the log")
        })?;
    }
    Ok(())
}

/// Instances by the numbers of their rows.
fn log_lines(world: &World) -> Result<HashMap<i64, String>, Violation> {
    let mut lines = HashMap::new();
    for path in world.parts.files.tree(Path::new(LOGS)) {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let bytes = world.parts.files.bytes(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        must(text.is_empty() || text.ends_with('\n'), || format!("{} ends in a torn line", path.display()))?;
        for line in text.lines() {
            let torn = |_| Violation(format!("{} holds a torn line: {line}", path.display()));
            let value: Value = serde_json::from_str(line).map_err(torn)?;
            let (seq, instance) = (value["seq"].as_i64().unwrap(), value["instance_uid"].as_str().unwrap());
            let twin = lines.insert(seq, instance.to_owned());
            must(twin.is_none(), || format!("row {seq} stands twice in the log"))?;
        }
    }
    Ok(lines)
}

/// What can be seen in the inbox has its outcome, without the help of another start.
pub fn nothing_waits(world: &World) -> Result<(), Violation> {
    let ledger = &world.daemon.as_ref().unwrap().ledger;
    for path in world.parts.files.tree(Path::new("/site/inbox")) {
        if ichd::watch::is_unfinished_name(&path) {
            continue;
        }
        let (record, print) = (ledger.file(&path_key(&path)).unwrap(), world.parts.files.print(&path).unwrap());
        let is_settled = record.as_ref().is_some_and(|r| r.fingerprint == print && r.state != FileState::Started);
        must(is_settled, || format!("{} waits for another start: {record:?}, now {print:?}", path.display()))?;
    }
    Ok(())
}

/// Everything that came in is accounted for, and nothing else came out.
pub fn at_rest(world: &mut World) -> Result<(), Violation> {
    let daemon = world.daemon.as_ref().unwrap();
    must(daemon.tickets().is_empty(), || "files are still on their way".into())?;
    after_start(world)?;
    let rows = rows(world);
    let on_record: HashSet<PathBuf> = rows.iter().map(|(_, row)| Path::new(RESULTS).join(&row.result)).collect();
    must(on_record.len() == rows.len(), || "two rows have one result".into())?;
    let files = world.parts.files.clone();
    for (_, row) in &rows {
        was_sent(world, row)?;
    }
    // A crash came before the row, and then the sender took the file back, or it could not be read any more.
    let withdrawn = std::mem::take(&mut files.platters().sent.withdrawn);
    let reasons = reasons(world)?;
    let sent = files.platters();
    let unread: Vec<Content> = sent
        .sent
        .taken
        .iter()
        .map(|(path, content)| (path, content))
        .chain(&sent.sent.stands)
        .filter(|(path, _)| reasons.of_unread(path).next().is_some())
        .map(|(_, content)| content.clone())
        .collect();
    drop(sent);
    let is_orphan = |path: &Path| {
        withdrawn.iter().chain(&unread).any(|content| {
            let Kind::Slices { study, instance, .. } = &content.kind else { return false };
            path.parent().is_some_and(|folder| folder.ends_with(study))
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(instance.as_str()))
        })
    };
    for path in files.tree(Path::new(RESULTS)) {
        let is_slice = path.extension().is_some_and(|e| e == "json") && !path.ends_with("study.json");
        must(!is_slice || on_record.contains(&path) || is_orphan(&path), || format!("{} has no row", path.display()))?;
        let is_temporary = path.extension().is_some_and(|e| e == "tmp");
        must(!is_temporary, || format!("{} was left behind", path.display()))?;
    }
    studies(world, &rows)?;
    let mut contents = std::mem::take(&mut files.platters().sent.taken);
    contents.extend(still_there(world)?);
    world.count_of("inputs", contents.len() as u64);
    for (path, content) in &contents {
        account(world, path, content, &reasons)?;
    }
    Ok(())
}

/// A result is of a slice that somebody sent, not of one that a reader mixed from two.
fn was_sent(world: &World, row: &SliceRecord) -> Result<(), Violation> {
    let all = world.parts.files.platters().sent.all.clone();
    for content in &all {
        let Kind::Slices { study, instance, frames } = &content.kind else { continue };
        if (study, instance) != (&row.study, &row.instance) {
            continue;
        }
        let frame = (row.frame > 0).then(|| row.frame as usize - 1);
        if let Some(pixels) = frames.get(frame.unwrap_or(0))
            && has_result(world, study, instance, frame, pixels)?
        {
            return Ok(());
        }
    }
    Err(Violation(format!("{} is the result of a slice that nobody sent", row.result)))
}

/// A study's summary holds all of its slices.
fn studies(world: &World, rows: &[(i64, SliceRecord)]) -> Result<(), Violation> {
    let mut slices: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, row) in rows {
        *slices.entry(&row.study).or_default() += 1;
    }
    for (study, n_slices) in slices {
        let path = Path::new(RESULTS).join(ichd::results::study_path(study));
        let summary = result(world, &path)?;
        must(summary["n_slices"] == n_slices, || format!("{} has not its {n_slices} slices", path.display()))?;
    }
    Ok(())
}

/// What senders believe to be in the inbox: what is, must be on record, and the rest was taken.
fn still_there(world: &mut World) -> Result<Vec<(PathBuf, Content)>, Violation> {
    let stands = std::mem::take(&mut world.parts.files.platters().sent.stands);
    let ledger = world.daemon.as_ref().unwrap().ledger.clone();
    for path in world.parts.files.tree(Path::new("/site/inbox")) {
        if ichd::watch::is_unfinished_name(&path) {
            let is_senders = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".away-"));
            must(is_senders, || format!("{} was left behind", path.display()))?;
            continue;
        }
        let record = ledger.file(&path_key(&path)).unwrap();
        let print = world.parts.files.print(&path).unwrap();
        let is_settled = record.as_ref().is_some_and(|r| r.fingerprint == print && r.state != FileState::Started);
        must(is_settled, || format!("{} lies in the inbox for ever: {record:?}, now {print:?}", path.display()))?;
        must(world.config.inbox.after == After::Keep, || format!("{} was not disposed of", path.display()))?;
    }
    Ok(stands.into_iter().collect())
}

/// Reasons by the digest of the file, and names of files that have one without a digest.
struct Reasons {
    by_digest: HashMap<String, Vec<String>>,
    unread: HashMap<String, Vec<String>>,
}

impl Reasons {
    /// Why a file was refused unread.
    fn of_unread(&self, path: &Path) -> impl Iterator<Item = &String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // An input that was cut off on its way out has another name by now.
        let is_its = move |file: &str| file == name || file.starts_with("left-");
        self.unread.iter().filter(move |(file, _)| is_its(file)).flat_map(|(_, codes)| codes)
    }
}

fn reasons(world: &World) -> Result<Reasons, Violation> {
    let mut reasons = Reasons { by_digest: HashMap::new(), unread: HashMap::new() };
    for path in world.parts.files.tree(Path::new("/site/rejected")) {
        if !path.to_string_lossy().ends_with(".reason.json") {
            continue;
        }
        let bytes = world.parts.files.bytes(&path).unwrap();
        let torn = |error| Violation(format!("{} is torn: {error}", path.display()));
        let reason: Value = serde_json::from_slice(&bytes).map_err(torn)?;
        let code = reason["code"].as_str().unwrap().to_owned();
        match reason["sha256"].as_str() {
            Some(digest) => reasons.by_digest.entry(digest.to_owned()).or_default().push(code),
            None => reasons.unread.entry(reason["file"].as_str().unwrap().to_owned()).or_default().push(code),
        }
    }
    Ok(reasons)
}

/// A file that was taken has its results, or a reason that is true, and lies where it was put.
fn account(world: &mut World, path: &Path, content: &Content, reasons: &Reasons) -> Result<(), Violation> {
    let digest = sha256(&content.bytes);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let read = reasons.by_digest.get(&digest).cloned().unwrap_or_default();
    let unread: Vec<String> = reasons.of_unread(path).cloned().collect();
    for code in read.iter().chain(&unread) {
        world.count(code_word(code));
    }
    let faults = world.parts.chaos.faults();
    let n_ends = world.ends_while_decoding.get(path).copied().unwrap_or(0);
    // The begin of an attempt is not synced, and its end neither: a power cut may keep the one and lose the other.
    let n_cuts = world.coverage.get("power cuts").copied().unwrap_or(0) as u32;
    let is_counted = n_ends + n_cuts >= world.config.inbox.attempts_max;
    let is_poisoned = unread.iter().any(|code| code == "poison") && is_counted;
    let is_unreadable = unread.iter().any(|code| code == "unreadable") && faults > 0;
    let is_excused = is_poisoned || is_unreadable;
    match &content.kind {
        Kind::Refused => must(!read.is_empty() || is_excused, || format!("{name} has no reason"))?,
        Kind::Poison => must(is_excused || read.iter().any(|code| code == "not-dicom"), || {
            format!("{name} is poison and was not refused: it ended {n_ends} processes, {unread:?}")
        })?,
        Kind::Slices { study, instance, frames } => {
            let honest = ["uid-conflict", "non-finite-output"];
            let lie = read.iter().find(|code| !honest.contains(&code.as_str()));
            must(lie.is_none(), || format!("{name} is refused as {lie:?}"))?;
            let mut missing = Vec::new();
            for (idx, pixels) in frames.iter().enumerate() {
                let is_several = frames.len() > 1;
                if pixels[0] == NAN_PIXEL || !has_result(world, study, instance, is_several.then_some(idx), pixels)? {
                    missing.push(idx);
                }
            }
            must(missing.is_empty() || !read.is_empty() || is_excused, || {
                format!("{name} ({study}, {instance}, {} frames) has neither results nor a reason", frames.len())
            })?;
        }
    }
    if world.config.inbox.after == After::Move && world.config.retention == Default::default() {
        let roots = ["/site/done", "/site/rejected", "/site/inbox"].map(Path::new);
        let files = &world.parts.files;
        let is_kept = roots
            .iter()
            .flat_map(|root| files.tree(root))
            .any(|path| files.bytes(&path) == Some(content.bytes.to_vec()));
        must(is_kept, || format!("the bytes of {name} are gone"))?;
    }
    Ok(())
}

/// Whether the result of a slice says what the network said of exactly these pixels.
fn has_result(
    world: &World,
    study: &str,
    instance: &str,
    frame: Option<usize>,
    pixels: &[i16],
) -> Result<bool, Violation> {
    let frame = frame.map(|idx| idx as u32 + 1);
    let name = ichd::names::instance_component(instance, frame);
    let path = Path::new(RESULTS).join(format!("{study}/{name}.json"));
    if world.parts.files.bytes(&path).is_none() {
        return Ok(false);
    }
    let result = result(world, &path)?;
    let said: Option<Vec<f64>> =
        result["logits"].as_object().and_then(|logits| logits.values().map(Value::as_f64).collect());
    let expected: Vec<f64> = sender::logits(pixels).iter().map(|logit| f64::from(*logit)).collect();
    let is_same = said.is_some_and(|said| said.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    Ok(is_same)
}

fn code_word(code: &str) -> &'static str {
    ichd::reject::RejectCode::from_word(code).map_or("unknown code", |code| code.word())
}
