//! P5: values. `n` contexts, one below the other, each with a value under a key of its own.

use std::hint::black_box;

use purview::{Context, Key};

use crate::case::Peer::Purview;
use crate::case::{Case, Loop};

const MOST: usize = 64;
/// The last one is never set.
static KEYS: [Key<u64>; MOST + 1] = [const { Key::new("key") }; MOST + 1];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [1, 8, MOST] {
        for (name, key) in [("hit at the root", 0), ("hit at the leaf", n - 1), ("miss", MOST)] {
            let values = if n == 1 { "value" } else { "values" };
            let name = format!("{n} {values}, {name}");
            cases.push(Case::one("P5", name, Purview, move || look_up(n, key)));
        }
    }
    for n in [1, MOST] {
        let name = format!("one more value at depth {n}");
        cases.push(Case::one("P5", name, Purview, move || one_more(n)));
    }
    cases
}

fn chain(n: usize) -> Context {
    KEYS[..n].iter().zip(0..).fold(Context::background(), |ctx, (key, i)| ctx.with_value(key, i))
}

fn look_up(n: usize, key: usize) -> Loop {
    let ctx = chain(n);
    assert_eq!(ctx.value(&KEYS[key]).is_some(), key < n);
    Loop::of((ctx, &KEYS[key]), |(ctx, key)| {
        black_box(ctx.value(key));
    })
}

fn one_more(n: usize) -> Loop {
    Loop::of(chain(n), |ctx| {
        drop(black_box(ctx.with_value(&KEYS[MOST], 1)));
    })
}
