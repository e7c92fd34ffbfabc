//! Numbers from hashes: the same for the same seed on every machine and in every order. Knows no anatomy.

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of numbers that belongs to a seed and a key.
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of `key` under `seed`.
    pub fn new(seed: u64, key: u64) -> Self {
        Stream { state: mix(seed ^ mix(key.wrapping_add(0x9E37_79B9_7F4A_7C15))) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// The next number in 0..1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// The next number between two others.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// -1 or 1.
    pub fn sign(&mut self) -> f32 {
        if self.bits() >> 63 == 0 { -1.0 } else { 1.0 }
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        f64::from(self.unit()) < probability
    }

    /// About a standard normal number: the sum of four uniform ones.
    pub fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|k| (bits >> (16 * k)) & 0xFFFF).sum();
        (sum as f32 / 65_535.0 - 2.0) * 1.732
    }
}

/// Smooth noise in space, about -1..1, with features of one unit.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    seed: u32,
}

impl Field {
    /// The field of `key` under `seed`.
    pub fn new(seed: u64, key: u64) -> Self {
        Field { seed: mix(seed ^ mix(key)) as u32 }
    }

    fn corner(&self, x: i32, y: i32, z: i32) -> f32 {
        let mut h = self.seed ^ (x as u32).wrapping_mul(0x8DA6_B343) ^ (y as u32).wrapping_mul(0xD816_3841);
        h ^= (z as u32).wrapping_mul(0xCB1A_B31F);
        h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
        h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
        ((h ^ (h >> 15)) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// The noise at a point.
    pub fn at(&self, p: [f32; 3]) -> f32 {
        let cell = p.map(f32::floor);
        let [u, v, w] = [p[0] - cell[0], p[1] - cell[1], p[2] - cell[2]].map(|t| t * t * (3.0 - 2.0 * t));
        let [x, y, z] = cell.map(|c| c as i32);
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let edge = |y: i32, z: i32| mix(self.corner(x, y, z), self.corner(x + 1, y, z), u);
        let face = |z: i32| mix(edge(y, z), edge(y + 1, z), v);
        mix(face(z), face(z + 1), w)
    }
}
