//! Slices a second that one thread decodes from files in memory: walk ahead, header, rules, pixels. Run with
//! `cargo bench --workspace --bench decode -- ROUNDS FILE...`, against GDCM and pylibjpeg with `tools/bench_decode.py`.
//! Prints the median rate and the sum of all stored values, which the peers must agree with.

use std::error::Error;
use std::time::Instant;

use ichd::dicom::{AdmissionRules, decode};
use ichd::slice::Pixels;

fn sum(pixels: &Pixels) -> i64 {
    match pixels {
        Pixels::I16(values) => values.iter().map(|value| i64::from(*value)).sum(),
        Pixels::U16(values) => values.iter().map(|value| i64::from(*value)).sum(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo passes --bench; everything else is ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [rounds, paths @ ..] = args.as_slice() else {
        eprintln!("usage: decode ROUNDS FILE...");
        return Ok(());
    };
    let files = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let rules = AdmissionRules::default();
    let (mut rates, mut total) = (Vec::new(), 0);
    for _ in 0..rounds.parse::<usize>()?.max(1) {
        let begun = Instant::now();
        let mut decoded = Vec::with_capacity(files.len());
        for (bytes, path) in files.iter().zip(paths) {
            decoded.push(decode(bytes, &rules).map_err(|rejection| format!("{path}: {rejection}"))?);
        }
        rates.push(files.len() as f64 / begun.elapsed().as_secs_f64());
        total = decoded.iter().flatten().map(|slice| sum(&slice.pixels)).sum();
    }
    rates.sort_by(f64::total_cmp);
    println!("{{\"median\": {:.3}, \"sum\": {total}}}", rates[rates.len() / 2]);
    Ok(())
}
