//! A study: a head, its blood and its scanner, and the slices that the scanner makes. Knows no file format.

use std::f32::consts::PI;

use ichd_plugin::label::{Label, N_LABELS};

use super::PhantomOptions;
use super::bleed::{Bleed, Effect};
use super::head::{Head, Point, Tissue};
use super::noise::Stream;

/// A slice counts as positive when this much blood lies on it.
pub const POSITIVE_MM2: f32 = 30.0;

/// Stored where the scanner saw nothing: outside its round field of view.
pub const PADDING_HU: i16 = -2000;

/// A study of the endless many.
#[derive(Clone, Debug)]
pub struct Study {
    /// Number of the study.
    pub idx: usize,
    /// Number of its slices.
    pub n_slices: usize,
    /// Distance between slices along the table, in mm.
    pub spacing_mm: f32,
    /// Tilt of the gantry in degrees.
    pub tilt_deg: f32,
    /// Side of a pixel in mm.
    pub pixel_mm: f32,
    side: usize,
    seed: u64,
    z_first: f32,
    roll: f32,
    offset: [f32; 2],
    noise_hu: f32,
    round_field: bool,
    head: Head,
    bleeds: Vec<Bleed>,
}

/// What the scanner made of one slice.
#[derive(Clone, Debug)]
pub struct PhantomSlice {
    /// HU, row by row.
    pub hu: Vec<i16>,
    /// The truth, in label order.
    pub labels: [bool; N_LABELS],
    /// Mean density of the blood without noise, where there is any.
    pub blood_hu: Option<f32>,
}

impl Study {
    /// Study number `idx` of a seed.
    pub fn new(seed: u64, idx: usize, options: &PhantomOptions) -> Study {
        let mut dice = Stream::new(seed, idx as u64 * 8 + 3);
        let head = Head::new(seed, idx as u64);
        let span = options.slices.end() - options.slices.start() + 1;
        let n_slices = options.slices.start() + (dice.bits() % span.max(1) as u64) as usize;
        let bleeds = choose_bleeds(&head, seed, idx, options, &mut dice);
        let z_first = dice.between(-58.0, -52.0);
        let field_mm = dice.between(225.0, 250.0);
        Study {
            idx,
            n_slices,
            spacing_mm: ((head.top() + 6.0 - z_first) / n_slices as f32 * 4.0).round() / 4.0,
            tilt_deg: if dice.chance(0.3) { dice.between(-18.0, 18.0).round() } else { 0.0 },
            pixel_mm: field_mm / options.side as f32,
            side: options.side,
            seed,
            z_first,
            roll: dice.between(-5.0, 5.0) * PI / 180.0,
            offset: [dice.between(-4.0, 4.0), dice.between(-6.0, 6.0)],
            noise_hu: dice.between(4.5, 7.5),
            round_field: dice.chance(0.5),
            head,
            bleeds,
        }
    }

    /// Center of the first pixel of slice `slice_idx` in mm, and the direction of a column.
    pub fn geometry(&self, slice_idx: usize) -> ([f32; 3], [f32; 3]) {
        let (sin, cos) = (self.tilt_deg * PI / 180.0).sin_cos();
        let half = self.pixel_mm * (self.side as f32 - 1.0) / 2.0;
        let z = self.z_first + self.spacing_mm * slice_idx as f32;
        ([-half, -half * cos, z - half * sin], [0.0, cos, sin])
    }

    /// Scans slice `slice_idx`.
    pub fn slice(&self, slice_idx: usize) -> PhantomSlice {
        let side = self.side;
        let (origin, down) = self.geometry(slice_idx);
        let (sin, cos) = self.roll.sin_cos();
        let mut clean = vec![0.0f32; side * side];
        let mut counts = [0usize; N_LABELS];
        let (mut blood_sum, mut blood_count) = (0.0f64, 0u32);
        for (row, line) in clean.chunks_exact_mut(side).enumerate() {
            let step = row as f32 * self.pixel_mm;
            for (column, value) in line.iter_mut().enumerate() {
                let x = origin[0] + column as f32 * self.pixel_mm - self.offset[0];
                let y = origin[1] + down[1] * step - self.offset[1];
                let p = [x * cos + y * sin, y * cos - x * sin, origin[2] + down[2] * step];
                let point = self.head.at(p);
                let mut hu = self.table_or(point, [x, y]);
                for bleed in &self.bleeds {
                    match bleed.at(p, &point) {
                        Some(Effect::Blood(density)) => {
                            hu = density;
                            counts[bleed.label as usize] += 1;
                            blood_sum += f64::from(density);
                            blood_count += 1;
                        }
                        Some(Effect::Edema) if hu > 20.0 && hu < 45.0 => hu = 18.0,
                        _ => {}
                    }
                }
                *value = hu;
            }
        }
        let area = self.pixel_mm * self.pixel_mm;
        let mut labels = counts.map(|count| count as f32 * area >= POSITIVE_MM2);
        labels[Label::Any as usize] = Label::SUBTYPES.iter().any(|label| labels[*label as usize]);
        let blood_hu = (blood_count > 0).then(|| (blood_sum / f64::from(blood_count)) as f32);
        PhantomSlice { hu: self.scan(&clean, slice_idx), labels, blood_hu }
    }

