//! Numbers by counting: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011). A number is a pure function of the seed and of
//! what it is for, so nothing has to be stored to go on where training stopped, and threads cannot change it. Knows nothing
//! of slices.

/// What numbers are for; two purposes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Order in which a split takes the groups.
    SplitOrder = 1,
    /// Which of several equal parts a group goes to.
    SplitTie = 2,
    /// Which negatives an epoch sees.
    Negatives = 3,
    /// Order of an epoch.
    Shuffle = 4,
    /// Crops and mirrors.
    Augment = 5,
    /// Which groups of a split are tried in each other's place.
    SplitSwap = 6,
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// The block of `counter` under `key`.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (high0, low0) = product(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = product(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// The numbers of one purpose, turn (an epoch, a round) and item.
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    n_drawn: u32,
}

impl Draws {
    /// From the first number on.
    pub fn new(seed: u64, purpose: Purpose, turn: u32, item: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        let counter = [item as u32, (item >> 32) as u32, turn, (purpose as u32) << 16];
        Draws { key, counter, block: philox(counter, key), n_drawn: 0 }
    }

    /// The next 32 bits. An item has 2^18 numbers.
    pub fn bits(&mut self) -> u32 {
        let at = (self.n_drawn % 4) as usize;
        if at == 0 && self.n_drawn > 0 {
            let block_idx = (self.n_drawn / 4) & 0xFFFF;
            let [low, high, turn, purpose] = self.counter;
            self.block = philox([low, high, turn, purpose | block_idx], self.key);
        }
        self.n_drawn = self.n_drawn.wrapping_add(1);
        self.block[at]
    }

    /// The next number in 0..1, a multiple of 2^-32.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.bits()) / 4_294_967_296.0
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// The next whole number below `n`; 0 if `n` is 0. The bias is below `n` / 2^32.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(n)) >> 32) as u32
    }
}

/// 64 bits by which items are put in an order of chance.
pub fn rank(seed: u64, purpose: Purpose, turn: u32, item: u64) -> u64 {
    let mut draws = Draws::new(seed, purpose, turn, item);
    u64::from(draws.bits()) << 32 | u64::from(draws.bits())
}

/// Puts `items` in an order of chance that depends on the items (by `id`) and not on the order they come in, as long as
/// ids are unique.
pub fn shuffle<T>(items: &mut [T], seed: u64, purpose: Purpose, turn: u32, id: impl Fn(&T) -> u64) {
    items.sort_by_cached_key(|item| {
        let id = id(item);
        (rank(seed, purpose, turn, id), id)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_numbers() {
        // Known answers of Random123 for philox4x32-10.
        let cases = [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn every_seed_purpose_turn_item_and_draw_is_another_number() {
        let mut seen = std::collections::HashSet::new();
        for seed in [0, 1, 1 << 32] {
            for purpose in [Purpose::Shuffle, Purpose::Augment] {
                for turn in 0..3 {
                    for item in [0, 1, 2, 1 << 32] {
                        let mut draws = Draws::new(seed, purpose, turn, item);
                        assert!((0..9).all(|_| seen.insert(draws.bits())), "{seed} {purpose:?} {turn} {item}");
                    }
                }
            }
        }
    }

    #[test]
    fn units_and_whole_numbers_stay_in_their_range() {
        let mut draws = Draws::new(7, Purpose::Augment, 0, 0);
        let mean = (0..10_000).map(|_| draws.unit()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let mut seen = [false; 5];
        (0..200).for_each(|_| seen[draws.below(5) as usize] = true);
        assert_eq!(seen, [true; 5]);
        assert_eq!(draws.below(0), 0);
    }

    #[test]
    fn shuffling_does_not_depend_on_the_order_before() {
        let mut forward: Vec<u64> = (0..100).collect();
        let mut backward: Vec<u64> = (0..100).rev().collect();
        shuffle(&mut forward, 3, Purpose::Shuffle, 1, |item| *item);
        shuffle(&mut backward, 3, Purpose::Shuffle, 1, |item| *item);
        assert_eq!(forward, backward);
        assert!(forward.windows(2).any(|pair| pair[0] > pair[1]));
    }
}
