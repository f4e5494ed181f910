//! purview beside its model, of generated programs.

use purview_conformance::{Model, Numbers, Ours, Program, Scope, run};

fn differ(program: &Program) -> bool {
    run(program, &mut Model::default()) != run(program, &mut Ours::default())
}

#[test]
fn programs_show_the_same_in_both_and_leave_nothing() {
    for seed in 0..20_000 {
        let program = Program::generate(&mut Numbers::Seed(seed), Scope::All, 40);
        let mut ours = Ours::default();
        let (model, shown) = (run(&program, &mut Model::default()), run(&program, &mut ours));
        if model != shown {
            let least = program.minimized(differ);
            let model = run(&least, &mut Model::default());
            let shown = run(&least, &mut Ours::default());
            panic!("seed {seed}:\n{least}\nmodel {model:#?}\npurview {shown:#?}");
        }
        assert_eq!(ours.let_go(seed as usize), 0, "seed {seed}: {program}");
    }
}
