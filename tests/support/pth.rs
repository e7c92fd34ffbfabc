//! Writes a state dict as PyTorch does: a ZIP archive of stored entries, a pickle of protocol 2, one storage a tensor.

use ichd_plugin::weights::Weights;

/// The content of a `.pth` file. `prefix` goes before every name, as DataParallel puts `module.`.
pub fn pth(weights: &Weights, prefix: &str) -> Vec<u8> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    let mut entries = vec![("archive/byteorder".to_owned(), b"little".to_vec())];
    for (key, (name, entry)) in weights.iter().enumerate() {
        text(&mut pickle, &format!("{prefix}{name}"));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, entry.values.len());
        pickle.extend(b"tQK\x00(");
        entry.shape.iter().for_each(|side| number(&mut pickle, *side));
        pickle.extend(b"t(");
        let strides = (0..entry.shape.len()).map(|at| entry.shape[at + 1..].iter().product());
        strides.for_each(|stride| number(&mut pickle, stride));
        pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        let bytes = entry.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entries.push((format!("archive/data/{key}"), bytes));
    }
    pickle.extend(b"u.");
    entries.insert(0, ("archive/data.pkl".to_owned(), pickle));
    zip(&entries)
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn number(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend((number as i32).to_le_bytes());
}

/// An archive whose entries are stored as they are, without checksums.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = file.len() as u32;
        // Version, flags, method, time, date, checksum, both sizes, lengths of name and extra field.
        let mut common = [20u16, 0, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        common.extend([0u32, bytes.len() as u32, bytes.len() as u32].iter().flat_map(|word| word.to_le_bytes()));
        common.extend([name.len() as u16, 0].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]); // comment, disk, attributes
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (file.len() as u32, entries.len() as u16);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count, count].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([directory.len() as u32, start].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([0; 2]);
    file
}
