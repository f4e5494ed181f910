//! `cargo xtask mutants`: tests of the tests. Each bug here was planted by hand; the stage that is named has to find it.
//!
//! It is planted in a copy of the sources below `target`. A mutant that does not compile, or whose place is not there any more, is an
//! error: it would test nothing.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sanitize::TARGET;
use crate::{Outcome, command, output};

/// What has to find it.
#[derive(Clone, Copy)]
enum Stage {
    /// The race models of that name, with two preemptions.
    Loom(&'static str),
    /// The first so many histories.
    Shuttle(&'static str),
    /// A package's tests: which, and of which names.
    Test(&'static str, &'static [&'static str], &'static str),
    /// The same, of purview's `it`, with AddressSanitizer.
    Address(&'static str),
}

struct Planted {
    name: &'static str,
    file: &'static str,
    /// Is there once.
    code: &'static str,
    bug: &'static str,
    stage: Stage,
}

const IT: &[&str] = &["--test", "it"];
const LIB: &[&str] = &["--lib"];
const MODEL: &[&str] = &["--test", "model"];

const PLANTED: [Planted; 22] = [
    Planted {
        name: "a lost wake-up: who has listed a waiter does not look once more",
        file: "crates/purview/src/done.rs",
        code: "        match this.node().ending() {",
        bug: "        match this.node().ending().filter(|_| false) {",
        stage: Stage::Loom("c29_a_wake_up_is_never_lost"),
    },
    Planted {
        name: "a relaxed publish: the end is stored before what it tells of",
        file: "crates/purview/src/state.rs",
        code: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Release);",
        bug: "self.0.store(ending.tagged(claimed | WAS_LIVE), Ordering::Relaxed);",
        stage: Stage::Loom("c4_"),
    },
    Planted {
        name: "a lost late child: who links a child does not look once more",
        file: "crates/purview/src/tree/derive.rs",
        code: "        if above.state().done().is_some() {\n            return false; // D3\n        }\n",
        bug: "",
        stage: Stage::Loom("c8_a_child_derived_during_a_cancel_is_never_lost"),
    },
    Planted {
        name: "a lost late child, of a parent whose own end is still on its way",
        file: "crates/purview/src/tree/sweep.rs",
        code: "            if node.is_leaf() {\n                node.set_complete();",
        bug: "            {\n                node.set_complete();",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a second canceler that does not wait for the first one's marking",
        file: "crates/purview/src/tree/note.rs",
        code: "        node.wait_until_complete();\n    }\n}\n\n/// The lock",
        bug: "    }\n}\n\n/// The lock",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a callback that is called, and says that it was stopped",
        file: "crates/purview/src/on_done.rs",
        code: "        let prevented = unlisted || callback.get().advance(WAITING, OVER).is_ok();",
        bug: "        let prevented = unlisted || callback.get().phase.load(Ordering::Acquire) == WAITING;",
        stage: Stage::Shuttle("300"),
    },
    Planted {
        name: "a cycle: a child counts its parent twice",
        file: "crates/purview/src/tree/derive.rs",
        code: "            count_up(&parent.head().strong);\n",
        bug: "            count_up(&parent.head().strong);\n            count_up(&parent.head().strong);\n",
        stage: Stage::Test("purview", IT, "c13_"),
    },
    Planted {
        name: "a leak: a handle that is given up at the same time as another one stays counted",
        file: "crates/purview/src/tree/reclaim.rs",
        code: "                    Err(now) => count = now,\n",
        bug: "                    Err(_) => return None,\n",
        stage: Stage::Loom("c13_the_last_two_handles"),
    },
    Planted {
        name: "a task that waits for room is forgotten when that is made just before it waits",
        file: "crates/purview/src/group/shared.rs",
        code: "        self.begin_waiting(); // somebody may have made room meanwhile\n",
        bug: "",
        stage: Stage::Loom("who_waits_for_room"),
    },
    Planted {
        name: "a use after free: a waiter that leaves stays listed",
        file: "crates/purview/src/tree/wait.rs",
        code: "        unsafe { held.list.remove(waiter.item()) };\n",
        bug: "        unsafe { if false { held.list.remove(waiter.item()) } };\n",
        stage: Stage::Address("c29_dropping_a_waiter"),
    },
    Planted {
        name: "a wrong order: what a sweep has marked is told as it was come by",
        file: "crates/purview/src/tree/chain.rs",
        code: "        if !self.sorted {",
        bug: "        if false && !self.sorted {",
        stage: Stage::Test("purview", IT, "c9_"),
    },
    Planted {
        name: "a forgotten unlink: a child that is canceled stays in its parent's list",
        file: "crates/purview/src/tree/note.rs",
        code: "        unsafe { held.list.remove(Node::item(self.this())) };\n        self.listed",
        bug: "        unsafe { if false { held.list.remove(Node::item(self.this())) } };\n        self.listed",
        stage: Stage::Test("purview", IT, "c12_"),
    },
    Planted {
        name: "a wheel whose levels are off by one",
        file: "crates/purview/src/timer/wheel.rs",
        code: "(63 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        bug: "(64 - (slot ^ self.cursor).leading_zeros()) / DIGIT;",
        stage: Stage::Test("purview", LIB, "timer"),
    },
    Planted {
        name: "of two equal deadlines the lower one counts",
        file: "crates/purview/src/tree/derive.rs",
        code: "} else if fixed < limit {",
        bug: "} else if fixed <= limit {",
        stage: Stage::Test("purview", IT, "c19_"),
    },
    Planted {
        name: "a callback that was taken back is called, too",
        file: "crates/purview/src/on_done.rs",
        code: "        self.callback.take().is_some_and(|callback| self.prevent(&callback))\n",
        bug: "        self.callback.take().is_some_and(|callback| { callback.get().keep(self.context()); true })\n",
        stage: Stage::Test("purview-conformance", MODEL, ""),
    },
    Planted {
        name: "below graces that come together again the longest way counts",
        file: "crates/purview/src/tree/deadline.rs",
        code: "todo.steps.pop_first()",
        bug: "todo.steps.pop_last()",
        stage: Stage::Test("purview", IT, "c15_"),
    },
    Planted {
        name: "a canceled context has its parent's cause, if that ends later",
        file: "crates/purview/src/state.rs",
        code: "            View::Done(_) => return Ended::Lost,\n        }\n        self.0.store",
        bug: "            View::Done(_) => {}\n        }\n        self.0.store",
        stage: Stage::Test("purview-conformance", MODEL, ""),
    },
    Planted {
        name: "a client that went away is taken for one that was answered",
        file: "crates/purview-http/src/request.rs",
        code: "        if self.is_whole {\n            self.finish();",
        bug: "        if !self.is_over {\n            self.finish();",
        stage: Stage::Test("purview-http", IT, "requests"),
    },
    Planted {
        name: "a stream that always has more never ends",
        file: "crates/purview-http/src/body.rs",
        code: "if is_ended && !serving.is_end_stream() {",
        bug: "if false && is_ended && !serving.is_end_stream() {",
        stage: Stage::Test("purview-http", IT, "requests"),
    },
    Planted {
        name: "a parent's end overlooked: the quick cancel of a leaf does not look whether it came first",
        file: "crates/purview/src/tree/note.rs",
        code: "Ordering::Relaxed) == UNLISTED || above.state().done().is_some() {",
        bug: "Ordering::Relaxed) == UNLISTED {",
        stage: Stage::Loom("c2_who_cancels_a_leaf"),
    },
    Planted {
        name: "armed after its end: who puts it into the timer does not look whether it has ended",
        file: "crates/purview/src/tree/deadline.rs",
        code: "if self.state().done().is_none() && self.limit() != Tick::NEVER {",
        bug: "if self.limit() != Tick::NEVER {",
        stage: Stage::Loom("c21_what_is_armed"),
    },
    Planted {
        name: "a grace that never begins: who links one does not look whether its parent has ended",
        file: "crates/purview/src/tree/derive.rs",
        code: "        if above.state().done().is_some() {\n            return false; // D3",
        bug: "        if self.grace().is_none() && above.state().done().is_some() {\n            return false; // D3",
        stage: Stage::Loom("c27_"),
    },
];

/// All of them, or those whose name has that in it.
pub(crate) fn mutants(root: &Path, filter: &str) -> Outcome {
    let folder = root.join("target/mutants");
    let sources = folder.join("sources");
    copy(root, &sources)?;
    let chosen: Vec<_> = PLANTED.iter().filter(|it| it.name.contains(filter)).collect();
    let mut survived = 0;
    for Planted { name, file, code, bug, stage } in &chosen {
        let file = sources.join(file);
        let complain = |err: std::io::Error| format!("{}: {err}", file.display());
        let sound = fs::read_to_string(&file).map_err(complain)?;
        if sound.matches(code).count() != 1 {
            return Err(format!(
                "{name}: where it was planted is another code: {}",
                file.display()
            ));
        }
        fs::write(&file, sound.replace(code, bug)).map_err(complain)?;
        let caught = is_caught(&sources, &folder, *stage);
        fs::write(&file, sound).map_err(complain)?;
        let caught = caught.map_err(|why| format!("{name}: {why}"))?;
        println!("{} {name}", if caught { "caught  " } else { "SURVIVED" });
        survived += usize::from(!caught);
    }
    match survived {
        0 => Ok(()),
        _ => Err(format!("{survived} of {} planted bugs survived", chosen.len())),
    }
}

/// Bugs that `cargo mutants` makes up, in the core: all of them, or those with that in what it calls them, which begins with the file.
/// What it is told is in `.cargo/mutants.toml`. Twice: most are caught by the quick tests of `it`, each of which ends the mutant's trial
/// when it fails (`.config/nextest.toml`); those that are left have all tests to pass.
pub(crate) fn generated(filter: &str) -> Outcome {
    for (tool, package) in [("mutants", "cargo-mutants"), ("nextest", "cargo-nextest")] {
        if output("cargo", &[tool.into(), "--version".into()], &[]).is_err() {
            println!("skipped: there is no {package} (cargo install {package})");
            return Ok(());
        }
    }
    let jobs = thread::available_parallelism().map_or(1, usize::from).to_string();
    let common = ["mutants", "--output", "target", "--re", filter, "--jobs", &jobs];
    let quick = ["--test-tool", "nextest", "--cargo-arg=--test=it"];
    let tests = ["it", "leaks", "alloc", "faults", "process"].map(|test| format!("--test={test}"));
    let all = ["--iterate", "--", "--lib"].into_iter().chain(tests.iter().map(String::as_str));
    let env = [("CARGO_PROFILE_DEV_DEBUG", "0"), ("NEXTEST_PROFILE", "mutants")]; // linked two thousand times
    trial(&[&common[..], &quick].concat(), &env)?;
    trial(&common.into_iter().chain(all).collect::<Vec<_>>(), &env)
}

/// That some mutants are missed is no error here: it says which.
fn trial(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    const MISSED: i32 = 2;
    const TIMED_OUT: i32 = 3;
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let status = command("cargo", &args, env).status().map_err(|err| err.to_string())?;
    match status.code() {
        Some(0 | MISSED | TIMED_OUT) => Ok(()),
        _ => Err(format!("cargo {}: {status}", args.join(" "))),
    }
}

/// The files that make the project, as they are now.
fn copy(root: &Path, to: &Path) -> Outcome {
    let list = output("git", &["ls-files".into(), "-z".into()], &[])?;
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), to.join(file));
        let complain = |err: std::io::Error| format!("{file}: {err}");
        let Ok(now) = fs::read(&from) else { continue }; // deleted, and not yet said so
        if fs::read(&to).is_ok_and(|before| before == now) {
            continue; // so that cargo need not build it again
        }
        fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(complain)?;
        fs::write(&to, now).map_err(complain)?;
    }
    Ok(())
}

