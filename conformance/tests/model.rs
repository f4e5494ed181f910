//! purview beside its model, of generated programs.

use purview_conformance::{Model, Numbers, Ours, Program, Scope, run};

fn modeled(program: &Program) -> Vec<String> {
    run(program, &mut Model::default())
}

fn differing(program: &Program) -> Option<Vec<String>> {
    Ours::differing(program, &modeled(program))
}

/// Those in which no time passes, on the system's clock.
#[test]
fn still_programs_show_the_same_and_leave_nothing() {
    let shown = |program: &Program| run(program, &mut Ours::on_the_systems_clock());
    for seed in 0..20_000 {
        let program = Program::generate(&mut Numbers::Seed(seed), Scope::All, 40).still();
        let mut ours = Ours::on_the_systems_clock();
        if run(&program, &mut ours) != modeled(&program) {
            let least = program.minimized(|program| shown(program) != modeled(program));
            let (model, shown) = (modeled(&least), shown(&least));
            panic!("seed {seed}:\n{least}\nmodel {model:#?}\npurview {shown:#?}");
        }
        assert_eq!(ours.let_go(seed as usize), 0, "seed {seed}: {program}");
    }
}

#[test]
fn programs_show_the_same_in_both_and_leave_nothing() {
    for seed in 0..20_000 {
        let program = Program::generate(&mut Numbers::Seed(seed), Scope::All, 40);
        let promised = modeled(&program);
        for mut ours in Ours::on_every_clock() {
            if run(&program, &mut ours) != promised {
                let least = program.minimized(|program| differing(program).is_some());
                let (model, shown) = (modeled(&least), differing(&least));
                panic!("seed {seed}:\n{least}\nmodel {model:#?}\npurview {shown:#?}");
            }
            assert_eq!(ours.let_go(seed as usize), 0, "seed {seed}: {program}");
        }
    }
}
