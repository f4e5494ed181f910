//! Operations on contexts, in purview and in its model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purview_conformance::{Model, Numbers, Ours, Program, Scope, run};
use purview_fuzz::count;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers::Bytes(data);
    let program = Program::generate(&mut numbers, Scope::All, 60);
    count(program.ops.len());
    let still = program.still();
    let mut ours = Ours::on_the_systems_clock();
    let promised = run(&still, &mut Model::default());
    assert_eq!(promised, run(&still, &mut ours), "model and purview:\n{still}");
    assert_eq!(ours.let_go(data.len()), 0, "something is left:\n{still}");
    let promised = run(&program, &mut Model::default());
    for mut ours in Ours::on_every_clock() {
        assert_eq!(promised, run(&program, &mut ours), "model and purview:\n{program}");
        assert_eq!(ours.let_go(data.len()), 0, "something is left:\n{program}");
    }
});
