//! Operations on contexts, in purview and in its model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purview_conformance::{Model, Numbers, Ours, Program, Scope, run};
use purview_fuzz::count;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers::Bytes(data);
    let program = Program::generate(&mut numbers, Scope::All, 60);
    count(program.ops.len());
    let mut ours = Ours::default();
    let shown = run(&program, &mut ours);
    assert_eq!(run(&program, &mut Model::default()), shown, "model and purview:\n{program}");
    assert_eq!(ours.let_go(data.len()), 0, "something is left:\n{program}");
});
