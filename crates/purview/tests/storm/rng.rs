//! A small random number generator (xorshift64*), so that a seed gives the same rounds on every machine.

pub(crate) struct Rng(u64);

/// Mixes numbers into one seed (splitmix64), so that neighboring rounds have nothing in common.
pub(crate) fn mix(numbers: &[u64]) -> u64 {
    let mut mixed = 0x9e37_79b9_7f4a_7c15_u64;
    for number in numbers {
        mixed = (mixed ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Returns a number below `limit`, or 0 if that is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64).max(1)) as usize
    }

    /// Returns a number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Returns a number from `low` to `high` whose logarithm is evenly spread.
    pub(crate) fn magnitude(&mut self, low: usize, high: usize) -> usize {
        let mut top = low;
        while top < high && self.percent(75) {
            top = (top * 2).min(high);
        }
        self.between(low, top)
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Spins for a random moment of up to `most` steps, a few nanoseconds each.
    pub(crate) fn spin(&mut self, most: usize) {
        for _ in 0..self.below(most) {
            std::hint::spin_loop();
        }
    }
}
