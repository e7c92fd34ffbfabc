//! A head as a function from a point to tissue. Knows no pixel and no blood.
//!
//! Coordinates are millimeters in the head: x to the left ear, y to the back, z to the vertex, 0 near the third ventricle.

use super::noise::{Field, Stream};

/// What a point is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tissue {
    /// Outside the head, and in its cavities.
    Air,
    /// Scalp, muscle, orbits: HU follow from the point.
    Soft,
    /// Skull.
    Bone,
    /// Fluid of sulci, fissures and cisterns.
    Csf,
    /// Fluid of the ventricles.
    Ventricle,
    /// Brain.
    Brain,
}

/// Tissue and density of a point.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What it is.
    pub tissue: Tissue,
    /// HU without noise.
    pub hu: f32,
    /// Depth below the inner table in mm; negative outside the cranial cavity.
    pub depth: f32,
}

/// One head of the endless many.
#[derive(Clone, Debug)]
pub struct Head {
    half: [f32; 3],
    skull_mm: f32,
    ventricles: f32,
    sulci: f32,
    shift: f32,
    coarse: Field,
    gyri: Field,
    fine: Field,
}

const AIR: f32 = -1000.0;
const FAT: f32 = -90.0;
const SKIN: f32 = 40.0;
const CSF: f32 = 6.0;
const GRAY: f32 = 38.0;
const WHITE: f32 = 28.0;
const DURA: f32 = 52.0;

/// Below this the cavity ends in the skull base.
const BASE_Z: f32 = -46.0;

fn ellipsoid(p: [f32; 3], center: [f32; 3], radii: [f32; 3]) -> f32 {
    let part = |k: usize| ((p[k] - center[k]) / radii[k]).powi(2);
    (part(0) + part(1) + part(2)).sqrt()
}

impl Head {
    /// The head of a study.
    pub fn new(seed: u64, study: u64) -> Self {
        let mut dice = Stream::new(seed, study.wrapping_mul(4) + 1);
        let size = dice.between(0.94, 1.05);
        let aged = dice.unit();
        Head {
            half: [
                76.0 * size * dice.between(0.97, 1.03),
                95.0 * size * dice.between(0.97, 1.03),
                86.0 * size * dice.between(0.97, 1.03),
            ],
            skull_mm: dice.between(6.0, 8.5),
            ventricles: 0.85 + 0.45 * aged + dice.between(-0.08, 0.08),
            sulci: 0.05 + 0.055 * aged,
            shift: dice.between(-1.5, 1.5),
            coarse: Field::new(seed, study.wrapping_mul(16) + 2),
            gyri: Field::new(seed, study.wrapping_mul(16) + 3),
            fine: Field::new(seed, study.wrapping_mul(16) + 4),
        }
    }

    /// Height of the vertex.
    pub fn top(&self) -> f32 {
        self.half[2]
    }

    /// Distance from the skin along the ray from the middle; negative outside.
    fn below_skin(&self, p: [f32; 3]) -> f32 {
        let length = (p[0] * p[0] + p[1] * p[1] + p[2] * p[2]).sqrt().max(1.0);
        // Heads are squarer than ellipses and narrower in front; below the middle they go on as a cylinder.
        let narrow = 1.0 + 0.0011 * (-p[1]).max(0.0);
        let lower = if p[2] < 0.0 { 0.42 } else { 1.0 };
        let [x, y, z] = [p[0] * narrow / self.half[0], p[1] / self.half[1], p[2] * lower / self.half[2]].map(f32::abs);
        let r = (x.powf(2.25) + y.powf(2.25) + z.powf(2.25)).powf(1.0 / 2.25).max(1e-3);
        let wobble = self.coarse.at(p.map(|c| c / 38.0)) * 1.6;
        length / r - length + wobble
    }

