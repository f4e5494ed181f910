//! The same as a state machine, beside its model: what proptest finds it makes small.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use purview_conformance::{Model, Op, Ours, World};

/// The model, and how many contexts and registrations it has.
#[derive(Clone, Debug, Default)]
struct Reference {
    model: Model,
    contexts: usize,
    registrations: usize,
    released: BTreeSet<usize>,
    /// Instants so far: no two deadlines are at the same.
    instants: i64,
}

fn applied(world: &mut impl World, op: Op) -> bool {
    match op {
        Op::End(context, cause) => world.end(context, cause),
        Op::Drop(context) => world.drop_guard(context),
        Op::Advance(by) => world.advance(by),
        Op::Watch(context) => world.watch(context),
        Op::Release(context) => world.release(context),
        Op::Look => {}
        Op::Stop(registration) => return world.stop(registration),
        derives => world.derive(derives),
    }
    false
}

impl ReferenceStateMachine for Reference {
    type State = Reference;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Reference> {
        Just(Reference { contexts: 1, ..Reference::default() }).boxed()
    }

    fn transitions(state: &Reference) -> BoxedStrategy<Op> {
        let own = state.instants;
        let context = 0..state.contexts;
        let cause = 0..4_u32;
        let cases = [
            context.clone().prop_map(Op::Cancel).boxed(),
            (context.clone(), -4..60_i64, cause.clone())
                .prop_map(move |(it, after, cause)| Op::Deadline(it, after * 1_000 + own, cause))
                .boxed(),
            (context.clone(), 0..3_usize, any::<u32>())
                .prop_map(|(it, key, value)| Op::Value(it, key, value))
                .boxed(),
            context.clone().prop_map(Op::Detach).boxed(),
            (context.clone(), context.clone()).prop_map(|(one, two)| Op::Merge(one, two)).boxed(),
            (context.clone(), cause).prop_map(|(it, cause)| Op::End(it, cause)).boxed(),
            context.clone().prop_map(Op::Drop).boxed(),
            (1..20_i64).prop_map(|by| Op::Advance(by * 1_000)).boxed(),
            Just(Op::Look).boxed(),
            context.clone().prop_map(Op::Watch).boxed(),
            context.prop_map(Op::Release).boxed(),
            (0..state.registrations.max(1)).prop_map(Op::Stop).boxed(),
        ];
        proptest::strategy::Union::new(cases).boxed()
    }

    fn preconditions(state: &Reference, op: &Op) -> bool {
        match *op {
            Op::Stop(registration) => registration < state.registrations,
            Op::Release(0) => false,
            op => !op.needs(|it| it >= state.contexts || state.released.contains(&it)),
        }
    }

    fn apply(mut state: Reference, op: &Op) -> Reference {
        applied(&mut state.model, *op);
        state.instants += 1;
        match op {
            Op::Watch(_) => state.registrations += 1,
            Op::Release(it) => _ = state.released.insert(*it),
            op => state.contexts += usize::from(op.parent().is_some()),
        }
        state
    }
}

struct Machine;

impl StateMachineTest for Machine {
    type SystemUnderTest = Ours;
    type Reference = Reference;

    fn init_test(_: &Reference) -> Ours {
        Ours::default()
    }

    fn apply(mut ours: Ours, reference: &Reference, op: Op) -> Ours {
        let _prevented = applied(&mut ours, op);
        if op != Op::Look {
            return ours; // who has not been asked may not have noticed
        }
        for context in (0..reference.contexts).filter(|it| !reference.released.contains(it)) {
            let (promised, seen) = (reference.model.look(context), ours.look(context));
            assert_eq!(promised, seen, "context {context}, after {op}");
        }
        ours
    }

    fn teardown(ours: Ours, _: Reference) {
        assert_eq!(ours.let_go(0), 0, "nothing is left");
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn histories_are_those_of_the_model(sequential 1..60 => Machine);
}