fn is_caught(sources: &Path, folder: &Path, stage: Stage) -> Result<bool, String> {
    let (mut args, filter, flags) = match stage {
        Stage::Loom(filter) => (
            vec!["test", "-p", "purview", "--lib", "--release"],
            filter,
            "--cfg purview_loom --cap-lints allow",
        ),
        Stage::Shuttle(_) => (
            vec!["test", "-p", "purview", "--lib", "--release"],
            "histories_",
            "--cfg purview_shuttle --cap-lints allow",
        ),
        Stage::Test(package, which, filter) => (
            [&["test", "-p", package, "--all-features"], which].concat(),
            filter,
            "--cap-lints allow",
        ),
        Stage::Address(filter) => (
            vec!["test", "-p", "purview", "--test", "it", "--target", TARGET],
            filter,
            "-Zsanitizer=address --cfg purview_sanitize --cap-lints allow",
        ),
    };
    let built = match stage {
        Stage::Loom(_) => "loom",
        Stage::Shuttle(_) => "shuttle",
        Stage::Test(..) => "test",
        Stage::Address(_) => "address",
    };
    let built = folder.join(built).display().to_string();
    let histories = if let Stage::Shuttle(count) = stage { count } else { "0" };
    let env = [
        ("RUSTFLAGS", flags),
        ("RUSTC_BOOTSTRAP", "1"),
        ("CARGO_TARGET_DIR", &built),
        ("LOOM_MAX_PREEMPTIONS", "2"),
        ("ASAN_OPTIONS", "detect_stack_use_after_return=1:detect_leaks=0"),
        ("PROPTEST_CASES", "2000"),
        ("HISTORIES", histories),
    ];
    let cargo = |args: &[&str], patience: Option<Duration>| {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let mut command = command("cargo", &args, &env);
        command.current_dir(sources).stdout(Stdio::null()).stderr(Stdio::null());
        ends_well(&mut command, patience)
    };
    args.push("--quiet");
    if !cargo(&[&args[..], &["--no-run"]].concat(), None)? {
        return Err("it does not compile, and tests nothing".into());
    }
    args.extend(["--", filter]);
    Ok(!cargo(&args, Some(PATIENCE))?)
}

/// A test that hangs has found something, too.
const PATIENCE: Duration = Duration::from_secs(120);

fn ends_well(command: &mut Command, patience: Option<Duration>) -> Result<bool, String> {
    let mut child = command.process_group(0).spawn().map_err(|err| err.to_string())?;
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|err| err.to_string())? {
            return Ok(status.success());
        }
        if patience.is_some_and(|patience| begin.elapsed() > patience) {
            // cargo, and the test that it has started.
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}
