//! purview beside Go, of generated programs: a short form of `cargo xtask conformance`.

use std::path::Path;

use purview_conformance::go::{self, Go};
use purview_conformance::{Numbers, Ours, Program, Scope, run};

#[test]
fn programs_show_the_same_in_go() -> std::io::Result<()> {
    let Some(found) = go::find() else {
        eprintln!("skipped: there is no Go (cargo xtask tools fetches it)");
        return Ok(());
    };
    let program = go::build(&found, Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let mut go = Go::start(&program)?;
    for seed in 0..5_000 {
        let program = Program::generate(&mut Numbers::Seed(seed), Scope::Go, 40);
        let (theirs, ours) = (go.run(&program)?, run(&program, &mut Ours::default()));
        assert_eq!(theirs, ours, "seed {seed}, Go and purview:\n{program}");
    }
    Ok(())
}