    /// The head rests in a curved shell.
    fn table_or(&self, point: Point, [x, y]: [f32; 2]) -> f32 {
        if point.tissue != Tissue::Air || point.depth > -1.0 {
            return point.hu;
        }
        let shell = (x * x + (y - 4.0).powi(2)).sqrt() - 109.0;
        if y > 22.0 && (0.0..5.0).contains(&shell) {
            return if (0.9..4.1).contains(&shell) { -890.0 } else { -120.0 };
        }
        point.hu
    }

    /// Blur of the scanner, beam hardening under the skull, noise, the round field of view.
    fn scan(&self, clean: &[f32], slice_idx: usize) -> Vec<i16> {
        let side = self.side;
        let mut dice = Stream::new(self.seed, (self.idx as u64) << 20 | 1 << 19 | slice_idx as u64);
        let noise: Vec<f32> = (0..side * side).map(|_| dice.normal()).collect();
        let (blurred, noise) = (blur(clean, side), blur(&noise, side));
        let middle = (side as f32 - 1.0) / 2.0;
        let mut stored = Vec::with_capacity(side * side);
        for row in 0..side {
            for column in 0..side {
                let at = row * side + column;
                let radius = ((row as f32 - middle).powi(2) + (column as f32 - middle).powi(2)).sqrt() / middle;
                if self.round_field && radius > 1.0 {
                    stored.push(PADDING_HU);
                    continue;
                }
                let cupping = 3.5 * (radius * radius - 0.35);
                let tissue = if blurred[at] > -200.0 { cupping } else { 0.0 };
                // The blur keeps 3/8 of the deviation of white noise.
                let grain = noise[at] * self.noise_hu / 0.375;
                stored.push((blurred[at] + tissue + grain).round().clamp(-1024.0, 3071.0) as i16);
            }
        }
        stored
    }
}

fn choose_bleeds(head: &Head, seed: u64, idx: usize, options: &PhantomOptions, dice: &mut Stream) -> Vec<Bleed> {
    if options.subtypes.is_empty() || !dice.chance(options.bleed_share) {
        return Vec::new();
    }
    // Every subtype gets its turn, and one study in three has more than one.
    let n_subtypes = options.subtypes.len();
    let first = (dice.bits() % n_subtypes as u64) as usize;
    let mut labels = vec![options.subtypes[first]];
    for label in &options.subtypes {
        if *label != labels[0] && dice.chance(0.33 / n_subtypes as f64 * 1.6) {
            labels.push(*label);
        }
    }
    labels.into_iter().map(|label| Bleed::new(label, head, seed, idx as u64)).collect()
}

/// Binomial blur, 1-2-1 in both directions.
fn blur(values: &[f32], side: usize) -> Vec<f32> {
    let three = |before: f32, here: f32, after: f32| 0.25 * before + 0.5 * here + 0.25 * after;
    let mut across = vec![0.0; values.len()];
    for (line, out) in values.chunks_exact(side).zip(across.chunks_exact_mut(side)) {
        for (x, value) in out.iter_mut().enumerate() {
            *value = three(line[x.saturating_sub(1)], line[x], line[(x + 1).min(side - 1)]);
        }
    }
    let mut out = vec![0.0; values.len()];
    for (y, line) in out.chunks_exact_mut(side).enumerate() {
        let (above, below) = (y.saturating_sub(1) * side, (y + 1).min(side - 1) * side);
        for (x, value) in line.iter_mut().enumerate() {
            *value = three(across[above + x], across[y * side + x], across[below + x]);
        }
    }
    out
}