    /// What lies at a point.
    pub fn at(&self, p: [f32; 3]) -> Point {
        let depth = self.below_skin(p);
        let scalp = 5.5 + self.coarse.at([p[0] / 30.0 + 7.0, p[1] / 30.0, p[2] / 30.0]) * 1.2;
        let skull = self.skull_mm * (1.0 + 0.18 * self.coarse.at([p[0] / 26.0, p[1] / 26.0 + 9.0, p[2] / 26.0]));
        let inner = depth - scalp - skull;
        let point = |tissue, hu| Point { tissue, hu, depth: inner };
        if depth < 0.0 {
            return point(Tissue::Air, AIR);
        }
        if depth < scalp {
            return point(Tissue::Soft, if depth < 1.8 || depth > scalp - 0.9 { SKIN } else { FAT });
        }
        if p[2] < BASE_Z + 22.0
            && let Some(found) = self.base(p, depth - scalp, inner)
        {
            return found;
        }
        if inner < 0.0 {
            let table = (depth - scalp).min(-inner);
            let marrow = 520.0 + 160.0 * self.fine.at(p.map(|c| c / 1.7));
            return point(Tissue::Bone, if table < 1.9 { 1150.0 } else { marrow });
        }
        self.cavity(p, inner)
    }

    /// Orbits, air cells, petrous bones, clivus and what lies below the cavity.
    fn base(&self, p: [f32; 3], below_scalp: f32, inner: f32) -> Option<Point> {
        let [x, y, z] = p;
        let point = |tissue, hu| Some(Point { tissue, hu, depth: -1.0 });
        let side = x.abs();
        let cells = self.fine.at([x / 4.0, y / 4.0, z / 4.0]);
        let eye = ellipsoid([side, y, z], [31.0, -70.0, -44.0], [12.0, 12.0, 12.0]);
        if eye < 1.0 {
            let lens = ellipsoid([side, y, z], [31.0, -79.0, -44.0], [4.5, 2.0, 4.5]) < 1.0;
            return point(Tissue::Soft, if lens { 75.0 } else { 14.0 });
        }
        let orbit = ellipsoid([side, y, z], [30.0, -62.0, -44.0], [17.0, 27.0, 15.0]);
        if orbit < 1.0 {
            let nerve = (side - 24.0 - (y + 62.0) * 0.35).abs() < 1.8 && (z + 44.0).abs() < 2.2 && y > -60.0;
            let muscle = (side - 42.0 - (y + 62.0) * 0.3).abs() < 1.8 || (side - 18.0).abs() < 1.6;
            return point(Tissue::Soft, if nerve || muscle { 42.0 } else { FAT });
        }
        if orbit < 1.12 && z < -34.0 {
            return point(Tissue::Bone, 900.0);
        }
        let sinus = ellipsoid([side, y, z], [0.0, -58.0, -46.0], [13.0, 26.0, 15.0]);
        let frontal = ellipsoid([side, y, z], [9.0, -(self.half[1] - 13.0), -30.0], [13.0, 4.5, 12.0]);
        if sinus < 1.0 || frontal < 1.0 {
            let wall = cells.abs() < 0.13 || side < 0.8;
            return if wall { point(Tissue::Bone, 480.0) } else { point(Tissue::Air, AIR) };
        }
        if frontal < 1.4 || (sinus < 1.1 && z < -36.0) {
            return point(Tissue::Bone, 850.0);
        }
        // A pyramid from the clivus to the mastoid, with air cells at its wide end.
        let along = ((side - 12.0) / 46.0).clamp(0.0, 1.0);
        let axis_y = -4.0 + 26.0 * along;
        let thick = 4.0 + 9.0 * along;
        let off = (((y - axis_y) / thick).powi(2) + ((z + 43.0) / (thick * 0.8)).powi(2)).sqrt();
        if off < 1.0 && (10.0..66.0).contains(&side) {
            let mastoid = along > 0.62 && cells > -0.05;
            let canal = ((y - axis_y).powi(2) + (z + 42.0).powi(2)).sqrt() < 2.2 && along < 0.6 && along > 0.2;
            return if mastoid || canal { point(Tissue::Air, AIR + 150.0) } else { point(Tissue::Bone, 1250.0) };
        }
        let clivus = ellipsoid([side, y, z], [0.0, -16.0, -46.0], [12.0, 9.0, 11.0]);
        if clivus < 1.0 {
            let sella = ellipsoid([side, y, z], [0.0, -20.0, -35.0], [6.0, 5.0, 6.0]) < 1.0;
            return if sella { point(Tissue::Soft, 45.0) } else { point(Tissue::Bone, 700.0) };
        }
        // Anterior and middle fossa end higher than the posterior one.
        let floor = if y < -30.0 { BASE_Z + 16.0 } else { BASE_Z - 2.0 - (y / 12.0).max(0.0) };
        let height = z - floor + self.coarse.at([x / 20.0, y / 20.0, 3.0]) * 3.0;
        if height < 0.0 && inner >= 0.0 {
            let plate = height > -4.0;
            let muscle = 50.0 + 12.0 * cells;
            return if plate { point(Tissue::Bone, 950.0) } else { point(Tissue::Soft, muscle) };
        }
        if below_scalp < 0.0 { point(Tissue::Soft, FAT) } else { None }
    }

