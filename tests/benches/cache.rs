//! The decoded cache against the page cache: bytes a second of all slices in shuffled order from the cache, and of the same
//! files read from front to back with `read`. Run with `cargo bench --workspace --bench cache`.
//!
//! With `-- index 750000`: how long it takes to open a cache of so many slices, all of which are there, and how much memory.
//! The slices are one and the same, under names as long as RSNA's.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ichd::phantom::{PhantomOptions, write_dataset};
use ichd::trainer::cache::{self, CacheOptions, Wanted};
use ichd::watch::list_files;
use ichd_kernels::StoredPixels;

const ROUNDS: usize = 9;

fn sum(values: &[i16]) -> i64 {
    values.iter().map(|value| i64::from(*value)).sum()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// A line of `/proc/self/status`, in megabytes.
fn memory(key: &str) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    let kilobytes: f64 = line.trim_start_matches(':').trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Opens a cache whose index speaks of `count` slices.
fn index(count: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let heads = folder.path().join("heads");
    write_dataset(&heads, &PhantomOptions { studies: 1, ..PhantomOptions::default() }, &|_, _| {})?;
    let is_slice = |file: &PathBuf| file.extension().is_some_and(|e| e == "dcm");
    let file = list_files(&heads)?.into_iter().find(is_slice).ok_or("no slice")?;
    let options = CacheOptions {
        folder: folder.path().join("cache"),
        side: None,
        rules: ichd::dicom::AdmissionRules::default(),
        file_bytes_max: 1 << 30,
    };
    drop(cache::open(&options, &[Wanted { instance: "ID_000000000", path: &file }], &|_| {}, &|| false)?);
    let index = options.folder.join("full/index.jsonl");
    let line = std::fs::read_to_string(&index)?;
    let names: Vec<String> = (0..count).map(|at| format!("ID_{at:09x}")).collect();
    let mut writer = BufWriter::new(File::create(&index)?);
    for name in &names {
        writer.write_all(line.replace("ID_000000000", name).as_bytes())?;
    }
    writer.flush()?;
    drop(writer);
    let bytes = std::fs::metadata(&index)?.len();
    let wanted: Vec<Wanted<'_>> = names.iter().map(|instance| Wanted { instance, path: &file }).collect();
    // The peak counts from here on.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = memory("VmRSS")?;
    let begun = Instant::now();
    let (cache, built) = cache::open(&options, &wanted, &|_| {}, &|| false)?;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((built.kept, built.decoded), (count, 0));
    println!("{count} slices, an index of {:.0} MB, opened in {seconds:.2} s", bytes as f64 / 1e6);
    println!("resident before        {before:.0} MB");
    println!("peak while it opened   {:.0} MB", memory("VmHWM")?);
    println!("resident afterwards    {:.0} MB", memory("VmRSS")?);
    drop(cache);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [word, count] = words.as_slice()
        && word == "index"
    {
        return index(count.parse()?);
    }
    let folder = tempfile::tempdir()?;
    let heads = folder.path().join("heads");
    let options = PhantomOptions { studies: 10, ..PhantomOptions::default() };
    write_dataset(&heads, &options, &|_, _| {})?;
    let files: Vec<PathBuf> =
        list_files(&heads)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "dcm")).collect();
    let names: Vec<String> = files.iter().filter_map(|file| Some(file.file_stem()?.to_string_lossy().into())).collect();
    let wanted: Vec<Wanted<'_>> = files.iter().zip(&names).map(|(path, instance)| Wanted { instance, path }).collect();
    let options = CacheOptions {
        folder: folder.path().join("cache"),
        side: None,
        rules: ichd::dicom::AdmissionRules::default(),
        file_bytes_max: 1 << 30,
    };
    let begun = Instant::now();
    let (cache, built) = cache::open(&options, &wanted, &|_| {}, &|| false)?;
    let decoded = built.decoded as f64 / begun.elapsed().as_secs_f64();
    // A fixed shuffle: the epoch's order must not matter.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|at| (*at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let shards: Vec<PathBuf> =
        list_files(&options.folder)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "raw")).collect();

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut buffer = vec![0i16; 1 << 18];
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut total = 0;
        for at in &order {
            if let Some(view) = cache.view(*at) {
                total += match view.pixels {
                    StoredPixels::I16(values) => sum(values),
                    StoredPixels::U16(values) => sum(bytemuck::cast_slice(values)),
                };
            }
        }
        black_box(total);
        ours.push(begun.elapsed());
        let begun = Instant::now();
        let mut total = 0;
        for shard in &shards {
            let mut file = File::open(shard)?;
            loop {
                let read = file.read(bytemuck::cast_slice_mut(&mut buffer))?;
                if read == 0 {
                    break;
                }
                total += sum(&buffer[..read / 2]);
            }
        }
        black_box(total);
        theirs.push(begun.elapsed());
    }
    let bytes = cache.bytes() as f64;
    let (ours, theirs) = (bytes / median(ours) / 1e9, bytes / median(theirs) / 1e9);
    println!("{} slices, {:.0} MB; decoded and written once at {decoded:.0} slices/s", files.len(), bytes / 1e6);
    println!("cache, shuffled        {ours:.2} GB/s");
    println!("read, front to back    {theirs:.2} GB/s");
    println!("ratio                  {:.2}", ours / theirs);
    Ok(())
}
