//! Programs, from numbers.

use crate::program::{Op, Program};

/// Where the decisions of a program come from: a seed's sequence, or a fuzzer's bytes. There is no end to it: after the last byte
/// come zeros.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Numbers<'a> {
    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    Seed(u64),
    /// As they come.
    Bytes(&'a [u8]),
}

impl Numbers<'_> {
    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        match self {
            Numbers::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (z ^ (z >> 31)) % limit
            }
            Numbers::Bytes(bytes) => {
                let mut number = 0;
                let mut span = 1_u64;
                while span < limit {
                    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
                    *bytes = rest;
                    number = number << 8 | u64::from(*first);
                    span = span.saturating_mul(256);
                }
                number % limit
            }
        }
    }

    pub(crate) fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }
}

/// Which operations a program may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Scope {
    /// Those that Go has, too (D5).
    Go,
    /// All.
    All,
}

const MILLISECOND: i64 = 1_000;

impl Program {
    /// One of up to `most` operations.
    ///
    /// No two deadlines are at the same instant, and none at one to which the clock is set: two things that happen at once happen in
    /// an order of which Go says nothing (D4).
    #[must_use]
    pub fn generate(numbers: &mut Numbers<'_>, scope: Scope, most: usize) -> Program {
        let length = 2 + numbers.index(most - 1);
        let mut contexts = 1;
        let mut registrations = 0;
        let mut ops = Vec::with_capacity(length);
        for at in 1..=length {
            // Younger ones more often: so trees are deep as well as wide.
            let count = contexts;
            let context = |numbers: &mut Numbers<'_>| {
                let one = numbers.index(count);
                if numbers.below(2) == 0 { one } else { one.max(numbers.index(count)) }
            };
            let own = at as i64; // microseconds that are nobody else's
            let op = match numbers.below(if scope == Scope::Go { 36 } else { 41 }) {
                0..=4 => Op::Cancel(context(numbers)),
                5..=8 => {
                    let after = numbers.below(60) as i64 - 4;
                    Op::Deadline(context(numbers), after * MILLISECOND + own, cause(numbers))
                }
                9..=11 => {
                    let (key, value) = (numbers.index(crate::KEYS), numbers.below(100) as u32);
                    Op::Value(context(numbers), key, value)
                }
                12 => Op::Detach(context(numbers)),
                13..=15 => Op::End(context(numbers), cause(numbers)),
                16 => Op::Drop(context(numbers)),
                17..=19 => Op::Advance((1 + numbers.below(20) as i64) * MILLISECOND),
                20..=23 => Op::Watch(context(numbers)),
                24 | 25 => Op::Stop(numbers.index(registrations + 1)),
                26 | 27 => Op::Release(context(numbers)),
                28..=35 => Op::Look,
                36..=38 => {
                    let time = numbers.below(30) as i64 * MILLISECOND + 100 * own;
                    Op::Grace(context(numbers), time)
                }
                _ => Op::Merge(context(numbers), context(numbers)),
            };
            match op {
                Op::Watch(_) => registrations += 1,
                op if op.parent().is_none() => {}
                _ => contexts += 1,
            }
            ops.push(op);
        }
        Program::new(ops)
    }
}

fn cause(numbers: &mut Numbers<'_>) -> u32 {
    (numbers.below(6) as u32).saturating_sub(2)
}