    fn cavity(&self, p: [f32; 3], inner: f32) -> Point {
        let [x, y, z] = [p[0] - self.shift, p[1], p[2]];
        let point = |tissue, hu| Point { tissue, hu, depth: inner };
        if inner < 0.7 {
            return point(Tissue::Brain, DURA);
        }
        let tentorium = 4.0 + 0.34 * (x.abs() * 0.9 + (62.0 - y).max(0.0) * 0.35) - 26.0;
        // In front it ends where the petrous bones do, which run outward and back.
        let posterior = y > 3.0 + 0.55 * x.abs() && z < tentorium;
        if y > 6.0 + 0.55 * x.abs() && (z - tentorium).abs() < 0.7 && z < 6.0 {
            return point(Tissue::Brain, DURA);
        }
        let rift = x + 1.2 * self.coarse.at([4.0, y / 22.0, z / 22.0]);
        let above = z > 6.0 || (y < -30.0 && z > -20.0) || (y > 52.0 && z > tentorium);
        if above && rift.abs() < 0.75 && (z > 34.0 || !(-46.0..40.0).contains(&y)) {
            return point(Tissue::Brain, DURA);
        }
        if self.in_ventricle([x, y, z]) {
            let choroid = ellipsoid([x.abs(), y, z], [24.0, 27.0, 11.0], [2.2, 4.0, 3.5]) < 1.0;
            return if choroid { point(Tissue::Brain, 46.0) } else { point(Tissue::Ventricle, CSF) };
        }
        if self.in_cistern([x, y, z]) {
            return point(Tissue::Csf, CSF + 2.0);
        }
        if above && rift.abs() < 1.9 && (z > 34.0 || !(-42.0..36.0).contains(&y)) {
            return point(Tissue::Csf, CSF + 2.0);
        }
        let (tissue, hu) = if posterior { self.cerebellum([x, y, z], inner) } else { self.cerebrum([x, y, z], inner) };
        point(tissue, hu)
    }

    fn in_ventricle(&self, [x, y, z]: [f32; 3]) -> bool {
        let side = x.abs();
        let v = self.ventricles;
        let wall = 0.08 * self.fine.at([x / 6.0, y / 6.0, z / 6.0]);
        let inside =
            |center: [f32; 3], radii: [f32; 3]| ellipsoid([side, y, z], center, radii.map(|r| r * v)) + wall < 1.0;
        // Horns lean outward with their distance from the middle of the head.
        let front = 7.5 - 0.20 * (y + 18.0);
        let back = 16.0 + 0.30 * (y - 18.0);
        inside([front.clamp(5.0, 14.0), -26.0, 12.0], [4.8, 17.0, 11.0])
            || inside([10.5, 2.0, 21.0], [5.5, 26.0, 6.5])
            || inside([back.clamp(10.0, 27.0), 27.0, 12.0], [6.5, 14.0, 11.0])
            || inside([back.clamp(10.0, 29.0), 44.0, 7.0], [4.2, 15.0, 6.0])
            || inside([35.0, 2.0, -20.0], [2.6, 15.0, 2.8])
            || inside([0.0, 2.0, 3.0], [2.2, 13.0, 9.0])
            || inside([0.0, 35.0, -34.0], [7.0 - 0.5 * (y - 35.0).abs(), 5.5, 9.0].map(|r| r.max(1.0)))
    }

