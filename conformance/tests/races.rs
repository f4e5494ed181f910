//! Races beside Go's: a short form of what `cargo xtask conformance` runs first.

use std::path::Path;

use purview_conformance::RACES;
use purview_conformance::go::{self, Go};

const TIMES: usize = 300;

#[test]
fn races_have_outcomes_that_go_allows() {
    for race in &RACES {
        let outcomes = race.ours(TIMES);
        eprintln!("{}: {outcomes:#?}", race.name);
        assert_eq!(race.forbidden(&outcomes).next(), None, "{}: {outcomes:#?}", race.name);
    }
}

#[test]
fn races_have_outcomes_in_go_that_are_allowed() -> std::io::Result<()> {
    let Some(found) = go::find() else {
        eprintln!("skipped: there is no Go (cargo xtask tools fetches it)");
        return Ok(());
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("races");
    std::fs::create_dir_all(&folder)?;
    let mut go = Go::start_races(&go::build(&found, &folder)?)?;
    for race in &RACES {
        let outcomes = race.theirs(&mut go, TIMES)?;
        eprintln!("{}: {outcomes:#?}", race.name);
        assert_eq!(outcomes.values().sum::<usize>(), TIMES, "{}", race.name);
        assert_eq!(race.forbidden(&outcomes).next(), None, "{}: {outcomes:#?}", race.name);
    }
    Ok(())
}
