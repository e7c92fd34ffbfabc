//! Crops and mirrors as plain data for the windowing kernel, which applies them while it resamples. A pure function of
//! seed, epoch and item: nothing has to be kept to resume. Knows no pixel.

use ichd_kernels::{Flip, Rect};

use super::random::{Draws, Purpose};
use super::settings::AugmentSetting;

/// How one slice is seen in one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// The part that is seen, in pixels of the slice: a square within it. Nothing for the whole slice.
    pub rect: Option<Rect>,
    /// Mirrors of that part.
    pub flip: Flip,
}

/// Draws how item `item` is seen in `epoch`. A crop is a square whose side is
/// `crop_scale_min..=crop_scale_max` of the slice's shorter side, rounded to whole pixels and at least 1; every place of
/// it within the slice is as likely as any other.
pub fn augmentation(
    setting: &AugmentSetting,
    seed: u64,
    epoch: u32,
    item: u64,
    rows: usize,
    columns: usize,
) -> Augmentation {
    let mut draws = Draws::new(seed, Purpose::Augment, epoch, item);
    // Always the same number of draws in the same order, so that one setting does not change what another one draws.
    let flip = Flip { horizontal: draws.chance(setting.horizontal), vertical: draws.chance(setting.vertical) };
    let has_crop = draws.chance(setting.crop);
    let scale = setting.crop_scale_min + (setting.crop_scale_max - setting.crop_scale_min) * draws.unit();
    let shorter = rows.min(columns);
    let side = ((scale * shorter as f64).round() as usize).clamp(1, shorter.max(1));
    let mut place = |length: usize| {
        let places = u32::try_from(length.saturating_sub(side)).unwrap_or(u32::MAX - 1) + 1;
        draws.below(places) as usize
    };
    let (top, left) = (place(rows), place(columns));
    let rect = (has_crop && shorter > 0).then_some(Rect { top, left, rows: side, columns: side });
    Augmentation { rect, flip }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const N: u64 = 20_000;

    /// Share of items that a predicate holds for.
    fn share(setting: &AugmentSetting, holds: impl Fn(&Augmentation) -> bool) -> f64 {
        let all = (0..N).map(|item| augmentation(setting, 1, 0, item, 512, 512));
        all.filter(|augmentation| holds(augmentation)).count() as f64 / N as f64
    }

    #[test]
    fn frequencies_are_those_of_the_settings() {
        let setting = AugmentSetting::default();
        // Four standard deviations of a share of 20,000 are about 0.012.
        assert!((share(&setting, |a| a.flip.horizontal) - 0.25).abs() < 0.0125);
        assert!((share(&setting, |a| a.flip.vertical) - 0.10).abs() < 0.01);
        assert!((share(&setting, |a| a.rect.is_some()) - 0.25).abs() < 0.0125);
        let both = |a: &Augmentation| a.flip.horizontal && a.rect.is_some();
        assert!((share(&setting, both) - 0.0625).abs() < 0.007, "independent of each other");
        assert_eq!(share(&AugmentSetting::none(), |a| *a != Augmentation::default()), 0.0);
    }

    #[test]
    fn crops_fill_their_range_and_every_place() {
        let setting = AugmentSetting { crop: 1.0, ..AugmentSetting::default() };
        let rects: Vec<Rect> = (0..N).filter_map(|item| augmentation(&setting, 1, 0, item, 512, 512).rect).collect();
        assert_eq!(rects.len() as u64, N);
        let sides = || rects.iter().map(|rect| rect.rows);
        assert_eq!((sides().min(), sides().max()), (Some(410), Some(512)));
        let mean = sides().sum::<usize>() as f64 / N as f64;
        assert!((mean - 0.9 * 512.0).abs() < 1.0, "{mean}");
        assert!(rects.iter().any(|rect| rect.top == 0 && rect.rows < 440));
        assert!(rects.iter().any(|rect| rect.left + rect.columns == 512 && rect.rows < 440));
    }

    #[test]
    fn it_follows_from_seed_epoch_and_item_alone() {
        let setting = AugmentSetting { horizontal: 0.5, vertical: 0.5, crop: 0.9, ..AugmentSetting::default() };
        let draw = |seed, epoch| -> Vec<Augmentation> {
            (0..100).map(|item| augmentation(&setting, seed, epoch, item, 300, 200)).collect()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        // Turning one setting does not change what the others draw.
        let without = AugmentSetting { crop: 0.0, ..setting.clone() };
        for (item, with) in (0..).zip(draw(1, 0)) {
            assert_eq!(augmentation(&without, 1, 0, item, 300, 200).flip, with.flip);
        }
    }

    proptest! {
        #[test]
        fn a_crop_is_a_square_within_its_slice(
            rows in 1usize..3000, columns in 1usize..3000, item: u64, epoch: u32, min in 0.01f64..1.0, range in 0.0f64..1.0,
        ) {
            let crop_scale_max = (min + range).min(1.0);
            let setting = AugmentSetting { crop: 1.0, crop_scale_min: min, crop_scale_max, ..AugmentSetting::default() };
            let rect = augmentation(&setting, 1, epoch, item, rows, columns).rect.unwrap();
            prop_assert!(rect.rows == rect.columns && rect.rows >= 1);
            prop_assert!(rect.top + rect.rows <= rows && rect.left + rect.columns <= columns);
        }
    }

    #[test]
    fn a_slice_without_pixels_is_not_cropped() {
        let setting = AugmentSetting { crop: 1.0, ..AugmentSetting::default() };
        assert_eq!(augmentation(&setting, 1, 0, 0, 0, 5).rect, None);
    }
}