    fn in_cistern(&self, [x, y, z]: [f32; 3]) -> bool {
        let side = x.abs();
        let wall = 0.10 * self.fine.at([x / 5.0, y / 5.0, z / 5.0]);
        let inside = |center: [f32; 3], radii: [f32; 3]| ellipsoid([side, y, z], center, radii) + wall < 1.0;
        let widen = 0.8 + 4.0 * self.sulci;
        // Suprasellar star, crural and ambient cisterns around the midbrain, quadrigeminal, the Sylvian fissure.
        let around = (ellipsoid([side, y, z], [0.0, 12.0, -20.0], [19.0, 16.0, 14.0]) - 1.0).abs() < 0.11 * widen;
        let sylvian_axis = -8.0 + 0.45 * (side - 40.0) + 2.0 * self.coarse.at([side / 9.0, 5.0, z / 9.0]);
        let sylvian =
            (y - sylvian_axis).abs() < 2.3 * widen && (34.0..66.0).contains(&side) && (-16.0..17.0).contains(&z);
        inside([0.0, -12.0, -22.0], [13.0, 9.0, 8.0])
            || (around && (-30.0..-8.0).contains(&z) && y > 6.0)
            || inside([0.0, 30.0, -10.0], [9.0, 4.5, 7.0])
            || sylvian
            || inside([0.0, 66.0, -42.0], [10.0, 6.0, 10.0])
            || inside([0.0, -8.0, -34.0], [8.0, 3.5, 10.0])
    }

    fn cerebrum(&self, [x, y, z]: [f32; 3], inner: f32) -> (Tissue, f32) {
        let side = x.abs();
        if inner < 1.6 + 14.0 * self.sulci {
            return (Tissue::Csf, CSF + 3.0);
        }
        let q = [x / 15.0, y / 15.0, z / 17.0];
        let bend = self.coarse.at([q[0] * 0.9 + 3.0, q[1] * 0.9, q[2] * 0.9]);
        let fold = self.gyri.at([q[0] + 0.75 * bend, q[1] - 0.75 * bend, q[2] + 0.4 * bend]).abs();
        let reach = (1.0 - inner / 21.0).max(0.0);
        if fold < self.sulci * 1.5 * reach.sqrt() {
            return (Tissue::Csf, CSF + 8.0 * (1.0 - reach));
        }
        let texture = 1.2 * self.fine.at([x / 5.0, y / 5.0, z / 5.0]);
        let cortex = inner < 5.0 || fold < (self.sulci * 1.5 + 0.15) * reach.sqrt();
        let deep = [
            ([11.5, 9.0, 4.0], [8.0, 13.0, 9.0]),
            ([14.0, -19.0, 13.0], [4.5, 12.0, 9.0]),
            ([26.0, -5.0, 3.0], [6.5, 16.0, 9.5]),
            ([38.0, -5.0, 3.0], [3.0, 17.0, 11.0]),
        ];
        let nucleus = deep.iter().any(|(center, radii)| ellipsoid([side, y, z], *center, *radii) < 1.0);
        let stem = ellipsoid([side, y, z], [0.0, 12.0, -22.0], [16.0, 14.0, 16.0]) < 1.0;
        let base = if cortex || nucleus {
            GRAY
        } else if stem {
            33.0
        } else {
            WHITE
        };
        (Tissue::Brain, base + texture)
    }

    fn cerebellum(&self, [x, y, z]: [f32; 3], inner: f32) -> (Tissue, f32) {
        if inner < 1.8 {
            return (Tissue::Csf, CSF + 4.0);
        }
        let stem = ellipsoid([x.abs(), y, z], [0.0, 17.0, -36.0], [15.0, 13.0, 22.0]) < 1.0;
        if stem {
            return (Tissue::Brain, 32.0);
        }
        // Folia: thin sheets that run across.
        let sheet = ((y * 0.75 + z * 0.35 + 3.0 * self.coarse.at([x / 18.0, y / 18.0, z / 18.0])) * 1.25).sin();
        let core = ellipsoid([x.abs(), y, z], [17.0, 44.0, -34.0], [13.0, 14.0, 9.0]) < 1.0;
        let hu = if core { 30.0 } else { 34.5 + 2.2 * sheet };
        (Tissue::Brain, hu)
    }

    /// The point below the inner table in a direction from the middle, at a depth.
    pub fn under_table(&self, direction: [f32; 3], depth: f32) -> [f32; 3] {
        let length = direction.iter().map(|c| c * c).sum::<f32>().sqrt().max(1e-6);
        let unit = direction.map(|c| c / length);
        let mut distance = 30.0;
        while distance < 130.0 {
            let p = unit.map(|c| c * distance);
            if self.at(p).depth < depth {
                return p;
            }
            distance += 0.5;
        }
        unit.map(|c| c * 60.0)
    }
}
