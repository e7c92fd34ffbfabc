//! The five kinds of blood in their textbook places. Knows the head, no pixel.

use ichd_plugin::label::Label;

use super::head::{Head, Point, Tissue};
use super::noise::{Field, Stream};

/// One bleeding.
#[derive(Clone, Debug)]
pub struct Bleed {
    /// Which subtype.
    pub label: Label,
    /// Density in HU, 50 to 80.
    pub hu: f32,
    center: [f32; 3],
    size: [f32; 3],
    field: Field,
}

/// What blood makes of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// Blood of this density.
    Blood(f32),
    /// Swollen tissue around it.
    Edema,
}

impl Bleed {
    /// A bleeding of this subtype, somewhere in its place.
    pub fn new(label: Label, head: &Head, seed: u64, study: u64) -> Self {
        let mut dice = Stream::new(seed, study.wrapping_mul(64) + 16 + label as u64);
        let field = Field::new(seed, study.wrapping_mul(64) + 32 + label as u64);
        let side = dice.sign();
        let (center, size, hu) = match label {
            Label::Epidural => {
                let direction = [side, dice.between(-0.45, 0.35), dice.between(0.0, 0.45)];
                let (wide, thick) = (dice.between(26.0, 36.0), dice.between(11.0, 20.0));
                (head.under_table(direction, 0.5), [wide, thick, 0.0], dice.between(60.0, 74.0))
            }
            Label::Subdural => {
                let direction = [side, dice.between(-0.5, 0.5), dice.between(0.25, 0.6)];
                let (wide, thick) = (dice.between(62.0, 80.0), dice.between(5.0, 10.5));
                (head.under_table(direction, 0.5), [wide, thick, 0.0], dice.between(56.0, 70.0))
            }
            Label::Subarachnoid => {
                // The basal cisterns, or one convexity.
                let basal = dice.chance(0.5);
                let spot = [side * dice.between(38.0, 55.0), dice.between(-30.0, 25.0), dice.between(15.0, 45.0)];
                let center = if basal { [side * 10.0, -4.0, -16.0] } else { spot };
                let wide = if basal { dice.between(42.0, 56.0) } else { dice.between(28.0, 40.0) };
                (center, [wide, 0.0, 0.0], dice.between(52.0, 66.0))
            }
            Label::Intraventricular => {
                // The level of the fluid: blood settles toward the back.
                ([0.0, dice.between(4.0, 24.0), 0.0], [dice.between(0.0, 1.0), 0.0, 0.0], dice.between(56.0, 74.0))
            }
            _ => {
                let deep = dice.chance(0.6);
                let ganglia = [side * dice.between(24.0, 30.0), dice.between(-12.0, 10.0), dice.between(2.0, 12.0)];
                let lobe = [side * dice.between(26.0, 40.0), dice.between(-50.0, 50.0), dice.between(18.0, 42.0)];
                let size = [(); 3].map(|()| dice.between(9.0, 19.0));
                (if deep { ganglia } else { lobe }, size, dice.between(58.0, 76.0))
            }
        };
        Bleed { label, hu, center, size, field }
    }

    /// What it does to a point of the head, if anything.
    pub fn at(&self, p: [f32; 3], under: &Point) -> Option<Effect> {
        if under.depth < 0.0 {
            return None;
        }
        let offset = [p[0] - self.center[0], p[1] - self.center[1], p[2] - self.center[2]];
        let distance = offset.iter().map(|c| c * c).sum::<f32>().sqrt();
        let blood = || Some(Effect::Blood(self.hu + 3.0 * self.field.at(p.map(|c| c / 3.5))));
        match self.label {
            Label::Epidural => {
                // A lens: thick in the middle, ending in sharp edges.
                let rim = distance / self.size[0];
                let thick = self.size[1] * (1.0 - rim * rim);
                if under.depth < thick { blood() } else { None }
            }
            Label::Subdural => {
                // A crescent that follows the skull and ends at the midline.
                let rim = distance / self.size[0];
                let wave = 1.0 + 0.15 * self.field.at(p.map(|c| c / 18.0));
                let thick = self.size[1] * wave * (1.0 - rim.powi(4));
                let same_side = p[0] * self.center[0] > 0.0;
                if under.depth < thick && same_side { blood() } else { None }
            }
            Label::Subarachnoid => {
                let patchy = distance + 9.0 * self.field.at(p.map(|c| c / 11.0));
                if under.tissue == Tissue::Csf && patchy < self.size[0] { blood() } else { None }
            }
            Label::Intraventricular => {
                let cast = self.size[0] > 0.72 && p[0] * self.field.at([9.0, 9.0, 9.0]) > 0.0 && p[1] > -20.0;
                let settled = p[1] > self.center[1];
                if under.tissue == Tissue::Ventricle && (cast || settled) { blood() } else { None }
            }
            _ => {
                let scaled = [0, 1, 2].map(|k| offset[k] / self.size[k]);
                let r = scaled.iter().map(|c| c * c).sum::<f32>().sqrt() + 0.22 * self.field.at(p.map(|c| c / 8.0));
                if under.tissue == Tissue::Csf && under.depth < 3.0 {
                    None
                } else if r < 1.0 {
                    blood()
                } else if r < 1.32 && under.tissue == Tissue::Brain {
                    Some(Effect::Edema)
                } else {
                    None
                }
            }
        }
    }
}
