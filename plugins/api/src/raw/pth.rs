//! PyTorch's files: a ZIP archive with a pickle and storages (PyTorch 1.6 and later), or pickles with the storages behind
//! them (before, and with `_use_new_zipfile_serialization=False`). Knows no network.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pickle::{self, Id, Pickle, Value, View};
use super::zip::Archive;
use super::{Bag, RawTensor, plain};

/// Largest pickle of an archive in bytes. Weights lie outside it.
const PICKLE_MAX: usize = 64 << 20;

/// Keys under which programs keep the weights in a checkpoint, the first that is there counts.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model_state", "model", "ema", "state_dict_ema"];

/// How deep such keys may stand in one another.
const WRAPPERS_DEEP: usize = 3;

/// First value of a file that is no archive.
const MAGIC: &[u8] = &[0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

pub(super) fn read(bytes: &[u8]) -> Result<Bag<'_>, String> {
    if bytes.starts_with(b"PK") { read_archive(bytes) } else { read_pickles(bytes) }
}

fn read_archive(bytes: &[u8]) -> Result<Bag<'_>, String> {
    let archive = Archive::open(bytes)?;
    let root = archive
        .names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .min_by_key(|root| root.len());
    let Some(root) = root else {
        if archive.names().any(|name| name == "model.weights.h5") {
            return Err("is a Keras file; tools/keras_to_safetensors.py makes a safetensors file of it".into());
        }
        return Err("is an archive, but none of PyTorch: it has no data.pkl".into());
    };
    let order = format!("{root}byteorder");
    if archive.names().any(|name| name == order) && archive.get(&order)?.trim_ascii() != b"little" {
        return Err("was written on a machine with another order of bytes".into());
    }
    let content = archive.get(&format!("{root}data.pkl"))?;
    if content.len() > PICKLE_MAX {
        return Err(format!("its pickle has more than {PICKLE_MAX} bytes"));
    }
    let pickle = pickle::read(content, &mut 0)?;
    bag(&pickle, &|key| archive.get(&format!("{root}data/{key}")))
}

fn read_pickles(bytes: &[u8]) -> Result<Bag<'_>, String> {
    let at = &mut 0;
    let magic = pickle::read(bytes, at)?;
    if !matches!(magic.value(magic.root), Value::Bytes(MAGIC)) {
        return Err("is a pickle, but none of PyTorch".into());
    }
    let protocol = pickle::read(bytes, at)?;
    if !matches!(protocol.value(protocol.root), Value::Int(PROTOCOL)) {
        return Err("has another format than PyTorch's".into());
    }
    // Who wrote it: its order of bytes, which has been little-endian on every machine that PyTorch runs on.
    pickle::read(bytes, at)?;
    let main = pickle::read(bytes, at)?;
    let keys = pickle::read(bytes, at)?;
    let Value::List(order) = keys.value(keys.root) else { return Err("lacks the list of its storages".into()) };
    let mut sizes = BTreeMap::new();
    for value in &main.values {
        if let Value::Storage(storage) = value {
            sizes.insert(storage.key, (storage.number, storage.count));
        }
    }
    let mut storages = BTreeMap::new();
    for id in order {
        let Value::Text(key) = keys.value(*id) else { return Err("the key of a storage is no text".into()) };
        let (number, count) = *sizes.get(key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let cut = || format!("storage {key} is cut short");
        let (said, rest) = bytes.get(*at..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(cut)?;
        if u64::from_le_bytes(*said) != count as u64 {
            return Err(format!("storage {key} has another size than its tensors say"));
        }
        let len = count.checked_mul(number.size()).ok_or_else(cut)?;
        storages.insert(*key, rest.get(..len).ok_or_else(cut)?);
        *at += 8 + len;
    }
    bag(&main, &|key| storages.get(key).copied().ok_or_else(|| format!("storage {key} is missing")))
}

/// Finds a storage's bytes by its key.
type Storages<'s, 'a> = &'s dyn Fn(&str) -> Result<&'a [u8], String>;

/// The tensors of a pickle, taken out of what programs wrap around them.
fn bag<'a>(pickle: &Pickle<'a>, storages: Storages<'_, 'a>) -> Result<Bag<'a>, String> {
    let mut bag = Bag::default();
    let mut dict = entries(pickle, pickle.root)?;
    for _ in 0..WRAPPERS_DEEP {
        if dict.values().any(|id| matches!(pickle.value(*id), Value::Tensor(_))) {
            break;
        }
        let wrapper =
            WRAPPERS.iter().find(|key| dict.get(**key).is_some_and(|id| matches!(pickle.value(*id), Value::Dict(_))));
        let Some(wrapper) = wrapper else { break };
        let others: Vec<&str> = dict.keys().copied().filter(|key| key != wrapper).collect();
        let beside = if others.is_empty() { String::new() } else { format!("; beside it stand {}", others.join(", ")) };
        bag.notes.push(format!("the tensors stand under `{wrapper}`{beside}"));
        dict = entries(pickle, dict[*wrapper])?;
    }
    for (name, id) in &dict {
        match pickle.value(*id) {
            Value::Tensor(view) => {
                let tensor = tensor(view, storages).map_err(|reason| format!("tensor {name}: {reason}"))?;
                bag.tensors.insert((*name).to_owned(), tensor);
            }
            _ => bag.others.push((*name).to_owned()),
        }
    }
    if bag.tensors.is_empty() {
        let keys: Vec<&str> = dict.keys().copied().take(20).collect();
        return Err(format!("holds no tensors by name; at its top stand: {}", keys.join(", ")));
    }
    Ok(bag)
}

/// A dictionary's entries whose keys are texts.
fn entries<'a>(pickle: &Pickle<'a>, id: Id) -> Result<BTreeMap<&'a str, Id>, String> {
    let Value::Dict(pairs) = pickle.value(id) else { return Err("holds no dictionary of tensors".into()) };
    let mut entries = BTreeMap::new();
    for (key, value) in pairs {
        let Value::Text(key) = pickle.value(*key) else { continue };
        plain(key)?;
        if entries.insert(*key, *value).is_some() {
            return Err(format!("the key {key} stands twice"));
        }
    }
    Ok(entries)
}

fn tensor<'a>(view: &View<'a>, storages: Storages<'_, 'a>) -> Result<RawTensor<'a>, String> {
    let size = view.storage.number.size();
    let bytes = storages(view.storage.key)?;
    let whole = view.storage.count.checked_mul(size).and_then(|len| bytes.get(..len));
    let whole = whole.ok_or_else(|| format!("its storage {} is cut short", view.storage.key))?;
    let start = view.offset.checked_mul(size).and_then(|start| whole.get(start..));
    let start = start.ok_or("it begins beyond its storage")?;
    RawTensor::new(view.shape.clone(), Some(view.strides.clone()), view.storage.number, Cow::Borrowed(start))
}
